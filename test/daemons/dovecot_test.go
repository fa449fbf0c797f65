package daemons

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dovecotConf is a dovecot that knows one user, and logs as Debian's does.
const dovecotConf = `
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/dovecot.log
auth_verbose = yes
protocols = imap
listen = %[2]s
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
mail_location = maildir:%[1]s/mail
passdb {
  driver = passwd-file
  args = scheme=PLAIN %[1]s/users
}
userdb {
  driver = static
  args = uid=%[3]d gid=%[4]d home=%[1]s/mail
}
# The same client fails again and again: dovecot would make it wait.
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service imap-login {
  inet_listener imap {
    port = %[5]s
  }
}
service auth {
  unix_listener %[1]s/sasl {
    mode = 0666
  }
}
%[6]s
`

// runDovecot starts one and gives its IMAP port, its log and a socket for SASL.
func runDovecot(t *testing.T, more string) (port, log, sasl string) {
	t.Helper()
	program := installed(t, "dovecot")
	dir := place(t)
	uid, gid := ids(t, "mail")
	port = freePort(t)
	write(t, filepath.Join(dir, "users"), "honest:secret\n")
	for _, d := range []string{"mail", "run", "state"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(dir, "mail"), uid, gid); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "dovecot.conf")
	write(t, conf, fmt.Sprintf(dovecotConf, dir, server, uid, gid, port, more))
	start(t, dir, program, "-F", "-c", conf)
	return port, filepath.Join(dir, "dovecot.log"), filepath.Join(dir, "sasl")
}

// An imapClient says lines and waits for the tagged answers.
type imapClient struct {
	t   *testing.T
	say func(format string, args ...any)
	in  *bufio.Reader
}

func imap(t *testing.T, from, port string) *imapClient {
	t.Helper()
	conn := dial(t, from, port)
	t.Cleanup(func() { conn.Close() })
	c := &imapClient{t: t, in: bufio.NewReader(conn), say: func(format string, args ...any) { fmt.Fprintf(conn, format, args...) }}
	c.line()
	return c
}

func (c *imapClient) line() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	return line
}

// login tries a name, sent as a literal so that it may hold any byte, and gives
// the answer.
func (c *imapClient) login(name, password string) string {
	c.say("a LOGIN {%d}\r\n", len(name))
	c.line()
	c.say("%s {%d}\r\n", name, len(password))
	c.line()
	c.say("%s\r\n", password)
	for {
		if line := c.line(); strings.HasPrefix(line, "a ") {
			return line
		}
	}
}

// names are user names that look like the rest of a log line.
var names = []string{
	"plain",
	"x>, method=PLAIN, rip=" + framed + ", lip=1",
	"x>, rip=" + framed + ", lip=127.0.0.1, TLS, session=<a",
	"x," + framed + "): unknown user",
	"x," + framed + "): Password mismatch (",
	"x,127.0.0.2," + framed + ",<s>): unknown user",
	"(auth failed, 3 attempts in 1 secs): user=<x>, method=PLAIN, rip=" + framed,
	"honest from " + framed,
	"x[" + framed + "]: SASL LOGIN authentication failed",
	"a" + strings.Repeat("b", 300) + ">, rip=" + framed + ", lip=1, ",
	"x\ty>, method=PLAIN, rip=" + framed + ", lip=1, session=<",
	"x\" rip=" + framed + " ",
	"x\\>, rip=" + framed + ", lip=1, ",
}

func TestNobodyButTheClientIsBlamedByDovecot(t *testing.T) {
	t.Parallel()
	port, log, _ := runDovecot(t, "")
	for _, name := range names {
		c := imap(t, attacker, port)
		if answer := c.login(name, "wrong"); !strings.HasPrefix(answer, "a NO") && !strings.HasPrefix(answer, "a BAD") {
			t.Fatalf("%q was answered %q", name, answer)
		}
		c.say("b LOGOUT\r\n")
		c.line()
	}
	text := logged(t, log, "imap-login: ", len(names))
	onlyTheAttacker(t, "dovecot", text, len(names)-2)
}

func TestAGoodLoginAtDovecotBlamesNobody(t *testing.T) {
	t.Parallel()
	port, log, _ := runDovecot(t, "")
	c := imap(t, attacker, port)
	if answer := c.login("honest", "secret"); !strings.HasPrefix(answer, "a OK") {
		t.Fatalf("answered %q", answer)
	}
	c.say("b LOGOUT\r\n")
	text := logged(t, log, "Login: user=<honest>", 1)
	if got := blamed(t, "dovecot", text); len(got) > 0 {
		t.Errorf("a good login blames %v\n%s", got, text)
	}
}
