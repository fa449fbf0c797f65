package livepeer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/settings"
	"banmesh/topics"
)

// topic gives a topic that the agent ships or that a directory defines.
func topic(t *testing.T, dir string, name ban.Topic) *topics.Definition {
	t.Helper()
	all, err := topics.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(d *topics.Definition) bool { return d.Name == name })
	if i < 0 {
		t.Fatalf("there is no topic %s", name)
	}
	return all[i]
}

// replay gives the decisions that a log makes, as "target class".
func replay(t *testing.T, d *topics.Definition, lines ...string) []string {
	t.Helper()
	var got []string
	o := detect.Options{Jails: []detect.Jail{{Definition: d}}}
	_, err := detect.Replay(t.Context(), o, strings.NewReader(strings.Join(lines, "\n")+"\n"), "log", time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC), func(d detect.Decision) error {
		got = append(got, fmt.Sprintf("%s %s for %s", d.Target, d.Class, d.End.Sub(d.Last)))
		return nil
	})
	if err != nil && t.Context().Err() == nil {
		t.Fatal(err)
	}
	return got
}

// tls is a line of Go's net/http about a peer, as go-livepeer's log has it.
func tls(second int, peer, reason string) string {
	return fmt.Sprintf("2026/11/21 08:19:%02d http: TLS handshake error from %s: %s", second, peer, reason)
}

const eof = "EOF"

// reset is how net/http names a connection that the peer reset.
func reset(peer string) string {
	return "read tcp 198.51.100.1:8935->" + peer + ": read: connection reset by peer"
}

