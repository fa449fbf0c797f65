package strict

import "strings"

// Nearest gives the name that a person who wrote wrong probably meant, or "":
// a third of its letters may differ.
func Nearest(wrong string, names []string) string {
	best, distance := "", len(wrong)/3+1
	for _, n := range names {
		if d := editDistance(wrong, n, distance+1); d <= distance && (best == "" || d < distance) {
			best, distance = n, d
		}
	}
	return best
}

// editDistance is Levenshtein's, ignoring case and treating '-' as '_'; a
// result above limit only means "more".
func editDistance(a, b string, limit int) int {
	norm := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	a, b = norm(a), norm(b)
	if max(len(a)-len(b), len(b)-len(a)) > limit || len(a) > 64 {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := before
			if a[i-1] != b[j-1] {
				cost++
			}
			before = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
