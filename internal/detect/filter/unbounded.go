package filter

import "strings"

// unbounded says that a date may be cut out where a letter or digit stands on
// one side of it, so that the line's text says little of the text that
// expressions will see. Dates are bounded by words unless their pattern says
// otherwise; a group of the pattern's own decides alone which text is cut.
func unbounded(patterns []string) bool {
	for _, p := range patterns {
		switch {
		case strings.EqualFold(p, "{NONE}"), strings.Contains(p, "()"): // nothing is cut
		case strings.Contains(p, "{UNB}"), strings.Contains(p, "**"), captures(p):
			return true
		case strings.HasSuffix(p, `\s`) && !strings.HasPrefix(p, "^"):
			return true
		}
	}
	return false
}

// captures says that a pattern has a plain capturing group, other than one that
// ends it and follows a character of no word, as in "\[({DATE})".
func captures(p string) bool {
	for i := 0; i < len(p); i++ {
		switch {
		case p[i] == '\\':
			i++
		case p[i] == '(' && (i+1 >= len(p) || p[i+1] != '?'):
			bounded := i >= 2 && p[i-2] == '\\' && strings.IndexByte(`[]()|"'<>{}`, p[i-1]) >= 0 ||
				strings.HasSuffix(p[:i], " ") || strings.HasSuffix(p[:i], " )?")
			return !bounded || !strings.HasSuffix(p, ")")
		}
	}
	return false
}
