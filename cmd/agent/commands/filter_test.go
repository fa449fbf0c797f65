package commands

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const someLog = `# a comment
Nov 21 09:14:02 web1 sshd[4711]: Failed password for root from 192.0.2.7 port 51234 ssh2
Nov 21 09:14:03 web1 sshd[4711]: Accepted publickey for git from 192.0.2.8 port 51234 ssh2: ED25519 SHA256:x

Nov 21 09:14:03 web1 CRON[4711]: pam_unix(cron:session): session opened
`

func runCommand(t *testing.T, c *cobra.Command, in string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetIn(strings.NewReader(in))
	if err := c.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out.String())
	}
	return out.String()
}

func TestFilterTestPrintsOneObjectForEachLine(t *testing.T) {
	p := &paths{config: t.TempDir()}
	out := runCommand(t, newFilterCommand(p), someLog, "test", "--json", "--now", "2026-11-21T10:00:00Z", "--timezone", "UTC", "sshd", "-")
	var lines []map[string]any
	for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
		var v map[string]any
		if err := json.Unmarshal([]byte(l), &v); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, v)
	}
	if len(lines) != 5 || lines[0]["skipped"] != true || lines[2]["matched"] != false || lines[4]["matched"] != false {
		t.Fatalf("lines = %v", lines)
	}
	if l := lines[1]; l["line"] != 2.0 || l["matched"] != true || l["id"] != "192.0.2.7" || l["time"] != "2026-11-21T09:14:02Z" || l["regex"] != 6.0 {
		t.Errorf("line 2 = %v", l)
	}
}

func TestFilterTestReportsAsFail2banRegexDoesAndMore(t *testing.T) {
	out := runCommand(t, newFilterCommand(&paths{config: t.TempDir()}), someLog, "test", "sshd", "-")
	for _, want := range []string{"Failregex: 2 total", "|   6) [1] ^Failed (?:password", "engine steps", "or \"password\"", "[3] {^LN-BEG}", "Prefregex: 2 total", "Lines: 3 lines, 0 ignored, 2 matched, 1 missed", "|- Missed line(s):"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
}

func TestFilterTestReadsAFilterByPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "filter.d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "mine.conf")
	if err := os.WriteFile(path, []byte("[Definition]\nfailregex = ^bad <what> from <HOST>$\n[Init]\nwhat = thing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := runCommand(t, newFilterCommand(&paths{config: t.TempDir()}), "bad apple from 192.0.2.1\nbad thing from 192.0.2.2\n", "test", "--json", path+`[what=apple]`, "-")
	if !strings.Contains(out, `"line":1,"matched":true,"ignored":false,"id":"192.0.2.1"`) || !strings.Contains(out, `"line":2,"matched":false`) {
		t.Error(out)
	}
}

func TestExplainLineSaysWhyOrWhyNot(t *testing.T) {
	p := &paths{config: t.TempDir()}
	line := strings.Split(someLog, "\n")[1]
	if out := runCommand(t, newExplainLineCommand(p), "", "--topic", "sshd", line); !strings.Contains(out, "sshd: an offence (auth) of 192.0.2.7") || !strings.Contains(out, "counts   1 of 5 within 10m") {
		t.Error(out)
	}
	if out := runCommand(t, newExplainLineCommand(p), "", "--topic", "sshd", "--tag", "app", "Failed password for root from 192.0.2.7 port 1 ssh2"); !strings.Contains(out, "prefregex does not match") {
		t.Error(out)
	}
	if out := runCommand(t, newExplainLineCommand(p), "", "hello"); out != "No topic knows this line.\n" {
		t.Error(out)
	}
}

func TestReplaySaysWhatWouldHaveBeenBanned(t *testing.T) {
	line := strings.Split(someLog, "\n")[1] + "\n"
	out := runCommand(t, newReplayCommand(&paths{config: t.TempDir()}), strings.Repeat(line, 5)+"other\n", "--topic", "sshd", "--now", "2026-11-21T10:00:00Z", "-")
	if !strings.Contains(out, "192.0.2.7") || !strings.Contains(out, "5 hits (auth)") || !strings.Contains(out, "6 lines: 5 matched, 0 ignored, 1 unmatched; 1 ban\n") {
		t.Error(out)
	}
}
