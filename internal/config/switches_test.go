package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestASwitchIsSetAndTakenOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	yes, no := true, false
	path := filepath.Join(dir, SwitchesFile)
	for i, c := range []struct {
		topic, field string
		value        *bool
		before, file string
	}{
		{"sshd", "publish", nil, "nil", ""},
		{"sshd", "publish", &yes, "nil", "[topics.sshd]\npublish = true\n"},
		{"sshd", "publish", &no, "true", "[topics.sshd]\npublish = false\n"},
		{"dovecot", "detect", &yes, "nil", "[topics.dovecot]\ndetect = true\n"},
		{"sshd", "publish", nil, "false", "[topics.dovecot]\ndetect = true\n"},
		{"dovecot", "detect", nil, "true", ""},
	} {
		before, err := SetSwitch(dir, c.topic, c.field, c.value)
		was := "nil"
		if before != nil {
			was = fmt.Sprint(*before)
		}
		b, _ := os.ReadFile(path)
		if err != nil || was != c.before || c.file == "" && len(b) > 0 || !strings.Contains(string(b), c.file) {
			t.Errorf("step %d: it was %s, %v; the file is\n%s", i, was, err, b)
		}
	}
	if _, err := SetSwitch(dir, "sshd", "ban", &yes); err == nil {
		t.Error("a rule was set as a switch")
	}
	if _, err := SetSwitch(filepath.Join(dir, "none"), "sshd", "detect", nil); err != nil {
		t.Errorf("nothing is set where there is no state: %v", err)
	}
}

// The file is written by the service, so it may set switches and nothing that makes
// the node believe anybody.
func TestAFileOfSwitchesHoldsNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, text := range []string{"[operators.eve]\nid = \"x\"\n", "[topics.sshd]\nban = \"any of eve\"\n", "[[brokers]]\nurl = \"tcp://x\"\n", "[topics.sshd]\ndetect = 1\n", "half a", strings.Repeat("# long\n", maxSwitches)} {
		if err := os.WriteFile(filepath.Join(dir, SwitchesFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := ReadSwitches(dir); err == nil {
			t.Errorf("%.40q is read as %+v", text, s)
		}
	}
}

func TestSwitchesThatAreSetAtOnceAreAllKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	yes := true
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			if _, err := SetSwitch(dir, fmt.Sprintf("topic%d", i), "detect", &yes); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if s, err := ReadSwitches(dir); err != nil || len(s.Topics) != 16 {
		t.Errorf("%d are kept, %v", len(s.Topics), err)
	}
}

func FuzzSwitches(f *testing.F) {
	f.Add([]byte("[topics.sshd]\ndetect = true\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, SwitchesFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := ReadSwitches(dir)
		if err != nil {
			return
		}
		if err := s.write(filepath.Join(dir, SwitchesFile)); err != nil {
			t.Fatal(err)
		}
		again, err := ReadSwitches(dir)
		if err != nil {
			t.Fatalf("%q is not read again: %v", text, err)
		}
		for topic, x := range s.Topics {
			y := again.Topics[topic]
			if fmt.Sprint(x.Set()) != fmt.Sprint(y.Set()) {
				t.Errorf("%q: %v became %v", topic, x.Set(), y.Set())
			}
		}
	})
}
