package clitest

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// described takes the name, the help and the labels out of a metric's description
// as Prometheus's library prints it.
var described = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "(.*?)",(?: unit: ".*",)? constLabels: \{.*\}, variableLabels: \{(.*)\}\}$`)

// CheckMetrics fails t where the table below a heading of the Markdown file is not
// that of the metrics described, sorted; with update it writes the table. Metrics of
// other names than banmesh are the library's own.
func CheckMetrics(t *testing.T, file, heading string, descriptions []string, update bool) {
	t.Helper()
	var rows []string
	for _, d := range descriptions {
		m := described.FindStringSubmatch(d)
		if m == nil {
			t.Fatalf("cannot read %s", d)
		}
		if strings.HasPrefix(m[1], "banmesh") {
			rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |\n", m[1], strings.ReplaceAll(m[3], ",", ", "), strings.ReplaceAll(m[2], `\"`, `"`)))
		}
	}
	slices.Sort(rows)
	want := heading + "\n\n| metric | labels | meaning |\n|---|---|---|\n" + strings.Join(slices.Compact(rows), "")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	begin := strings.Index(text, heading+"\n")
	if begin < 0 {
		t.Fatalf("%s has no heading %q", file, heading)
	}
	end := len(text)
	if next := strings.Index(text[begin+1:], "\n## "); next >= 0 {
		end = begin + 1 + next
	}
	if text[begin:end] == want {
		return
	}
	if !update {
		t.Fatalf("%s says other metrics than there are: go test with -update writes\n%s", file, want)
	}
	if err := os.WriteFile(file, []byte(text[:begin]+want+text[end:]), 0o644); err != nil {
		t.Fatal(err)
	}
}
