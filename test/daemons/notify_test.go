package daemons

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
	"banmesh/internal/notify"
)

// deliveringMain is a postfix that delivers into a Maildir, speaks STARTTLS and
// knows dovecot's user.
const deliveringMain = postfixMain + `
virtual_mailbox_domains = example.org
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:%[3]d
virtual_gid_maps = static:%[4]d
virtual_minimum_uid = 1
smtpd_tls_security_level = may
smtpd_tls_cert_file = %[1]s/server.pem
smtpd_tls_key_file = %[1]s/server.pem
smtpd_tls_auth_only = yes
`

const deliveringMaster = postfixMaster + `
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
virtual unix - n n - - virtual
bounce unix - - n - 0 bounce
tlsmgr unix - - n 1000? 1 tlsmgr
`

func runDeliveringPostfix(t *testing.T, sasl string) (port, dir, ca string) {
	t.Helper()
	program := installed(t, "postfix")
	dir = place(t)
	uid, gid := ids(t, "postfix")
	for _, d := range []string{"queue", "data", "conf", "mail"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"data", "mail"} {
		if err := os.Chown(filepath.Join(dir, d), uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	ca = certify(t, dir)
	port = freePort(t)
	conf := filepath.Join(dir, "conf")
	write(t, filepath.Join(conf, "main.cf"), fmt.Sprintf(deliveringMain, dir, sasl, uid, gid))
	write(t, filepath.Join(conf, "master.cf"), fmt.Sprintf(deliveringMaster, server+":"+port))
	start(t, dir, program, "-c", conf, "start-fg")
	t.Cleanup(func() { _ = exec.Command(program, "-c", conf, "abort").Run() })
	dial(t, server, port).Close()
	return port, dir, ca
}

// certify writes key and certificate of the server into one file, and gives a file
// with the certificate alone.
func certify(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(server)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	write(t, filepath.Join(dir, "server.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))+string(public))
	if err := os.Chmod(filepath.Join(dir, "server.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ca.pem"), string(public))
	return filepath.Join(dir, "ca.pem")
}

// tested sends a test message to receivers and gives their answers.
func tested(t *testing.T, entries ...notify.Entry) []control.NotifyTest {
	t.Helper()
	for i := range entries {
		entries[i].Every = notify.DefaultEvery
		if faults := entries[i].Check(); len(faults) > 0 {
			t.Fatal(faults)
		}
	}
	n := notify.Open(notify.Options{
		Entries: func() []notify.Entry { return entries },
		Find:    func(history.Query) (history.Page, error) { return history.Page{}, nil },
		Wait:    func(context.Context, history.Query) (history.Page, error) { return history.Page{}, nil },
		Claims:  func(ban.Topic, ban.Target) bool { return false },
		File:    filepath.Join(t.TempDir(), "notify.json"), Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	list, err := n.Test(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestARealMailServerDeliversMessages(t *testing.T) {
	t.Parallel()
	_, _, sasl := runDovecot(t, "")
	eventually(t, "dovecot answers for SASL", func() bool { _, err := os.Stat(sasl); return err == nil })
	port, dir, ca := runDeliveringPostfix(t, sasl)
	right, wrong := filepath.Join(dir, "right"), filepath.Join(dir, "wrong")
	write(t, right, "secret\n")
	write(t, wrong, "another-secret\n")
	for _, f := range []string{right, wrong} {
		if err := os.Chmod(f, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	to, from, url := []string{"admin@example.org"}, "banmesh@example.org", "smtp://"+net.JoinHostPort(server, port)
	list := tested(t,
		notify.Entry{Name: "plain", Type: notify.Email, URL: url, To: to, From: from, Label: "Grüße"},
		notify.Entry{Name: "starttls", Type: notify.Email, URL: url, To: to, From: from, User: "honest", TokenFile: right, CAFile: ca},
		notify.Entry{Name: "stranger", Type: notify.Email, URL: url, To: to, From: from, User: "honest", TokenFile: right}, // whose certificate nobody signed
		notify.Entry{Name: "password", Type: notify.Email, URL: url, To: to, From: from, User: "honest", TokenFile: wrong, CAFile: ca},
		notify.Entry{Name: "elsewhere", Type: notify.Email, URL: url, To: []string{"admin@example.com"}, From: from},
	)
	for i, want := range []string{"", "", "certificate", "authentication failed", "Relay access denied"} {
		x := list[i]
		if want == "" && (x.Error != "" || x.Answer != "the mail was taken by "+net.JoinHostPort(server, port)) || !strings.Contains(x.Error, want) {
			t.Errorf("%s: %+v, want %q", x.Name, x, want)
		}
		if strings.Contains(x.Error, "another-secret") {
			t.Errorf("%s says the password: %s", x.Name, x.Error)
		}
	}
	box := filepath.Join(dir, "mail", "box", "new")
	var files []os.DirEntry
	eventually(t, "two mails are delivered", func() bool { files, _ = os.ReadDir(box); return len(files) == 2 })
	host, _ := os.Hostname()
	subjects := map[string]bool{}
	for _, f := range files {
		r, err := os.Open(filepath.Join(box, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		m, err := mail.ReadMessage(r)
		if err != nil {
			t.Fatal(err)
		}
		subjects[m.Header.Get("Subject")] = true
		if m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("To") != "<admin@example.org>" || !strings.HasSuffix(m.Header.Get("Message-Id"), "@example.org>") {
			t.Errorf("the header is %v", m.Header)
		}
		// The server's own line names its client as it greeted.
		if received := m.Header.Get("Received"); !strings.HasPrefix(received, "from example.org (") || host != "" && strings.Contains(received, host) {
			t.Errorf("received %s", received)
		}
		r.Close()
	}
	if !subjects["Banmesh: a test"] || len(subjects) != 2 {
		t.Errorf("the subjects are %v", subjects)
	}
}
