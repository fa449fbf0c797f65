package detect_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/settings"
	"banmesh/internal/span"
)

// TestPublicLayoutsReadAsFail2banReadsThem lays small configurations, in the ways in which
// well-known distributions of servers configure fail2ban, over the installed one: each
// jail is read as `fail2ban-client -d` reads it, and imported by its meaning.
func TestPublicLayoutsReadAsFail2banReadsThem(t *testing.T) {
	t.Parallel()
	config, _ := places(t)
	if _, err := exec.LookPath("fail2ban-client"); err != nil {
		t.Skip("fail2ban-client is not installed")
	}
	layouts, err := filepath.Glob("testdata/layouts/*")
	if err != nil || len(layouts) != 14 {
		t.Fatalf("layouts %q, %v", layouts, err)
	}
	for _, layout := range layouts {
		t.Run(filepath.Base(layout), func(t *testing.T) {
			t.Parallel()
			dir := layOver(t, config, layout)
			jails, err := f2bconf.ReadJails(dir)
			if err != nil {
				t.Error(err)
			}
			taken := compareJails(t, dir, jails)
			var names []string
			for _, j := range jails {
				names = append(names, j.Name)
			}
			if slices.Sort(names); !slices.Equal(names, slices.Sorted(slices.Values(taken))) {
				t.Errorf("fail2ban takes the jails %q, and here are %q", taken, names)
			}
			all, err := settings.Fail2banJails(dir)
			if err != nil {
				t.Error(err)
			}
			var got []string
			for _, i := range all {
				switch {
				case i.Refused.Given():
					got = append(got, i.Jail+" is refused\n")
				case i.FoundOnly.Given():
					got = append(got, i.Jail+" is found only\n")
				default:
					got = append(got, fmt.Sprintf("%s bans as %s%s\n", i.Jail, i.Definition.Name, thresholds(i)))
				}
			}
			slices.Sort(got)
			golden := filepath.Join(layout, "import.golden")
			if *update {
				if err := os.WriteFile(golden, []byte(strings.Join(got, "")), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || strings.Join(got, "") != string(want) {
				t.Errorf("imported:\n%s\nwant (%v):\n%s", strings.Join(got, ""), err, want)
			}
			compareWritten(t, dir, all)
		})
	}
}

// compareWritten writes imported jails as the import does and reads the configuration: each topic
// reads the jail's logs with the jail's expressions, and nothing of a shipped topic that it is named like.
func compareWritten(t *testing.T, dir string, all []detect.Imported) {
	config := t.TempDir()
	if err := os.Mkdir(filepath.Join(config, settings.TopicDirectory), 0o700); err != nil {
		t.Fatal(err)
	}
	for n := range all {
		if i := &all[n]; !i.Refused.Given() {
			i.Refer()
			path := filepath.Join(config, settings.TopicDirectory, string(i.Definition.Name)+".toml")
			if err := os.WriteFile(path, settings.ImportedText(dir, *i, time.Now()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, err := settings.Load(config, "")
	if err != nil {
		t.Error(err)
		return
	}
	for _, i := range all {
		if i.Refused.Given() || i.Definition.Detect == nil {
			continue
		}
		topic, ok := s.Find(i.Definition.Name)
		if !ok || topic.Definition.Detect == nil {
			t.Errorf("jail %s: its topic %s cannot be used: %q", i.Jail, i.Definition.Name, s.Warnings())
			continue
		}
		got, want := topic.Definition.Detect, i.Definition.Detect
		if !slices.Equal(got.Files, want.Files) || got.Fail2ban != want.Fail2ban || len(got.Rules) != len(want.Rules) || len(got.Success) != len(want.Success) ||
			!i.Shipped && len(got.Sets) != 0 || got.MaxRetry != want.MaxRetry || got.Corroborate != want.Corroborate {
			t.Errorf("jail %s: in use is\n%+v\nimported was\n%+v", i.Jail, got, want)
		}
	}
}

var update = flag.Bool("update", false, "write what is imported into the golden files")

// thresholds shows an imported jail's thresholds, and its ports.
func thresholds(i detect.Imported) (text string) {
	if d := i.Definition.Detect; d != nil {
		text = fmt.Sprintf(" after %d in %s for %s", d.MaxRetry, span.Format(d.FindTime.Duration()), span.Format(d.BanTime.Duration()))
		if d.BanTime.Duration() == span.Permanent {
			text = fmt.Sprintf(" after %d in %s for ever", d.MaxRetry, span.Format(d.FindTime.Duration()))
		}
		if d.Increment.Enabled {
			text += fmt.Sprintf(" growing by %g", append(d.Increment.Multipliers, d.Increment.Factor))
		}
		if len(d.IgnoreIP) > 0 {
			text += " but " + strings.Join(d.IgnoreIP, " ")
		}
	}
	e := i.Definition.Enforce
	if e.AllPorts {
		return text + " at all ports"
	}
	return text + " at " + strings.Join(e.Protocols, ",") + " " + strings.Join(e.Ports, ",")
}

// layOver gives a copy of a configuration with the files of a layout in it, whose jails
// read logs that are there.
func layOver(t *testing.T, config, layout string) string {
	dir := filepath.Join(t.TempDir(), "etc")
	if out, err := exec.Command("cp", "-r", config, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.RemoveAll(filepath.Join(dir, "jail.d")); err != nil {
		t.Fatal(err)
	}
	log, own := filepath.Join(t.TempDir(), "any.log"), filepath.Join(t.TempDir(), "fail2ban.log")
	for _, path := range []string{log, own} {
		if err := os.WriteFile(path, []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	paths := strings.NewReplacer("OWNLOG", own, "LOG", log)
	err := filepath.WalkDir(layout, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, strings.TrimPrefix(path, layout))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		return os.WriteFile(to, []byte(paths.Replace(string(text))), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
