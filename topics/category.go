package topics

import (
	"fmt"
	"path"
	"slices"

	"banmesh/internal/ban"
)

// Categories are the kinds of topics that people choose by.
var Categories = []string{"attackers", "spam", "content", "scanners"}

// CategoryOf gives a definition's category: the one that it names, else that of
// its first rule.
func (d *Definition) CategoryOf() string {
	if d.Category != "" {
		return d.Category
	}
	class := ban.ClassAuth
	if d.Detect != nil && len(d.Detect.Rules) > 0 {
		class = d.Detect.Rules[0].Class
	}
	switch class {
	case ban.ClassSpam:
		return "spam"
	case ban.ClassContent, ban.ClassPayment:
		return "content"
	case ban.ClassScan, ban.ClassScanWeak, ban.ClassExploit:
		return "scanners"
	}
	return "attackers"
}

// Bounds of a definition's cost: each expression may be tried on each line.
const (
	maxExpressions     = 2_000
	maxExpressionBytes = 16 << 10
)

// checkCost bounds a definition's cost for whoever loads it.
func (d *Definition) checkCost(fault func(key, format string, args ...any)) {
	if d.Category != "" && !slices.Contains(Categories, d.Category) {
		fault("category", "%q is none of %q", d.Category, Categories)
	}
	if d.Detect == nil {
		return
	}
	count := 0
	look := func(key string, list []string) {
		count += len(list)
		for _, s := range list {
			if len(s) > maxExpressionBytes {
				fault(key, "an expression of %d bytes is longer than %d", len(s), maxExpressionBytes)
			}
		}
	}
	for i, r := range d.Detect.Rules {
		look(fmt.Sprintf("detect.rule.%d", i), slices.Concat(r.Regex, r.Where))
	}
	for i, s := range d.Detect.Success {
		look(fmt.Sprintf("detect.success.%d", i), slices.Concat(s.Regex, s.Where))
	}
	look("detect.ignoreregex", d.Detect.Ignoreregex)
	look("detect.taint", d.Detect.Taint)
	if count > maxExpressions {
		fault("detect", "%d expressions are more than %d", count, maxExpressions)
	}
}

// Shipped gives the file of a shipped definition as it is, with its comments.
func Shipped(name ban.Topic) ([]byte, bool) {
	b, err := shipped.ReadFile(path.Clean(string(name) + ".toml"))
	return b, err == nil
}
