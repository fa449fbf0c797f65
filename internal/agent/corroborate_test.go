package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/procnet"
)

// A logFile is a service's log that a test writes.
type logFile struct {
	t    *testing.T
	path string
}

func newLog(t *testing.T) logFile {
	l := logFile{t, filepath.Join(t.TempDir(), "log")}
	if err := os.WriteFile(l.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

// says writes a line with this moment's date before it.
func (l logFile) says(format string, args ...any) {
	l.t.Helper()
	l.saysAt(time.Now(), format, args...)
}

func (l logFile) saysAt(at time.Time, format string, args ...any) {
	l.t.Helper()
	l.writes(at.Format(time.RFC3339) + " " + fmt.Sprintf(format, args...) + "\n")
}

// writes appends text as it is.
func (l logFile) writes(text string) {
	l.t.Helper()
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		l.t.Fatal(err)
	}
}

// fails writes so many failed logins at sshd, each of a connection that the
// kernel saw, from port 5000 on.
func (n *node) fails(l logFile, times int, address string) {
	n.t.Helper()
	for i := range times {
		n.connects("sshd", fmt.Sprintf("%s:%d", address, 5000+i))
		l.says("web sshd[7]: Failed password for root from %s port %d ssh2", address, 5000+i)
	}
}

// connects makes the kernel remember connections of a topic.
func (n *node) connects(topic ban.Topic, from ...string) {
	n.t.Helper()
	for _, x := range from {
		n.fake.Peer(topic, netip.MustParseAddrPort(x), 100)
	}
}

// detecting configures a node that reads one log in one topic.
func detecting(topic ban.Topic, l logFile, more string) string {
	config := fmt.Sprintf("[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.%s]\ndetect = true\njournal = []\ndocker = []\nfiles = [%q]\n%s", topic, l.path, more)
	if topic != "sshd" {
		config += "[topics.sshd]\ndetect = false\n"
	}
	return config
}

// jail gives a topic's counts.
func (n *node) jail(topic ban.Topic) (j control.JailStatus) {
	n.t.Helper()
	if err := n.client.Get(n.t.Context(), "/v1/jail", map[string][]string{"topic": {string(topic)}}, &j); err != nil {
		n.t.Fatal(err)
	}
	return j
}

func (n *node) warns(code string) (control.Warning, bool) {
	n.t.Helper()
	var s control.Status
	if err := n.client.Get(n.t.Context(), "/v1/status", nil, &s); err != nil {
		n.t.Fatal(err)
	}
	i := slices.IndexFunc(s.Warnings, func(w control.Warning) bool { return w.Code == code })
	if i < 0 {
		return control.Warning{}, false
	}
	return s.Warnings[i], true
}

// In every topic whose program names an address, only a line about a connection
// that the kernel saw counts, by port where it names one; nothing in the topics'
// definitions says so.
func TestALineOfNoConnectionBansNobodyInAnyTopic(t *testing.T) {
	for topic, c := range map[ban.Topic]struct {
		line string // with the address, and its port where the program names it
		port bool
	}{
		"sshd":        {"web sshd[7]: Failed password for root from %s port %d ssh2", true},
		"dovecot":     {"web dovecot: imap-login: Disconnected: Connection closed (auth failed, 1 attempts in 2 secs): user=<x>, method=PLAIN, rip=%s, lip=192.0.2.1, TLS, session=<a>", false},
		"postfix":     {"web postfix/smtpd[7]: warning: unknown[%s]: SASL LOGIN authentication failed: UGFzc3dvcmQ6", false},
		"vaultwarden": {"web vaultwarden[7]: [][vaultwarden::api::identity][ERROR] Username or password is incorrect. Try again. IP: %s. Username: x@example.org.", false},
		"webmin":      {"web webmin[7]: Invalid login as root from %s", false},
	} {
		t.Run(string(topic), func(t *testing.T) {
			t.Parallel()
			log := newLog(t)
			n := newNode(t, detecting(topic, log, ""))
			line := func(address string, port int) {
				args := []any{address}
				if c.port {
					args = append(args, port)
				}
				log.says(c.line, args...)
			}
			banned := func(address string) bool {
				return len(n.a.ledger.Own.Claims(topic)) > 0 && slices.ContainsFunc(n.a.ledger.Own.Claims(topic), func(c ban.Claim) bool { return c.Target == ban.MustTarget(address) })
			}
			// The forged and the real stand side by side.
			for i := range 10 {
				n.connects(topic, fmt.Sprintf("45.1.1.1:%d", 5000+i))
				for range 3 {
					line("45.1.1.2", 5000+i)
				}
				line("45.1.1.1", 5000+i)
			}
			n.eventually("the real one is banned", func() bool { return banned("45.1.1.1") })
			// Whoever is connected is confirmed by the very port alone.
			n.connects(topic, "45.1.1.3:6000")
			for range 10 {
				line("45.1.1.3", 6001)
			}
			line("45.1.1.4", 1)
			n.eventually("all is read", func() bool {
				j := n.jail(topic)
				return j.TotalFailed > 0 && n.doubted(topic) == "45.1.1.4"
			})
			if banned("45.1.1.2") || banned("45.1.1.4") || banned("45.1.1.3") == c.port {
				t.Errorf("banned are %v", n.a.ledger.Own.Claims(topic))
			}
			for _, x := range n.a.ledger.Own.Claims(topic) {
				if x.Basis != ban.BasisStrong || !x.Established {
					t.Errorf("others are told %+v", x)
				}
			}
			if w, ok := n.warns("uncorroborated"); !ok || !strings.Contains(w.Text, string(topic)) {
				t.Errorf("nobody is told: %+v", w)
			}
		})
	}
}

// doubted is the address of a topic's last line that did not count.
func (n *node) doubted(topic ban.Topic) string {
	for _, j := range n.a.detection.Status().Jails {
		if j.Topic == topic && j.Doubted.IsValid() {
			return j.Doubted.String()
		}
	}
	return ""
}

// Where no kernel can be asked, lines count here as they always did, and others
// are told of weak bans.
func TestALineThatNoKernelCanConfirmCountsHereAndIsWeakToOthers(t *testing.T) {
	for name, c := range map[string]struct {
		topic   ban.Topic
		config  string
		line    string
		prepare func(*node)
		at      time.Duration // before now
		stray   string        // a part of the warning of wrong ports
	}{
		"mode off":                          {config: "[firewall]\nmode = \"off\"\n"},
		"the operator believes the log":     {config: "corroborate = \"off\"\n"},
		"a proxy on another machine":        {config: "proxy = [\"192.0.2.10\"]\n"},
		"a proxy before all services":       {config: "GLOBAL proxy = [\"192.0.2.0/24\", \"cdn\"]"},
		"the memory has just begun":         {prepare: func(n *node) { n.fake.Begin("sshd", time.Now()) }},
		"the line is older than the memory": {prepare: func(n *node) { n.fake.Begin("sshd", time.Now().Add(-8*time.Minute)) }, at: 9 * time.Minute},
		"the service also speaks UDP": {
			topic: "openvpn", line: "web ovpn-server[7]: %s:%d TLS Auth Error: Auth Username/Password verification failed for peer",
		},
		"the service is at another port": {stray: "the service is at port 2222", prepare: func(n *node) {
			for i := range 5 {
				n.sockets = append(n.sockets, procnet.Socket{Local: netip.MustParseAddrPort("192.0.2.1:2222"), Remote: netip.AddrPortFrom(netip.MustParseAddr("45.1.1.1"), uint16(5000+i)), State: procnet.Established})
			}
		}},
		"nothing listens where the topic says": {stray: "nothing on this machine listens there", prepare: func(n *node) { n.sockets = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic, line := ban.Topic("sshd"), "web sshd[7]: Failed password for root from %s port %d ssh2"
			if c.topic != "" {
				topic, line = c.topic, c.line
			}
			log := newLog(t)
			config := detecting(topic, log, c.config)
			if more, ok := strings.CutPrefix(c.config, "GLOBAL "); ok {
				config = more + "\n" + detecting(topic, log, "")
			}
			n := newNode(t, config)
			if c.prepare != nil {
				n.mu.Lock()
				c.prepare(n)
				n.mu.Unlock()
			}
			for i := range 5 {
				log.saysAt(time.Now().Add(-c.at), line, "45.1.1.1", 5000+i)
			}
			var own []ban.Claim
			n.eventually("it is banned", func() bool {
				own = n.a.ledger.Own.Claims(topic)
				return len(own) == 1
			})
			if own[0].Basis != ban.BasisWeak || own[0].Established {
				t.Errorf("others are told %+v", own)
			}
			if w, told := n.warns("stray-port"); told != (c.stray != "") || !strings.Contains(w.Text, c.stray) {
				t.Errorf("of ports it is said: %+v", w)
			}
		})
	}
}

// A confirmed offence stays strong beside all of that.
func TestAConfirmedLineIsStrongInATopicThatAlsoSpeaksUDPOrHasAProxy(t *testing.T) {
	log := newLog(t)
	n := newNode(t, detecting("sshd", log, "proxy = [\"192.0.2.10\"]\n"))
	n.fails(log, 5, "45.1.1.1")
	n.eventually("it is banned", func() bool { return n.drops("45.1.1.1") })
	if own := n.a.ledger.Own.Claims("sshd"); len(own) != 1 || own[0].Basis != ban.BasisStrong {
		t.Errorf("others are told %+v", own)
	}
	// A program that logs the proxy in place of its client bans nobody.
	n.fails(log, 9, "192.0.2.10")
	var x control.Explanation
	n.eventually("the proxy is held", func() bool {
		x = n.explain("192.0.2.10")
		return len(x.Held) > 0
	})
	if n.drops("192.0.2.10") || !strings.Contains(x.Held[0].Why, "a proxy before the service") {
		t.Errorf("%+v", x.Held)
	}
}

// A forger can name any port, and none makes a line of nobody's connection
// count where the service is at its ports.
func TestAForgedPortIsNoStrayOne(t *testing.T) {
	n := newNode(t, quiet)
	n.configure(strings.Replace(quiet, "detect = false", "detect = true\nfiles = [\"/nonexistent\"]\njournal = []", 1))
	n.restart()
	n.sockets = append(n.sockets, procnet.Socket{Local: netip.MustParseAddrPort("[2001:db8::1]:443"), Remote: netip.MustParseAddrPort("[2001:db8:9::7]:4000"), State: procnet.Established})
	n.connects("sshd", "45.1.1.1:4000", "[2001:db8:8::7]:4000")
	for from, want := range map[string]detect.Proof{
		"45.1.1.1:4000": detect.ProofConfirmed, "[::ffff:45.1.1.1]:4000": detect.ProofConfirmed, "45.1.1.1:0": detect.ProofConfirmed, "45.1.1.1:4001": detect.ProofDenied,
		"45.1.1.2:0": detect.ProofDenied, "[2001:db8:8::7]:4000": detect.ProofConfirmed, "[2001:db8:8::8]:4000": detect.ProofDenied,
		// A connection with another service proves that there is one, and no more.
		"[2001:db8:9::7]:4000": detect.ProofUnknown, "[2001:db8:9::7]:4001": detect.ProofDenied, "[2001:db8:9::7]:0": detect.ProofDenied,
	} {
		if got := n.a.enforcer.corroborated(t.Context(), detect.Question{Topic: "sshd", From: netip.MustParseAddrPort(from), At: time.Now()}); got != want {
			t.Errorf("%s: %d, want %d", from, got, want)
		}
	}
}

// A log that is read late or for the first time tells of connections that no
// memory holds: that is no "no".
func TestTheKernelDeniesOnlyWhatItWouldRemember(t *testing.T) {
	t.Parallel()
	n := newNode(t, strings.Replace(quiet, "detect = false", "detect = true\nfiles = [\"/nonexistent\"]\njournal = []", 1))
	now := time.Now()
	for name, c := range map[string]struct {
		begun, at time.Duration // before now
		want      detect.Proof
	}{
		"written before the memory began":        {8 * time.Minute, 9 * time.Minute, detect.ProofUnknown},
		"of who may have been silent since":      {8 * time.Minute, 4 * time.Minute, detect.ProofUnknown},
		"of who was silent for too long":         {8 * time.Minute, time.Minute, detect.ProofDenied},
		"of a memory that is as old as it lasts": {2 * time.Hour, time.Minute, detect.ProofDenied},
		"read when the memory has let go of it":  {2 * time.Hour, 56 * time.Minute, detect.ProofUnknown},
		"read just before":                       {2 * time.Hour, 54 * time.Minute, detect.ProofDenied},
	} {
		n.fake.Begin("sshd", now.Add(-c.begun))
		if got := n.a.enforcer.corroborated(t.Context(), detect.Question{Topic: "sshd", From: netip.MustParseAddrPort("45.1.1.1:9"), At: now.Add(-c.at)}); got != c.want {
			t.Errorf("a line %s: %d, want %d", name, got, c.want)
		}
	}
}

// The recipe of an application behind a proxy on another machine: the
// application's host enforces nothing and sees no client, and yet both machines
// are the same operator's, so the proxy's host bans whom it names.
func TestTheProxysHostBansWhomTheApplicationsHostNames(t *testing.T) {
	app, proxy := siblings(t)
	log := newLog(t)
	app.configure(detecting("vaultwarden", log, "publish = true\n[firewall]\nmode = \"off\"\n"))
	app.start()
	proxy.configure(fmt.Sprintf("[[brokers]]\nurl = \"tcp://%s\"\n[topics.sshd]\ndetect = false\n[topics.vaultwarden]\nsubscribe = true\nports = [443]\n", app.a.sharing.broker.Addr()))
	proxy.start()
	for range 5 {
		log.says("web vaultwarden[7]: [][vaultwarden::api::identity][ERROR] Username or password is incorrect. Try again. IP: 45.1.1.1. Username: x@example.org.")
	}
	proxy.eventually("the proxy's host drops it", func() bool { return proxy.fake.Packet(netip.MustParseAddr("45.1.1.1"), "tcp", 443, 40) })
	if own := app.a.ledger.Own.Claims("vaultwarden"); len(own) != 1 || own[0].Basis != ban.BasisWeak {
		t.Errorf("strangers are told %+v", own)
	}
}
