package filter

import "strings"

// unbounded says that a date may be cut out in the middle of a word, so that
// what stands in the line says little of what expressions will see.
func unbounded(patterns []string) bool {
	for _, p := range patterns {
		if strings.Contains(p, "{UNB}") || strings.Contains(p, "**") || strings.Contains(p, "(?") {
			return true
		}
	}
	return false
}