// TestEveryLineOfTheTablesHasItsWeight lets one line alone speak: how many of
// it make a ban, and of which class. 0 is never.
func TestEveryLineOfTheTablesHasItsWeight(t *testing.T) {
	t.Parallel()
	const peer = "203.0.113.9:51234"
	const at = "2026/11/21 08:19:58 "
	shipped := topic(t, t.TempDir(), "livepeer")
	const glog = "E1121 08:19:58.689960    9781 "
	for _, c := range []struct {
		claim, line string
		lines       int
		class       string
	}{
		{"another protocol", tls(1, peer, "tls: first record does not look like a TLS handshake"), 3, "scan"},
		{"HTTP on the TLS port", tls(1, peer, "client sent an HTTP request to an HTTPS server"), 0, ""},
		{"another protocol inside TLS", at + "http2: server: error reading preface from client " + peer + `: bogus greeting "GET / HTTP/1.1\r\nHost: x"`, 3, "scan"},
		{"an old TLS", tls(1, peer, "tls: client offered only unsupported versions: [301]"), 5, "scan"},
		{"no common cipher", tls(1, peer, "tls: no cipher suite supported by both client and server; client offered: [5]"), 5, "scan"},
		{"a handshake cut off", tls(1, peer, "unexpected EOF"), 6, "scan-weak"},
		{"an SSLv2 hello", tls(1, peer, "tls: unsupported SSLv2 handshake received"), 3, "scan"},
		{"a record that is too long", tls(1, peer, "tls: oversized record received with length 65535"), 3, "scan"},
		{"no common group", tls(1, peer, "tls: no key exchanges supported by both client and server"), 5, "scan"},
		{"no common protocol", tls(1, peer, `tls: client requested unsupported application protocols (["http/1.0"])`), 5, "scan"},
		{"a fallback", tls(1, peer, "tls: client using inappropriate protocol fallback"), 5, "scan"},
		{"no signature algorithms", tls(1, peer, "tls: missing signature_algorithms from TLS 1.2 peer"), 5, "scan"},
		{"a message that cannot be read", tls(1, peer, "local error: tls: error decoding message"), 6, "scan-weak"},
		{"a client that breaks off", tls(1, peer, "remote error: tls: handshake failure"), 30, "scan-weak"},
		{"a line that lost bytes", tls(1, peer, "local error: tls: bad record MAC"), 0, ""},
		{"a client that rejects the certificate", tls(1, peer, "remote error: tls: bad certificate"), 0, ""},
		{"the same by its system unit in syslog", "Nov 21 08:19:58 node1 livepeer[390680]: " + tls(1, peer, "tls: first record does not look like a TLS handshake"), 3, "scan"},
		{"a socket peer in IPv6", tls(1, "[2001:db8:7::9]:51234", "tls: first record does not look like a TLS handshake"), 3, "scan"},

		// Where the address comes from a header.
		{"a payment that cannot be read", glog + "segment_rpc.go:295] clientIP=203.0.113.9 Could not parse payment", 0, ""},
		{"credentials that do not fit", glog + `segment_rpc.go:308] clientIP=203.0.113.9 sender=0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed Could not verify segment creds err="ErrSegSig"`, 0, ""},
		{"a job without a header", glog + "job_orchestrator.go:131] generate token failed, invalid request remoteAddr=203.0.113.9", 0, ""},
		{"a job that failed", glog + "job_orchestrator.go:224] client_ip=203.0.113.9 job failed verification: x", 0, ""},
		{"a node without room", glog + "ai_http.go:1036] clientIP=203.0.113.9 request_id=x Insufficient capacity for pipeline=x", 0, ""},
		// A wallet, or nobody at all.
		{"a ticket that does not count", glog + "orchestrator.go:185] Error receiving ticket sessionID=x senderNonce=5: invalid ticket senderNonce sender=0xc3c7c4C8f7061B7d6A72766Eee5359fE4F36e61E nonce=5 highest=6", 0, ""},
		{"a request's signature", glog + "rpc.go:681] orchestrator req sig check failed", 0, ""},
		{"a cap of our own", glog + `segment_rpc.go:447] sender=0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed Cannot process manifest err="OrchestratorCapped"`, 0, ""},
		// Texts of clients that look like a line.
		{"a manifest id that looks like a line", glog + "segment_rpc.go:418] manifestID=x http: TLS handshake error from 203.0.113.9:1: tls: first record does not look like a TLS handshake", 0, ""},
		{"a line that goes on", tls(1, peer, "EOF")[:60] + " EOF and more", 0, ""},
		{"an address with a fifth part", tls(1, "203.0.113.9.1:51234", "tls: first record does not look like a TLS handshake"), 0, ""},
		{"no address, as in the seed's own example", at + "http: TLS handshake error from EOF", 0, ""},
	} {
		var lines []string
		made, class := 0, ""
		for n := 1; n <= 40 && made == 0; n++ {
			// A second each: lines of one address within one second count once.
			lines = append(lines, strings.NewReplacer(" 08:19:01 ", fmt.Sprintf(" 08:19:%02d ", n), " 08:19:58 ", fmt.Sprintf(" 08:19:%02d ", n)).Replace(c.line))
			if n < c.lines-1 || c.lines == 0 && n < 40 {
				continue // only where it is decided
			}
			if got := replay(t, shipped, lines...); len(got) > 0 {
				made, class = n, strings.Fields(got[0])[1]
			}
		}
		if made != c.lines || class != c.class {
			t.Errorf("%s: %d lines make a ban of class %q, want %d of %q", c.claim, made, class, c.lines, c.class)
		}
	}
}

// TestAnHonestGatewayIsNotBannedBecauseTheNodeIsSlow replays lines of gateways of
// gRPC were seen to leave in the log of a slow orchestrator.
func TestAnHonestGatewayIsNotBannedBecauseTheNodeIsSlow(t *testing.T) {
	t.Parallel()
	const gateway = "203.0.113.20:40000"
	repeat := func(n int, reason string) (lines []string) {
		for i := range n {
			lines = append(lines, tls(i%60, gateway, reason))
		}
		return lines
	}
	for claim, lines := range map[string][]string{
		"20 discoveries given up early":       append(repeat(16, eof), repeat(3, reset(gateway))...),
		"a monitor that connects and leaves":  repeat(5, eof),
		"a dial that met its limit":           repeat(1, eof),
		"a gateway that checks certificates":  repeat(100, "remote error: tls: bad certificate"),
		"a segment and a discovery, too late": repeat(2, eof),
	} {
		if got := replay(t, topic(t, t.TempDir(), "livepeer"), lines...); len(got) > 0 {
			t.Errorf("%s: %q", claim, got)
		}
	}
}

