package keys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mark is that of a machine of the tests.
func mark(name string) string { return fmt.Sprintf("%032x", name) }

func place(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestAMachineIsToldByItsIDAndAContainerByNothing(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	whose := func(files map[string]string) string {
		root := t.TempDir()
		for name, text := range files {
			if !strings.HasPrefix(name, "env ") {
				place(t, root, name, text)
			}
		}
		return Machine(root, func(name string) string { return files["env "+name] })
	}
	one := whose(map[string]string{"/etc/machine-id": id + "\n"})
	if len(one) != 32 || strings.Contains(one, id[:8]) {
		t.Errorf("%q", one)
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"the same":              {map[string]string{"/etc/machine-id": id}, one},
		"by D-Bus":              {map[string]string{"/etc/machine-id": "", "/var/lib/dbus/machine-id": id}, one},
		"none":                  {nil, ""},
		"before the first boot": {map[string]string{"/etc/machine-id": "uninitialized\n"}, ""},
		"zeros":                 {map[string]string{"/etc/machine-id": strings.Repeat("0", 32)}, ""},
		"nonsense":              {map[string]string{"/etc/machine-id": strings.Repeat("x", 1<<16)}, ""},
		"docker":                {map[string]string{"/etc/machine-id": id, "/.dockerenv": ""}, ""},
		"kubernetes":            {map[string]string{"/etc/machine-id": id, "env KUBERNETES_SERVICE_HOST": "10.96.0.1"}, ""},
		"an environment":        {map[string]string{"/etc/machine-id": id, "env container": "lxc"}, ""},
		"podman":                {map[string]string{"/etc/machine-id": id, "/run/.containerenv": ""}, ""},
		"nspawn":                {map[string]string{"/etc/machine-id": id, "/run/systemd/container": "systemd-nspawn"}, ""},
	} {
		if got := whose(c.files); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if other := whose(map[string]string{"/etc/machine-id": strings.Repeat("1", 32)}); other == one || other == "" {
		t.Errorf("another machine: %q", other)
	}
}

func TestACopyOfAMachineWritesWithAKeyOfItsOwn(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	id, err := Open(dir, "alice", now)
	if err != nil {
		t.Fatal(err)
	}
	bind := func(machine string, want bool) {
		t.Helper()
		if copied, err := id.Bind(machine, now); err != nil || copied != want {
			t.Errorf("on %q: %v, %v", machine, copied, err)
		}
	}
	first := id.Node()
	bind("", false) // tied to nothing
	bind(mark("one"), false)
	bind(mark("one"), false)
	bind("", false) // in a container
	if id.Node() != first {
		t.Error("the key changed on its own machine")
	}
	bind(mark("two"), true)
	second := id.Node()
	card, _ := id.Card()
	if second == first || card.Certifies(id.NodeKey(), now) != nil || !card.Knows(first) || len(card.Revocations) != 0 {
		t.Errorf("node %s after %s, card %+v", second, first, card)
	}
	bind(mark("two"), false)
	if id, err = Load(dir); err != nil || id.Node() != second {
		t.Errorf("%v after a restart, %v", id.Node(), err)
	}
	// A mark that is damaged is nobody's: it makes no new key.
	place(t, dir, machineFile, "one")
	if _, err := id.Bind(mark("two"), now); !errors.Is(err, ErrMachineFile) || id.Node() != second {
		t.Errorf("a damaged mark: %v", err)
	}
	// A move is said so, and keeps the key.
	if err := Move(dir, mark("three")); err != nil {
		t.Fatal(err)
	}
	bind(mark("three"), false)
	if id.Node() != second {
		t.Error("a move changed the key")
	}
	// Without the root key nothing can certify another.
	if err := os.Rename(filepath.Join(dir, operatorKeyFile), filepath.Join(t.TempDir(), operatorKeyFile)); err != nil {
		t.Fatal(err)
	}
	if id, err = Load(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := id.Bind(mark("four"), now); !errors.Is(err, ErrOtherMachine) || id.Node() != second {
		t.Errorf("without the root key: %v", err)
	}
}

func TestABackupIsPutBackWholeOrNotAtAll(t *testing.T) {
	now, home := time.Now(), t.TempDir()
	id, err := Open(home, "alice", now)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if _, err := Backup(home, copied); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{operatorKeyFile, nodeKeyFile, cardFile} {
		if err := os.Chmod(filepath.Join(copied, name), 0o755); err != nil { // as on a stick
			t.Fatal(err)
		}
	}
	// Onto a machine that has keys of its own already.
	dir := t.TempDir()
	other, err := Open(dir, "", now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Bind(mark("new"), now); err != nil {
		t.Fatal(err)
	}
	r, err := Restore(dir, copied, mark("new"))
	if err != nil || r.Node != id.Node() || r.Operator != id.Operator() || len(r.Files) != 3 || len(r.Kept) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	back, err := Load(dir)
	if err != nil || back.Node() != id.Node() || !back.HasRoot() {
		t.Fatalf("%v", err)
	}
	if copied, err := back.Bind(mark("new"), now); err != nil || copied {
		t.Errorf("a restored backup is a move: %v, %v", copied, err)
	}
	for _, kept := range r.Kept {
		if _, err := os.Stat(kept); err != nil {
			t.Error(err)
		}
	}
	// Again, nothing changes.
	if r, err := Restore(dir, copied, mark("new")); err != nil || len(r.Kept) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	// A copy that is damaged, or of two operators, is refused before anything is
	// written.
	before, err := os.ReadFile(filepath.Join(dir, nodeKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, harm := range map[string]func(from string){
		"no key": func(from string) { os.Remove(filepath.Join(from, nodeKeyFile)) },
		"half a key": func(from string) {
			os.WriteFile(filepath.Join(from, nodeKeyFile), []byte(nodeKeyTitle+"\nAAAA"), 0o600)
		},
		"another's card":     func(from string) { _, raw := other.Card(); os.WriteFile(filepath.Join(from, cardFile), raw, 0o600) },
		"a card of nonsense": func(from string) { os.WriteFile(filepath.Join(from, cardFile), []byte("x"), 0o600) },
	} {
		from := filepath.Join(t.TempDir(), "bad")
		if _, err := Backup(home, from); err != nil {
			t.Fatal(err)
		}
		harm(from)
		if _, err := Restore(dir, from, mark("new")); err == nil || !strings.Contains(err.Error(), from) {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := os.ReadFile(filepath.Join(dir, nodeKeyFile)); err != nil || string(now) != string(before) {
			t.Errorf("%s: the key was replaced, %v", name, err)
		}
	}
}
