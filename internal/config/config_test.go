package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banmesh/internal/strict"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLaterFilesWinKeyByKeyAndListsOfTablesGrow(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"agent.toml":            "network = \"one\"\n[[brokers]]\nurl = \"tcp://a:1\"\n[topics.sshd]\nban = \"any of alice\"\nsubscribe = false\n",
		"conf.d/10-topics.toml": "[[brokers]]\nurl = \"tcp://b:1\"\n[topics.sshd]\nsubscribe = true\n",
		"conf.d/20-more.toml":   "network = \"two\"\n",
		"conf.d/ignored.txt":    "x",
	})
	l, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := l.Topics["sshd"]
	if l.Network != "two" || len(l.Brokers) != 2 || s.Ban != "any of alice" || s.Subscribe == nil || !*s.Subscribe {
		t.Errorf("got %+v", l.Config)
	}
	fault := l.At("topics.sshd.ban", "bad")
	if fault.Line != 5 || !strings.HasSuffix(fault.File, "agent.toml") {
		t.Errorf("fault at %v", fault)
	}
	if fault := l.At("topics.sshd.watch.x", "bad"); fault.Line == 0 || !strings.HasSuffix(fault.File, "10-topics.toml") {
		t.Errorf("fault below the table at %v", fault)
	}
}

func TestEveryFaultOfEveryFileIsTold(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"agent.toml":    "[topics.sshd]\nmax_retry = 3\nbantme = \"1h\"\n",
		"conf.d/a.toml": "network = 3\n",
		"conf.d/b.toml": "network = \"x\n",
	})
	_, err := Load(dir)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 4 {
		t.Fatalf("got %v", err)
	}
	text := err.Error()
	for _, want := range []string{"agent.toml:2:1: unknown field", "agent.toml:3:1", "a.toml:1:", "b.toml:1:"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	f, _ := errors.AsType[*strict.Fault](joined.Unwrap()[0])
	if f.Hint != `did you mean "maxretry"?` {
		t.Errorf("hint %q", f.Hint)
	}
}

func TestNoConfigurationIsAnEmptyOne(t *testing.T) {
	l, err := Load(filepath.Join(t.TempDir(), "missing"))
	if err != nil || len(l.Files) != 0 {
		t.Errorf("%v, %v", l, err)
	}
}

// Choices that a service may not read would silently not be made.
func TestADirectoryThatCannotBeListedIsAFault(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"agent.toml": "network = \"one\"\n", "conf.d": "a file where a directory should be"})
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "conf.d")+": ") {
		t.Errorf("got %v", err)
	}
	f := unreadable("/etc/banmesh/agent.toml", &os.PathError{Op: "open", Path: "/etc/banmesh/agent.toml", Err: syscall.EACCES})
	if f.Error() != "/etc/banmesh/agent.toml: permission denied" || !strings.Contains(f.Hint, "chmod -R a+rX /etc/banmesh/agent.toml") {
		t.Errorf("got %v, hint %q", f, f.Hint)
	}
}

// Root's umask is often 077, and the service is not root.
func TestADropInIsReadableWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := filepath.Join(t.TempDir(), "etc", "banmesh")
	path, err := EditDropIn(dir, "topics", func(tree map[string]any) error {
		Table(tree, "topics", "sshd")["publish"] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]os.FileMode{path: 0o644, filepath.Dir(path): 0o755, dir: 0o755, filepath.Dir(dir): 0o755} {
		if info, err := os.Stat(at); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", at, info.Mode().Perm(), err, want)
		}
	}
}

func TestADropInIsEditedAtomicallyAndUndone(t *testing.T) {
	dir := t.TempDir()
	set := func(tree map[string]any) error { Table(tree, "topics", "sshd")["subscribe"] = true; return nil }
	path, err := EditDropIn(dir, "topics", set)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Load(dir)
	if err != nil || !*l.Topics["sshd"].Subscribe {
		t.Fatalf("%v %v", l, err)
	}
	if _, err := EditDropIn(dir, "topics", func(tree map[string]any) error {
		Table(tree, "topics", "sshd")["subscrib"] = true
		return nil
	}); err == nil {
		t.Error("an unknown key was written")
	}
	if _, err := EditDropIn(dir, "topics", func(tree map[string]any) error {
		delete(Table(tree, "topics", "sshd"), "subscribe")
		Prune(tree)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("an empty drop-in is still there: %v", err)
	}
}

func TestAFileOfAPersonIsNotRewritten(t *testing.T) {
	dir := t.TempDir()
	const own = "# mine\n[topics.sshd]\nsubscribe = false\n"
	write(t, dir, map[string]string{"conf.d/topics.toml": own})
	_, err := EditDropIn(dir, "topics", func(tree map[string]any) error {
		Table(tree, "topics", "sshd")["subscribe"] = true
		return nil
	})
	if !errors.Is(err, ErrOwn) {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "conf.d", "topics.toml")); err != nil || string(b) != own {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("[topics.sshd]\nban='any of a'\n[[brokers]]\nurl='x'\n")
	f.Fuzz(func(t *testing.T, s string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
		l, err := Load(dir)
		if err == nil {
			_ = l.At("topics.sshd.ban", "x")
		}
	})
}
