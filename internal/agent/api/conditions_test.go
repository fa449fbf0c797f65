package api

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banmesh/internal/control"
)

var update = flag.Bool("update", false, "write docs/warnings.md")

// warningsPage is docs/warnings.md, made of the closed list.
func warningsPage() string {
	var b strings.Builder
	b.WriteString(`# Warnings

Every warning that ` + "`agent status`" + ` can show, by its code: ` + "`agent status --json`" + ` has it as ` + "`warnings[].code`" + `,
the metric ` + "`banmesh_warnings`" + ` as its label. High: the node does not do its work, or may do harm. Low: it does, and
somebody should know. This page is made from internal/agent/api/conditions.go by ` + "`go test ./internal/agent/api -update`" + `.

| code | severity | | mend |
|---|---|---|---|
`)
	for _, c := range Conditions() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Code, c.Severity, c.Title, c.Mend)
	}
	return b.String()
}

func TestTheDocumentListsEveryWarning(t *testing.T) {
	path := filepath.Join("..", "..", "..", "docs", "warnings.md")
	want := warningsPage()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s differs from the list (%v): go test ./internal/agent/api -update", path, err)
	}
}

func TestEveryConditionIsCompleteAndOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Conditions() {
		if seen[c.Code] || strings.Trim(c.Code, "abcdefghijklmnopqrstuvwxyz-") != "" {
			t.Errorf("code %q stands twice or is no code", c.Code)
		}
		seen[c.Code] = true
		if !strings.HasSuffix(c.Title, ".") || c.Mend == "" || c.Severity != control.SeverityHigh && c.Severity != control.SeverityLow {
			t.Errorf("%+v is not complete", c)
		}
		if w := c.Warn("text", ""); w.Fix != c.Mend || w.Code != c.Code || w.Text != "text" {
			t.Errorf("it warns as %+v", w)
		}
	}
}

// A condition that is declared and not listed would be missing in the
// document.
func TestEveryDeclaredConditionIsListed(t *testing.T) {
	src, err := os.ReadFile("conditions.go")
	if err != nil {
		t.Fatal(err)
	}
	if declared := strings.Count(string(src), "= Condition{\""); declared != len(Conditions()) {
		t.Errorf("%d conditions are declared, %d listed", declared, len(Conditions()))
	}
}
