package daemons

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/topics"
)

// serveVariable makes this test binary a Go HTTPS server at the address that it
// holds; the server logs to standard error as net/http does.
const serveVariable = "BANMESH_TEST_SERVE"

func TestMain(m *testing.M) {
	if address := os.Getenv(serveVariable); address != "" {
		log.SetFlags(log.LstdFlags)
		log.Fatal(serve(address))
	}
	os.Exit(m.Run())
}

func serve(address string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(server)}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	s := &http.Server{
		Addr: address, Handler: http.NotFoundHandler(),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}},
	}
	return s.ListenAndServeTLS("", "")
}

// runServer starts it and gives its port, its process and its log.
func runServer(t *testing.T) (port string, process *os.Process, log string) {
	t.Helper()
	dir := place(t)
	port = freePort(t)
	t.Setenv(serveVariable, net.JoinHostPort(server, port))
	process = start(t, dir, os.Args[0])
	os.Unsetenv(serveVariable)
	return port, process, filepath.Join(dir, "output")
}

// handshake handshakes as a gateway does for a request, and gives up after a while.
func handshake(ctx context.Context, from, port string, patience time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(server, port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	_, err = io.Copy(io.Discard, conn)
	return err
}

// banned gives the targets that the livepeer topic bans for a log, by its own
// thresholds.
func banned(t *testing.T, text string) map[string]int {
	t.Helper()
	got := map[string]int{}
	for _, def := range topics.Builtin() {
		if def.Name != "livepeer" {
			continue
		}
		jail := detect.Options{Jails: []detect.Jail{{Definition: def}}}
		if _, err := detect.Replay(context.WithoutCancel(t.Context()), jail, strings.NewReader(text), "log", time.Now(), func(d detect.Decision) error {
			got[d.Target.String()]++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

// TestAServerThatStandsStillBansNobody stops a real Go server for five seconds
// under an honest gateway's forty streams, which give up after three.
func TestAServerThatStandsStillBansNobody(t *testing.T) {
	const gateway, streams = "127.66.0.7", 40
	port, process, path := runServer(t)
	dial(t, gateway, port).Close()
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	gaveUp := make(chan error, streams)
	for range streams {
		group.Go(func() { gaveUp <- handshake(t.Context(), gateway, port, 3*time.Second) })
	}
	group.Wait()
	for range streams {
		if <-gaveUp == nil {
			t.Error("a stream was served by a process that is stopped")
		}
	}
	<-time.After(2 * time.Second) // five in all, as in the trial that this repeats
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	text := logged(t, path, "TLS handshake error from "+gateway, streams)
	if got := banned(t, text); len(got) > 0 {
		t.Errorf("the server's own stall bans %v\n%s", got, text)
	}
	// The gateway comes back at once, and a prober is still found.
	for range 5 {
		if err := handshake(t.Context(), gateway, port, patience); err != nil {
			t.Errorf("the gateway is not served: %v", err)
		}
	}
	for range 3 {
		conn := dial(t, attacker, port)
		fmt.Fprint(conn, "SSH-2.0-probe\r\n")
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	text = logged(t, path, "TLS handshake error from "+attacker, 3)
	if got := banned(t, text); got[attacker] != 1 || len(got) != 1 {
		t.Errorf("three probes after a stall ban %v, want %s\n%s", got, attacker, text)
	}
}
