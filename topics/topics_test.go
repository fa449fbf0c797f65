package topics_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/strict"
	"banmesh/topics"
)

func TestEverySampleIsFoundOrNotAsTheDefinitionSays(t *testing.T) {
	for _, d := range topics.Builtin() {
		if d.Detect == nil || d.Detect.Fail2ban != "" {
			continue
		}
		t.Run(string(d.Name), func(t *testing.T) {
			text, err := os.ReadFile(string(d.Name) + ".toml")
			if err != nil {
				t.Fatal(err)
			}
			if err := detect.Check(string(d.Name)+".toml", text, d); err != nil {
				t.Error(err)
			}
			faults, err := detect.CheckSamples(d, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range faults {
				t.Error(f)
			}
			hit, miss, dated := 0, 0, 0
			for _, s := range d.Samples {
				if s.Time != "" {
					dated++
				}
				if s.Target == "" {
					miss++
				} else {
					hit++
				}
			}
			// A file's lines count by their own dates, so each log's form is shown to be
			// read as the time that it is.
			if len(d.Detect.Files)+len(d.Detect.Docker) > 0 && dated == 0 {
				t.Error("no sample states its time")
			}
			if hit < len(d.Detect.Rules) || miss < 2 {
				t.Errorf("%d samples that must match and %d that must not are too few for %d rules", hit, miss, len(d.Detect.Rules))
			}
		})
	}
}

func TestAllFaultsOfADefinitionAreReportedWithTheirPlaces(t *testing.T) {
	_, err := topics.Parse("x.toml", []byte("name = \"Bad Name\"\ntarget = \"house\"\n[detect]\nmaxretry = -1\nignoreip = [\"nope\"]\n"))
	for _, want := range []string{"x.toml:1:1: name", "x.toml:2:1: target", "x.toml:4:1: detect.maxretry", "x.toml:5:1: detect.ignoreip", "detect: it needs rules"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestUnknownKeysAreFaultsAndAllAreNamed(t *testing.T) {
	_, err := topics.Parse("x.toml", []byte("name = \"x\"\nmax_retry = 1\n[detect]\nfindtimes = \"1m\"\n"))
	var fault *strict.Fault
	if !errors.As(err, &fault) || fault.Line != 2 || fault.Column != 1 || !strings.Contains(fault.Excerpt, "max_retry") {
		t.Fatalf("err = %#v", err)
	}
	if !strings.Contains(err.Error(), "x.toml:4:1") || !strings.Contains(err.Error(), "findtimes") {
		t.Errorf("the second fault is missing: %v", err)
	}
}

// A definition is read as strictly as agent.toml, and says as much.
func TestAKeyOfAnotherToolGetsAHintInADefinition(t *testing.T) {
	_, err := topics.Parse("topics.d/x.toml", []byte("name = \"x\"\n[detect]\nfiles = [\"/x\"]\nmax_retry = 3\nbantime = 600\nfindtime = [1]\n"))
	want := `topics.d/x.toml:4:1: unknown field "detect.max_retry"
3| files = ["/x"]
4| max_retry = 3
 | ~~~~~~~~~
  hint: did you mean "maxretry"?
topics.d/x.toml:6:12: detect.findtime: want a text in quotes, and this is a TOML array
5| bantime = 600
6| findtime = [1]
 |            ~~~`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	d, err := topics.Parse("x.toml", []byte("name = \"x\"\n[detect]\nfail2ban = \"x\"\nbantime = 600\n"))
	if err != nil || d.Detect.BanTime.Duration() != 10*time.Minute {
		t.Errorf("bantime = 600 is %v, %v", d, err)
	}
}

func TestADropInChangesOnlyWhatItNames(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sshd.toml"), []byte("[detect]\nmaxretry = 2\nignoreip = [\"192.0.2.0/24\"]\n[enforce]\nports = [\"2222\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine.toml"), []byte("name = \"mine\"\n[detect]\nfiles = [\"/x\"]\nfindtime = \"1h 30m\"\n[[detect.rule]]\nclass = \"scan\"\nregex = ['^bad <ADDR>$']\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := topics.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[ban.Topic]*topics.Definition{}
	for _, d := range all {
		found[d.Name] = d
	}
	s := found["sshd"]
	if s.Detect.MaxRetry != 2 || s.Detect.FindTime.Duration() != 10*time.Minute || len(s.Detect.Rules) < 4 || s.Enforce.Ports[0] != "2222" || s.Enforce.Protocols[0] != "tcp" || s.Title == "" {
		t.Errorf("sshd = %+v, %+v", s.Detect, s.Enforce)
	}
	m := found["mine"]
	if m == nil || m.Target != "ip" || m.Detect.FindTime.Duration() != 90*time.Minute || m.Detect.MaxRetry != 5 || m.Detect.Rules[0].Class != ban.ClassScan {
		t.Errorf("mine = %+v", m)
	}
}

func TestPortsAreNumbersAndRanges(t *testing.T) {
	got, err := topics.Enforce{Ports: []string{"22", "60000-61000"}}.PortRanges()
	if err != nil || len(got) != 2 || got[1] != [2]uint16{60000, 61000} {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "0", "ssh", "9-1", "70000", "1-2-3"} {
		if got, err := (topics.Enforce{Ports: []string{bad}}).PortRanges(); err == nil {
			t.Errorf("PortRanges(%q) = %v", bad, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name = \"x\"\n[detect]\nfiles = [\"/x\"]\n[[detect.rule]]\nclass = \"scan\"\nregex = ['^bad <ADDR>$']\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := topics.Parse("f.toml", b)
		if err == nil && (d.Name == "" || d.Target == "") {
			t.Errorf("accepted %+v", d)
		}
	})
}

func TestASamplesDateIsReadAsItsTime(t *testing.T) {
	definition := func(time string) string {
		return "name = \"x\"\n[detect]\nfiles = [\"/x\"]\n[[detect.rule]]\nclass = \"auth\"\nregex = ['^ bad <ADDR>$']\n[[sample]]\nline = '2026-11-21T09:14:02+01:00 bad 192.0.2.1'\ntarget = \"192.0.2.1\"\nclass = \"auth\"\ntime = \"" + time + "\"\n"
	}
	for stated, want := range map[string]int{"2026-11-21T09:14:02+01:00": 0, "2026-11-21T08:14:02Z": 0, "2026-11-21T09:14:02Z": 1} {
		d, err := topics.Parse("x.toml", []byte(definition(stated)))
		if err != nil {
			t.Fatal(err)
		}
		faults, err := detect.CheckSamples(d, time.Now())
		if err != nil || len(faults) != want {
			t.Errorf("%s: %q, %v", stated, faults, err)
		}
	}
	if _, err := topics.Parse("x.toml", []byte(definition("yesterday"))); err == nil || !strings.Contains(err.Error(), "is no time like") {
		t.Errorf("err = %v", err)
	}
}
