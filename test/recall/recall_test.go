// Package recall_test counts how many of the attacks that fail2ban's own
// sample logs hold are found by the topics that ship with the agent.
package recall_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/topics"
)

// A floor is the least that a topic finds of a sample log's attacks, and the
// most lines of it that it may count against somebody who did no harm. The
// lines that fail2ban's filter finds are those marked as a match, by whichever
// of its modes.
type floor struct {
	log, topic   string
	found, wrong int
}

var floors = []floor{
	{"sshd", "sshd", 91, 9},
	{"sshd-journal", "sshd", 78, 9},
	{"dovecot", "dovecot", 45, 5},
	{"postfix", "postfix", 50, 1},
	{"nginx-bad-request", "nginx", 8, 0},
	{"nginx-http-auth", "nginx", 10, 0},
	{"nginx-botsearch", "web-probe", 12, 0},
	{"gitlab", "gitlab", 2, 0},
	{"grafana", "grafana", 2, 0},
	{"mongodb-auth", "mongodb", 4, 0},
	{"traefik-auth", "traefik", 2, 1},
	{"webmin-auth", "webmin", 3, 0},
	{"apache-auth", "apache", 40, 0},
	{"asterisk", "asterisk", 45, 0},
	{"exim", "exim", 39, 0},
	{"mysqld-auth", "mysqld", 14, 0},
	{"named-refused", "named", 15, 0},
	{"proftpd", "proftpd", 10, 0},
	{"roundcube-auth", "roundcube", 11, 0},
	{"vsftpd", "vsftpd", 4, 0},
}

// A note is the suite's word on the line below it.
type note struct {
	Match bool   `json:"match"`
	Host  string `json:"host"`
}

func TestTopicsFindWhatTheyFoundOfFail2bansSamples(t *testing.T) {
	tests := os.Getenv("FAIL2BAN_TESTS")
	if tests == "" {
		tests = "/usr/lib/python3/dist-packages/fail2ban/tests"
	}
	if _, err := os.Stat(filepath.Join(tests, "files", "logs")); err != nil {
		t.Skipf("fail2ban's sample suite is not installed: %v", err)
	}
	definitions := map[string]*topics.Definition{}
	for _, d := range topics.Builtin() {
		definitions[string(d.Name)] = d
	}
	for _, f := range floors {
		t.Run(f.log, func(t *testing.T) {
			d := definitions[f.topic]
			if d == nil {
				t.Fatalf("no topic %s", f.topic)
			}
			positives, found, wrong := count(t, d, filepath.Join(tests, "files", "logs", f.log), strings.HasSuffix(f.log, "-journal"))
			fmt.Printf("figure recall-%s %d lines aim %d\n", f.log, found, positives)
			fmt.Printf("figure recall-%s-wrong %d lines aim 0\n", f.log, wrong)
			if found < f.found || wrong > f.wrong {
				t.Errorf("topic %s finds %d of %d and %d wrongly, want at least %d and at most %d",
					f.topic, found, positives, wrong, f.found, f.wrong)
			}
		})
	}
}

// count runs a sample log through a topic.
func count(t *testing.T, d *topics.Definition, path string, journal bool) (positives, found, wrong int) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sampler, err := detect.NewSampler(d, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	attacks := attacksOf(t, path, text)
	var said *note
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if data, ok := strings.CutPrefix(line, "# failJSON:"); ok {
			said = &note{}
			if err := json.Unmarshal([]byte(data), said); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		got := sampler.FindNext(topics.Sample{Line: line, Journal: journal})
		hit := !got.Target.IsZero()
		switch {
		case said != nil && said.Match:
			positives++
			if hit && (said.Host == "" || names(got.Target.String(), said.Host)) {
				found++
			} else if hit {
				wrong++
				t.Logf("found %s: %s", got.Target, line)
			} else {
				t.Logf("missed: %s", line)
			}
		case hit && !attacks[line]:
			wrong++
			t.Logf("found %s: %s", got.Target, line)
		}
		said = nil
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return positives, found, wrong
}

// attacksOf gives the lines that fail2ban's filter finds in some mode, also
// where another mode does not.
func attacksOf(t *testing.T, path string, text []byte) map[string]bool {
	found := map[string]bool{}
	match := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if data, ok := strings.CutPrefix(line, "# failJSON:"); ok {
			var n note
			if err := json.Unmarshal([]byte(data), &n); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			match = n.Match
			continue
		}
		found[line] = found[line] || match
		match = false
	}
	return found
}

// names reports whether a target holds the address that fail2ban names.
func names(target, host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if p, err := netip.ParsePrefix(target); err == nil {
		return p.Contains(addr)
	}
	a, err := netip.ParseAddr(target)
	return err == nil && a == addr.Unmap()
}
