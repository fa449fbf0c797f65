package strict

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"banmesh/internal/span"
)

type rule struct {
	Class  string   `toml:"class"`
	Regex  []string `toml:"regex"`
	Weight float64  `toml:"weight"`
}

type common struct {
	Ban string         `toml:"ban,omitempty"`
	TTL *span.Duration `toml:"ttl"`
}

type table struct {
	common
	MaxRetry *int          `toml:"maxretry"`
	BanTime  span.Duration `toml:"bantime"`
	Ports    []uint16      `toml:"ports"`
	On       *bool         `toml:"on"`
	Rules    []rule        `toml:"rule"`
	Until    time.Time     `toml:"until"`
}

type file struct {
	Network string           `toml:"network"`
	Topics  map[string]table `toml:"topics"`
	Include any              `toml:"include"`
}

func TestAllFaultsOfAFileAreToldAtOnceInAPersonsWords(t *testing.T) {
	text := `network = 3
[topics.sshd]
max_retry = 3
bantime = "soon"
ports = ["ssh"]
maxretry = "5"
on = 1
until = "tomorrow"
[topics.web]
ports = [70000]
ttl = [1]
rule = 1
`
	_, _, err := Decode[file]("a.toml", []byte(text))
	want := `a.toml:1:11: network: want a text in quotes, and this is a TOML integer
1| network = 3
 |           ~
a.toml:3:1: unknown field "topics.sshd.max_retry"
2| [topics.sshd]
3| max_retry = 3
 | ~~~~~~~~~
  hint: did you mean "maxretry"?
a.toml:4:11: topics.sshd.bantime: "soon": not a time such as "10m", "1h 30m" or "600"
3| max_retry = 3
4| bantime = "soon"
 |           ~~~~~~
a.toml:5:10: topics.sshd.ports: want a list of ports' numbers, such as [22, 2222], and this is a TOML string
4| bantime = "soon"
5| ports = ["ssh"]
 |          ~~~~~
a.toml:6:12: topics.sshd.maxretry: want a number, and this is a TOML string
5| ports = ["ssh"]
6| maxretry = "5"
 |            ~~~
a.toml:7:6: topics.sshd.on: want true or false, and this is a TOML integer
6| maxretry = "5"
7| on = 1
 |      ~
a.toml:8:9: topics.sshd.until: want a time such as 2026-06-01T00:00:00Z
7| on = 1
8| until = "tomorrow"
 |         ~~~~~~~~~~
a.toml:10:10: topics.web.ports: no port has this number: they go from 1 to 65535
 9| [topics.web]
10| ports = [70000]
  |          ~~~~~
a.toml:11:7: topics.web.ttl: want a text in quotes, and this is a TOML array
10| ports = [70000]
11| ttl = [1]
  |       ~~~
a.toml:12:8: topics.web.rule: want tables, each below a header in double brackets, and this is a TOML integer
11| ttl = [1]
12| rule = 1
  |        ~`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestASoundFileGivesItsValueAndWhatWasWritten(t *testing.T) {
	v, tree, err := Decode[file]("a.toml", []byte("network = \"net\"\ninclude = [\"x\"]\n[topics.sshd]\nbantime = 600\nttl = \"1mo\"\nmaxretry = 0\n[[topics.sshd.rule]]\nweight = 2\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := v.Topics["sshd"]
	if s.BanTime.Duration() != 10*time.Minute || s.TTL.Duration() != 2629800*time.Second || *s.MaxRetry != 0 || s.Rules[0].Weight != 2 || v.Network != "net" {
		t.Errorf("got %+v", v)
	}
	if sshd := tree["topics"].(map[string]any)["sshd"].(map[string]any); len(sshd) != 4 {
		t.Errorf("the tree has %v", sshd)
	}
}

// A value whose own reader refuses it without a place is found all the same.
func TestARefusalOfAValuesReaderHasAPlace(t *testing.T) {
	type odd struct {
		A, B picky `toml:"-"`
		C    picky `toml:"c"`
		D    picky `toml:"d"`
	}
	_, _, err := Decode[odd]("a.toml", []byte("# first\n\nc = 5\nd = 6\nd_ = 1\n"))
	faults, ok := errors.AsType[Faults](err)
	if !ok || len(faults) != 3 || faults[0].Line != 3 || faults[1].Line != 4 || faults[2].Line != 5 || !strings.Contains(faults[0].Text, "picky") {
		t.Errorf("got %v", err)
	}
}

type picky struct{ X int }

func (p *picky) UnmarshalText(b []byte) error { return fmt.Errorf("picky about %s", b) }

func TestABrokenFileIsOneFault(t *testing.T) {
	for _, text := range []string{"network = \"x\n", "[topics\n", "network = 1\nnetwork = 2\n", "a = \x00\n"} {
		_, _, err := Decode[file]("a.toml", []byte(text))
		faults, ok := errors.AsType[Faults](err)
		if !ok || len(faults) != 1 || faults[0].Line == 0 || faults[0].Excerpt == "" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A definition from the network may be made to cost: its faults are few, and
// each is short.
func TestFaultsOfAHostileFileAreBounded(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("x = 1\n", 1) + "[topics.a]\n" + lines(5000, "k%d = 1\n"),
		lines(3000, "[topics.a%d]\nbantime = \"soon\"\n"),
		"include = \"" + strings.Repeat("a", 100_000) + "\"\n" + strings.Repeat("b", 100_000) + " = \"\x1b\"\n",
		"network = " + strings.Repeat("9", 18) + " # " + strings.Repeat("c", 100_000) + "\n",
	} {
		_, _, err := Decode[file]("a.toml", []byte(text))
		if err == nil || len(err.Error()) > maxFaults*1000 || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%.40q: an error of %d bytes", text, len(err.Error()))
		}
		if faults, ok := errors.AsType[Faults](err); !ok || len(faults) > maxFaults {
			t.Errorf("%.40q: %d faults", text, len(faults))
		}
	}
}

func lines(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestAFileIsReadUpToItsBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.toml")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(path, 5); err != nil || string(b) != "12345" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := Read(path, 4); err == nil || err.Error() != path+": larger than 4 bytes" {
		t.Errorf("a byte more is %v", err)
	}
	if _, err := Read(path+"x", 4); !errors.Is(err, os.ErrNotExist) || err.Error() != path+"x: no such file or directory" {
		t.Errorf("a missing file is %v", err)
	}
}

// goNames are how a Go type would show in a message.
var goNames = regexp.MustCompile(`struct field|strict\.|\*?int64|uint16|map\[|\[\]string`)

func FuzzDecode(f *testing.F) {
	f.Add([]byte("network = 3\n[topics.sshd]\nmax_retry = 3\nbantime = \"soon\"\n"))
	f.Add([]byte("[[topics]]\n[topics.a.b]\nports = [[1]]\nx.y = {a = 1}\n"))
	f.Add([]byte("topics = 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, err := Decode[file]("f.toml", b)
		places := Places{}
		places.Note("f.toml", b)
		if err == nil {
			return
		}
		faults, ok := errors.AsType[Faults](err)
		if !ok || len(faults) == 0 || len(faults) > maxFaults {
			t.Fatalf("%d faults: %v", len(faults), err)
		}
		for _, fault := range faults {
			if m := goNames.FindString(fault.Text); m != "" && !strings.Contains(string(b), m) {
				t.Errorf("%q shows %q", fault.Text, m)
			}
			_ = fault.Error()
		}
	})
}
