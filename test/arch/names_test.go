package arch

import (
	"regexp"
	"strings"
	"testing"
)

var words = regexp.MustCompile(`[A-Z][a-z]*|[0-9]+`)

// A test's name is a claim, which takes a subject and a verb. Left out are
// functions that a package's test binary must have, or runs as its own child.
func TestEveryTestIsNamedAfterItsClaim(t *testing.T) {
	for _, p := range read(t) {
		for _, place := range p.tests {
			_, name, _ := strings.Cut(place, ": Test")
			if name == "Main" || name == "Scripts" || strings.HasPrefix(name, "Helper") {
				continue
			}
			if len(words.FindAllString(name, -1)) < 3 {
				t.Errorf("%s: the name says nothing that could be wrong: write the claim that the test holds", place)
			}
		}
	}
}
