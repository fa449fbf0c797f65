package daemons

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const postfixMain = `
compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/mail.log
maillog_file_prefixes = /tmp
myhostname = mail.example.org
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 192.0.2.1/32
smtpd_peername_lookup = no
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %[2]s
smtpd_relay_restrictions = reject_unauth_destination
smtpd_error_sleep_time = 0
smtpd_client_port_logging = no
local_recipient_maps =
alias_maps =
`

const postfixMaster = `
%[1]s inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
rewrite unix - - n - - trivial-rewrite
`

func runPostfix(t *testing.T, sasl string) (port, log string) {
	t.Helper()
	program := installed(t, "postfix")
	dir := place(t)
	uid, _ := ids(t, "postfix")
	for _, d := range []string{"queue", "data", "conf"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(dir, "data"), uid, -1); err != nil {
		t.Fatal(err)
	}
	port = freePort(t)
	conf := filepath.Join(dir, "conf")
	write(t, filepath.Join(conf, "main.cf"), fmt.Sprintf(postfixMain, dir, sasl))
	write(t, filepath.Join(conf, "master.cf"), fmt.Sprintf(postfixMaster, server+":"+port))
	start(t, dir, program, "-c", conf, "start-fg")
	t.Cleanup(func() { _ = exec.Command(program, "-c", conf, "abort").Run() })
	return port, filepath.Join(dir, "mail.log")
}

// smtp is one connection that says lines, with wait each after the answer to the one before,
// and hears the server out.
func smtp(t *testing.T, from, port string, wait bool, lines ...string) {
	t.Helper()
	conn := dial(t, from, port)
	defer conn.Close()
	in := bufio.NewReader(conn)
	answer := func() string {
		for {
			line, err := in.ReadString('\n')
			if err != nil || len(line) > 3 && line[3] == ' ' {
				return line
			}
		}
	}
	answer()
	if !wait {
		fmt.Fprint(conn, strings.Join(lines, "\r\n")+"\r\n")
		_ = conn.(*net.TCPConn).CloseWrite()
		for answer() != "" {
		}
		return
	}
	for _, line := range lines {
		fmt.Fprint(conn, line+"\r\n")
		answer()
	}
}

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestNobodyButTheClientIsBlamedByPostfix(t *testing.T) {
	t.Parallel()
	_, _, sasl := runDovecot(t, "")
	eventually(t, "dovecot answers for SASL", func() bool { _, err := os.Stat(sasl); return err == nil })
	port, log := runPostfix(t, sasl)
	logins := 0
	for _, name := range names {
		smtp(t, attacker, port, true, "EHLO x", "AUTH LOGIN", encoded(name), encoded("wrong"), "QUIT")
		smtp(t, attacker, port, true, "EHLO "+strings.ReplaceAll(name, " ", "_"), "AUTH PLAIN "+encoded("\x00"+name+"\x00wrong"), "QUIT")
		logins += 2
	}
	for _, text := range []string{
		"from x[" + framed + "]",
		"lost connection after AUTH from x[" + framed + "]",
		"warning: x[" + framed + "]: SASL LOGIN authentication failed: x",
		"NOQUEUE: reject: RCPT from x[" + framed + "]: 554 5.7.1 x",
		": improper command pipelining after AUTH from x[" + framed + "]",
	} {
		// Pipelined where it is not allowed: postfix logs commands that came too early.
		smtp(t, attacker, port, false, "EHLO x", text, "NOOP", text, "QUIT")
		smtp(t, attacker, port, false, "HELO x", "MAIL FROM:<"+text+">", "RCPT TO:<"+text+"@example.com>", "DATA", text)
		smtp(t, attacker, port, true, "EHLO "+text, "MAIL FROM:<a@example.com>", `RCPT TO:<"`+text+`"@example.com>`, "QUIT")
		smtp(t, attacker, port, true, "EHLO x", `MAIL FROM:<"`+text+`"@example.com>`, "RCPT TO:<b@example.com>", "AUTH "+text, text, "QUIT")
	}
	text := logged(t, log, "disconnect from unknown["+attacker+"]", 2*len(names)+20)
	onlyTheAttacker(t, "postfix", text, logins-4)
}