// TestMonitorsAloneBanNobody is for monitors of every pace and kind and for gateways of
// a node that stood still: the lines of honest clients, however many, say
// nothing about them.
func TestMonitorsAloneBanNobody(t *testing.T) {
	t.Parallel()
	shipped := topic(t, t.TempDir(), "livepeer")
	start := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	for _, every := range []int{2, 10, 60, 300, 600} {
		for _, reason := range []string{eof, reset("203.0.113.77:4711"), "client sent an HTTP request to an HTTPS server"} {
			var lines []string
			for at := 0; at < 7200; at += every {
				lines = append(lines, fmt.Sprintf("%s http: TLS handshake error from 203.0.113.77:%d: %s", start.Add(time.Duration(at)*time.Second).Format("2006/01/02 15:04:05"), 20000+at, reason))
			}
			if got := replay(t, shipped, lines...); len(got) > 0 {
				t.Errorf("%q every %d s: %q", reason, every, got)
			}
		}
	}
}

// TestTheNodesOwnStallIsBlamedOnNobody replays forty streams that one gateway
// gave up while the node stood still for five seconds, broken off in any way.
func TestTheNodesOwnStallIsBlamedOnNobody(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{eof, "unexpected EOF", reset("203.0.113.50:41300")} {
		var lines []string
		for i := range 40 {
			lines = append(lines, fmt.Sprintf("2026/11/28 00:14:59 http: TLS handshake error from 203.0.113.50:%d: %s", 41300+i, reason))
		}
		status := replayed(t, topic(t, t.TempDir(), "livepeer"), lines...)
		if status.Banned != 0 || status.Stalled != 40 || status.StalledAt.Format(time.TimeOnly) != "00:14:59" {
			t.Errorf("%s: %+v", reason, status)
		}
	}
	// Ten lines of three addresses are one, nine are not, nor ten of two.
	for _, c := range []struct {
		lines, sources int
		stalled        uint64
	}{{10, 3, 10}, {9, 3, 0}, {10, 2, 0}, {20, 1, 20}, {19, 1, 0}} {
		var lines []string
		for i := range c.lines {
			lines = append(lines, fmt.Sprintf("2026/11/28 00:14:59 http: TLS handshake error from 203.0.113.%d:%d: unexpected EOF", 50+i%c.sources, 41300+i))
		}
		if got := replayed(t, topic(t, t.TempDir(), "livepeer"), lines...); got.Stalled != c.stalled {
			t.Errorf("%d lines of %d addresses: %d stalled, want %d", c.lines, c.sources, got.Stalled, c.stalled)
		}
	}
	// Strong offences in the same second count all the same.
	var lines []string
	for i := range 40 {
		lines = append(lines, fmt.Sprintf("2026/11/28 00:14:59 http: TLS handshake error from 203.0.113.50:%d: EOF", 41300+i))
	}
	for i := range 3 {
		lines = append(lines, fmt.Sprintf("2026/11/28 00:14:59 http: TLS handshake error from 203.0.113.9:%d: tls: first record does not look like a TLS handshake", 41300+i))
	}
	if got := replay(t, topic(t, t.TempDir(), "livepeer"), lines...); !slices.Equal(got, []string{"203.0.113.9 scan for 1h0m0s"}) {
		t.Errorf("a scanner in a stall: %q", got)
	}
}

// replayed gives the jail's counts for a log.
func replayed(t *testing.T, d *topics.Definition, lines ...string) detect.JailStatus {
	t.Helper()
	o := detect.Options{Jails: []detect.Jail{{Definition: d}}}
	s, err := detect.Replay(t.Context(), o, strings.NewReader(strings.Join(lines, "\n")+"\n"), "log", time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC), func(detect.Decision) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return s.Jails[0]
}

