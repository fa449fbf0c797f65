// Package recall_test counts how many of the attacks that fail2ban's own
// sample logs hold are found by the topics that ship with the agent.
package recall_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/topics"
)

// A floor is the least that a topic finds of a sample log's attacks. The attacks
// are the lines marked as a match, in whichever mode of fail2ban's filter. No
// topic may count a line against somebody where no mode of that filter does.
type floor struct {
	log, topic string
	found      int      // 0: of a log that Debian's edition does not have
	modes      []string // of fail2ban's filter, the default one aside
}

var floors = []floor{
	{"sshd", "sshd", 92, []string{"ddos", "extra", "aggressive"}},
	{"sshd-journal", "sshd", 78, []string{"ddos", "extra", "aggressive"}},
	{"dovecot", "dovecot", 48, []string{"aggressive"}},
	{"postfix", "postfix", 50, []string{"more", "ddos", "extra", "aggressive", "auth", "rbl"}},
	{"nginx-bad-request", "nginx", 8, nil},
	{"nginx-http-auth", "nginx", 10, []string{"aggressive"}},
	{"nginx-botsearch", "web-probe", 12, nil},
	{"gitlab", "gitlab", 2, nil},
	{"grafana", "grafana", 2, nil},
	{"mongodb-auth", "mongodb", 4, nil},
	{"traefik-auth", "traefik", 2, nil},
	{"webmin-auth", "webmin", 3, nil},
	{"apache-auth", "apache", 40, nil},
	{"asterisk", "asterisk", 45, nil},
	{"exim", "exim", 39, []string{"aggressive"}},
	{"mysqld-auth", "mysqld", 14, nil},
	{"named-refused", "named", 15, nil},
	{"proftpd", "proftpd", 10, nil},
	{"roundcube-auth", "roundcube", 11, nil},
	{"vsftpd", "vsftpd", 4, nil},
	{"apache-modsecurity", "apache", 4, nil},
	{"apache-noscript", "apache", 10, nil},
	{"apache-overflows", "apache", 8, nil},
	{"apache-shellshock", "apache", 2, nil},
	{"bitwarden", "bitwarden", 4, nil},
	{"dropbear", "dropbear", 7, nil},
	{"nginx-forbidden", "nginx", 0, nil},
	{"nginx-limit-req", "nginx", 4, nil},
	{"openvpn", "openvpn", 0, nil},
	{"proxmox", "proxmox", 0, nil},
	{"pure-ftpd", "pure-ftpd", 1, nil},
	{"vaultwarden", "vaultwarden", 0, nil},
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
	var rows []string
	for _, f := range floors {
		t.Run(f.log, func(t *testing.T) {
			d := definitions[f.topic]
			if d == nil {
				t.Fatalf("no topic %s", f.topic)
			}
			if _, err := os.Stat(filepath.Join(tests, "files", "logs", f.log)); err != nil && f.found == 0 {
				t.Skip("this edition of fail2ban has no such log")
			}
			path, journal := filepath.Join(tests, "files", "logs", f.log), strings.HasSuffix(f.log, "-journal")
			filter := strings.TrimSuffix(f.log, "-journal")
			theirs := theirVerdicts(t, path, filter, journal)
			anyMode := []verdicts{theirs}
			for _, mode := range f.modes {
				anyMode = append(anyMode, theirVerdicts(t, path, filter+"[mode="+mode+"]", journal))
			}
			ours := verdictsOf(t, d, path, journal)
			us, them := count(t, path, ours, anyMode), count(t, path, theirs, nil)
			fmt.Printf("figure recall-%s %d lines aim %d\n", f.log, us.found, us.attacks)
			fmt.Printf("figure recall-%s-wrong %d lines aim 0\n", f.log, us.wrong)
			rows = append(rows, fmt.Sprintf("%-20s %-20s %7d %6d %6d %15d %6d", f.log, f.topic, us.attacks, us.found, us.wrong, them.found, them.wrong))
			if us.found < f.found || us.wrong > 0 {
				t.Errorf("topic %s finds %d of %d and %d wrongly, want at least %d and none", f.topic, us.found, us.attacks, us.wrong, f.found)
			}
		})
	}
	fmt.Printf("%-20s %-20s %7s %6s %6s %15s %6s\n", "LOG", "TOPIC", "ATTACKS", "FOUND", "WRONG", "FAIL2BAN FOUND", "WRONG")
	for _, row := range rows {
		fmt.Println(row)
	}
}

