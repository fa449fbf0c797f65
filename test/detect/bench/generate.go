package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// A mix is the composition of a log.
type mix struct {
	lines  int
	attack float64 // share of lines that are part of an attack
	seed   uint64
	end    time.Time
	span   time.Duration
}

// generate writes a log as OpenSSH and its neighbours write it, the same for
// the same mix. Attackers come back as a few busy ones and many quiet ones do;
// one in ten has IPv6.
func generate(w io.Writer, m mix) error {
	b := bufio.NewWriterSize(w, 1<<20)
	g := &generator{rng: rand.New(rand.NewPCG(m.seed, 1)), b: b}
	g.attackers = rand.NewZipf(g.rng, 1.2, 4, 399)
	g.at = m.end.Add(-m.span)
	step := m.span / time.Duration(m.lines)
	for g.lines < m.lines {
		before := g.lines
		if g.rng.Float64() < m.attack/g.weight(m.attack) {
			g.attack()
		} else {
			g.benign()
		}
		g.at = g.at.Add(step * time.Duration(g.lines-before))
	}
	return b.Flush()
}

type generator struct {
	rng       *rand.Rand
	b         *bufio.Writer
	attackers *rand.Zipf
	at        time.Time
	lines     int
	pid       int
}

// weight makes up for an attack's having more lines than a benign event: 2.3
// to 1.6 on average.
func (g *generator) weight(share float64) float64 { return 1.45 - 0.45*share }

func (g *generator) line(tag string, pid int, format string, args ...any) {
	fmt.Fprintf(g.b, "%s web1 %s[%d]: ", g.at.Format(time.Stamp), tag, pid)
	fmt.Fprintf(g.b, format, args...)
	g.b.WriteByte('\n')
	g.lines++
}

func (g *generator) next() int {
	g.pid = 1000 + (g.pid+1+g.rng.IntN(3))%60000
	return g.pid
}

func (g *generator) attacker() string {
	n := g.attackers.Uint64()
	if n%10 == 9 {
		return fmt.Sprintf("2001:db8:%x:%x::%x", n, n*7%251, 1+g.rng.IntN(5))
	}
	return fmt.Sprintf("198.%d.%d.%d", 18+n%2, n*13%256, 1+n*29%254)
}

var names = []string{"admin", "oracle", "test", "ubuntu", "git", "postgres", "user", "pi", "ftp", "www"}

func (g *generator) attack() {
	ip, pid, port := g.attacker(), g.next(), 1024+g.rng.IntN(60000)
	switch g.rng.IntN(10) {
	case 0, 1, 2, 3:
		name := names[g.rng.IntN(len(names))]
		g.line("sshd", pid, "Invalid user %s from %s port %d", name, ip, port)
		g.line("sshd", pid, "Failed password for invalid user %s from %s port %d ssh2", name, ip, port)
		g.line("sshd", pid, "Connection closed by invalid user %s %s port %d [preauth]", name, ip, port)
	case 4, 5, 6, 7:
		g.line("sshd", pid, "Failed password for root from %s port %d ssh2", ip, port)
		g.line("sshd", pid, "Connection closed by authenticating user root %s port %d [preauth]", ip, port)
	case 8:
		g.line("sshd", pid, "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=%s  user=root", ip)
		g.line("sshd", pid, "error: maximum authentication attempts exceeded for root from %s port %d ssh2 [preauth]", ip, port)
		g.line("sshd", pid, "Disconnecting authenticating user root %s port %d: Too many authentication failures [preauth]", ip, port)
	default:
		g.line("sshd", pid, "Unable to negotiate with %s port %d: no matching host key type found. Their offer: ssh-dss [preauth]", ip, port)
	}
}

func (g *generator) benign() {
	pid := g.next()
	switch g.rng.IntN(12) {
	case 0, 1, 2, 3:
		g.line("CRON", pid, "pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)")
		g.line("CRON", pid, "pam_unix(cron:session): session closed for user root")
	case 4, 5:
		g.line("systemd-logind", 612, "New session %d of user deploy.", 1000+g.rng.IntN(9000))
		g.line("systemd-logind", 612, "Session %d logged out. Waiting for processes to exit.", 1000+g.rng.IntN(9000))
	case 6:
		port := 1024 + g.rng.IntN(60000)
		g.line("sshd", pid, "Accepted publickey for deploy from 10.0.%d.%d port %d ssh2: ED25519 SHA256:Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6", g.rng.IntN(4), 1+g.rng.IntN(200), port)
		g.line("sshd", pid, "pam_unix(sshd:session): session opened for user deploy(uid=1001) by (uid=0)")
	case 7:
		g.line("sudo", pid, "  deploy : TTY=pts/%d ; PWD=/home/deploy ; USER=root ; COMMAND=/usr/bin/systemctl status app%d", g.rng.IntN(9), g.rng.IntN(99))
		g.line("sudo", pid, "pam_unix(sudo:session): session opened for user root(uid=0) by deploy(uid=1001)")
	case 8:
		g.line("kernel", 1, "[%d.%06d] veth%x: renamed from eth0", 1000+g.lines, g.rng.IntN(999999), g.rng.Uint32())
	case 9:
		g.line("postfix/smtpd", pid, "connect from mail%d.example.org[10.1.%d.%d]", g.rng.IntN(9), g.rng.IntN(9), 1+g.rng.IntN(200))
		g.line("postfix/smtpd", pid, "disconnect from mail%d.example.org[10.1.%d.%d] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7", g.rng.IntN(9), g.rng.IntN(9), 1+g.rng.IntN(200))
	case 10:
		g.line("dovecot", 711, "imap-login: Login: user=<user%d>, method=PLAIN, rip=10.2.%d.%d, lip=10.0.0.2, mpid=%d, TLS, session=<%x>", g.rng.IntN(99), g.rng.IntN(9), 1+g.rng.IntN(200), g.next(), g.rng.Uint64())
	default:
		g.line("systemd", 1, "Started session-%d.scope - Session %d of User deploy.", g.rng.IntN(9999), g.rng.IntN(9999))
	}
}
