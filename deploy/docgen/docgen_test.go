package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"banmesh/internal/broker/settings"
	"banmesh/internal/config"
)

const module = "../.."

func TestTheReferencesAreThoseOfTheProgram(t *testing.T) {
	pages, err := docs(module)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range pages {
		got, err := os.ReadFile(filepath.Join(module, "docs", name))
		if err != nil || string(got) != want {
			t.Errorf("docs/%s is not that of the program (%v): run `go run ./deploy/docgen`", name, err)
		}
	}
}

func TestEveryKeyHasAMeaning(t *testing.T) {
	f, err := readKeys(module)
	if err != nil {
		t.Fatal(err)
	}
	var walk func(keys []Key)
	n := 0
	walk = func(keys []Key) {
		for _, k := range keys {
			n++
			if k.Text == "" {
				t.Errorf("%s has no comment in its struct that says its meaning", k.Path)
			}
			// Names of Go mean nothing to who writes a file.
			if bad := regexp.MustCompile(`\b[A-Z][a-z]+[A-Z]\w*|\bnil\b|\b(config|gate|policy)\.[A-Z]\w+`).FindString(k.Text); bad != "" && !products[bad] {
				t.Errorf("%s: %q is a word of the program: %s", k.Path, bad, k.Text)
			}
			walk(k.Keys)
		}
	}
	walk(f.agent)
	walk(f.broker)
	walk(f.topic)
	if n < 200 {
		t.Errorf("%d keys: the test looks in the wrong place", n)
	}
}

var products = map[string]bool{"CrowdSec": true, "LogNamespace": true, "MiB": true}

// Every key of a sample is one that the program takes, with a value of its
// kind: the sample without its comments is read by the strict reader.
func TestTheSamplesAreValid(t *testing.T) {
	share := t.TempDir()
	if err := writeShare(module, share, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	setting := regexp.MustCompile(`(?m)^#([^# ])`)
	dir := t.TempDir()
	for _, name := range []string{"agent.toml", "broker.toml"} {
		text, err := os.ReadFile(filepath.Join(share, "doc/banmesh/examples", name))
		if err != nil {
			t.Fatal(err)
		}
		text = setting.ReplaceAll(text, []byte("$1"))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if l.Firewall.Mode != "enforce" || *l.Topics["NAME"].MaxRetry != 5 || len(l.Brokers) != 1 {
		t.Errorf("the sample's values did not arrive: %+v", l.Config)
	}
	if _, err := settings.Read(filepath.Join(dir, "broker.toml")); err != nil {
		t.Fatal(err)
	}
}

func TestEqualSourcesGiveEqualBytes(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := writeShare(module, dir, "1.2.3"); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	err := filepath.WalkDir(a, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		one, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rest, _ := filepath.Rel(a, path)
		other, err := os.ReadFile(filepath.Join(b, rest))
		if !bytes.Equal(one, other) {
			t.Errorf("%s differs (%v)", rest, err)
		}
		return nil
	})
	if err != nil || n < 50 {
		t.Errorf("%d files, %v", n, err)
	}
}

func TestManualsNameTheProgramThatTheyAreOf(t *testing.T) {
	share := t.TempDir()
	if err := writeShare(module, share, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"banmesh-topics-subscribe": "banmesh topics subscribe",
		"agent-topics-subscribe":   "agent topics subscribe",
		"banmesh-broker-run":       "banmesh broker run",
		"broker-run":               "broker run",
	} {
		packed, err := os.ReadFile(filepath.Join(share, "man/man1", name+".1.gz"))
		if err != nil {
			t.Error(err)
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil || !strings.Contains(strings.ReplaceAll(string(text), `\-`, "-"), want) {
			t.Errorf("%s does not name %q (%v)", name, want, err)
		}
		if strings.Contains(string(text), "/root/") {
			t.Errorf("%s names a place of who built it", name)
		}
	}
}