// verdicts are the addresses that a filter names, by the number of the line.
type verdicts map[int]string

// theirVerdicts runs a sample log through fail2ban's own filter, the installed one or that of FAIL2BAN_CONFIG, which the engine
// runs as fail2ban does: test/detect compares the two line by line.
func theirVerdicts(t *testing.T, path, spec string, journal bool) verdicts {
	source := "files = [\"/var/log/x.log\"]"
	if journal {
		source = "journal = [\"_COMM=sshd\"]"
	}
	if config := os.Getenv("FAIL2BAN_CONFIG"); config != "" {
		name, options, _ := strings.Cut(spec, "[")
		spec = filepath.Join(config, "filter.d", name+".conf")
		if options != "" {
			spec += "[" + options
		}
	}
	d, err := topics.Parse("theirs.toml", fmt.Appendf(nil, "name = \"theirs\"\ntitle = \"x\"\ntarget = \"ip\"\n[detect]\n%s\nfail2ban = '%s'\n", source, spec))
	if err != nil {
		t.Fatal(err)
	}
	return verdictsOf(t, d, path, journal)
}

// verdictsOf runs a sample log through a definition.
func verdictsOf(t *testing.T, d *topics.Definition, path string, journal bool) verdicts {
	sampler, err := detect.NewSampler(d, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	found := verdicts{}
	for number, line := range samples(t, path) {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if got := sampler.FindNext(topics.Sample{Line: line, Journal: journal}); !got.Target.IsZero() {
			found[number] = got.Target.String()
		}
	}
	return found
}

// samples gives the lines of a sample log.
func samples(t *testing.T, path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// rightly has lines that the suite leaves out and whom they name. A user name that continues as
// an old sshd's line would: a filter that passes over it lets everybody hide behind such
// a name, and the last address is the one that sshd wrote.
var rightly = map[string]string{
	"Nov 11 08:04:52 redbamboo sshd[2737]: Failed password for invalid user test from 127.0.0.1 port 58946 ssh2: from 10.10.1.2 port 55555 ssh2": "10.10.1.2",
	"srv sshd[2737]: Failed password for invalid user test from 127.0.0.1 port 58946 ssh2: from 10.10.1.2 port 55555 ssh2":                       "10.10.1.2",
}

// again are lines that tell of a try for which another line is noted. The topics count a part of them, or
// as much as the line that tells most, for logs that have this line alone.
var again = regexp.MustCompile(`Disconnecting (?:invalid|authenticating) user .+ port \d+: Too many authentication failures \[preauth\]$` +
	`|: lost connection after AUTH from |: improper command pipelining after AUTH from \S+: QUIT$|:\d+ WARNING: Bad encapsulated packet length from peer `)

// A tally says how verdicts on a sample log stand to the suite's notes in it.
type tally struct{ attacks, found, wrong int }

// count compares verdicts with the notes. One on a line that no note calls an
// attack is right where another mode of the filter has it too.
func count(t *testing.T, path string, got verdicts, modes []verdicts) tally {
	lines := samples(t, path)
	notes := notesOf(t, path, lines)
	attacks := map[string]bool{} // also where another mode does not find it
	for number, n := range notes {
		attacks[lines[number]] = attacks[lines[number]] || n.Match
	}
	var sum tally
	for number, line := range lines {
		target, hit := got[number]
		n := notes[number]
		elsewhere := slices.ContainsFunc(modes, func(v verdicts) bool { return v[number] == target })
		switch {
		case n.Match && hit && (n.Host == "" || names(target, n.Host)):
			sum.found++
		case n.Match && !hit:
			t.Logf("missed: %s", line)
		case hit && (target == rightly[line] || again.MatchString(line)):
		case hit && (n.Match || !attacks[line] && !elsewhere):
			sum.wrong++
			t.Logf("found %s: %s", target, line)
		}
		if n.Match {
			sum.attacks++
		}
	}
	return sum
}

var noteHead = regexp.MustCompile(`^#\s*failJSON:`)

// notesOf gives the suite's notes by the number of the line that they are about.
func notesOf(t *testing.T, path string, lines []string) map[int]note {
	notes := map[int]note{}
	var said *note
	for number, line := range lines {
		if head := noteHead.FindString(line); head != "" {
			said = &note{}
			if err := json.Unmarshal([]byte(line[len(head):]), said); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		} else if said != nil && line != "" && !strings.HasPrefix(line, "#") {
			notes[number], said = *said, nil
		}
	}
	return notes
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