// TestWhatAClientWroteIntoTheLogIsNoOffence has the lines of one request: a
// header without its message, a line that the client wrote, the message's rest.
func TestWhatAClientWroteIntoTheLogIsNoOffence(t *testing.T) {
	t.Parallel()
	var lines []string
	for i := range 3 {
		lines = append(lines,
			fmt.Sprintf("E1128 00:34:5%d.886438    1337 segment_rpc.go:308] manifestID=x", i),
			fmt.Sprintf("2026/11/28 00:34:5%d http: TLS handshake error from 203.0.113.50:4711: tls: first record does not look like a TLS handshake", i),
			` clientIP=192.0.2.130 sender=0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed Could not verify segment creds err="invalid auth token"`)
	}
	if got := replayed(t, topic(t, t.TempDir(), "livepeer"), lines...); got.Found != 0 || got.Tainted != 3 {
		t.Errorf("%+v", got)
	}
	// Eight lines later the log is believed again.
	for range 8 {
		lines = append(lines, "E1128 00:34:59.886438    1337 a.go:1] x http: a message")
	}
	for i := range 3 {
		lines = append(lines, fmt.Sprintf("2026/11/28 00:35:0%d http: TLS handshake error from 203.0.113.9:4711: tls: first record does not look like a TLS handshake", i))
	}
	if got := replayed(t, topic(t, t.TempDir(), "livepeer"), lines...); got.Banned != 1 || got.Tainted != 3 {
		t.Errorf("afterwards: %+v", got)
	}
}

// documented gives the TOML blocks of a document, each with the path that its
// first line names below /etc/banmesh; blocks without one are for agent.toml.
func documented(t *testing.T, file string) (blocks [][2]string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var block []string
	inside := false
	for line := range strings.Lines(string(b)) {
		text := strings.TrimSpace(line)
		switch {
		case text == "```toml":
			inside, block = true, nil
		case text == "```" && inside:
			inside = false
			path := "agent.toml"
			if named, ok := strings.CutPrefix(block[0], "# /etc/banmesh/"); ok {
				path = named
			}
			blocks = append(blocks, [2]string{path, strings.Join(block, "\n") + "\n"})
		case inside:
			block = append(block, text)
		}
	}
	return blocks
}

// TestTheDocumentedSettingsAreAccepted loads every block of the documents, in
// the order in which a reader comes upon them.
func TestTheDocumentedSettingsAreAccepted(t *testing.T) {
	t.Parallel()
	definitions := 0
	for _, file := range []string{"../../docs/livepeer.md", "../../docs/client.md"} {
		dir := t.TempDir()
		blocks := documented(t, file)
		if len(blocks) == 0 {
			t.Fatalf("%s shows no settings", file)
		}
		for _, b := range blocks {
			path := filepath.Join(dir, b[0])
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(b[1]), 0o644); err != nil {
				t.Fatal(err)
			}
			if b[0] != "agent.toml" {
				definitions++
			}
			if _, err := settings.Load(dir, ""); err != nil {
				t.Errorf("%s: %v in\n%s", file, err, b[1])
			}
		}
	}
	if definitions != 1 {
		t.Errorf("the documents define %d topics, want the jail's", definitions)
	}
}

// TestTheSeedsOwnSettingsCanBeExpressed takes the topic that docs/livepeer.md
// gives for the lines of the first fail2ban jail of orchestrators: three bare EOFs
// in 1800 s, banned for 864000 s.
func TestTheSeedsOwnSettingsCanBeExpressed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, b := range documented(t, "../../docs/livepeer.md") {
		if strings.HasPrefix(b[0], "topics.d/") {
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(b[0])), []byte(b[1]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	jail := topic(t, dir, "livepeer-jail")
	got := replay(t, jail, tls(1, "203.0.113.22:1", eof), tls(2, "203.0.113.20:2", eof), tls(3, "203.0.113.22:3", eof),
		tls(4, "203.0.113.20:2", eof), "Nov 21 08:19:05 node1 livepeer[390680]: "+tls(5, "203.0.113.22:3", eof), tls(6, "203.0.113.20:2", eof))
	if !slices.Equal(got, []string{"203.0.113.22 scan-weak for 240h0m0s"}) {
		t.Errorf("three of them make %q", got)
	}
	if !slices.Equal(jail.Enforce.Ports, []string{"8935", "3000"}) {
		t.Errorf("it closes %q", jail.Enforce.Ports)
	}
}
