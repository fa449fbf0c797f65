package desired

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Text gives the bans, one a line, sorted.
func (s *State) Text() string {
	var lines []string
	s.Each(func(p netip.Prefix, v Slot) bool {
		until := "never"
		if v.Until != Never {
			until = v.Until.Time().UTC().Format(time.RFC3339)
		}
		lines = append(lines, fmt.Sprintf("%s %s until %s\n", p, s.Classes[v.Class].Chain(), until))
		return true
	})
	slices.Sort(lines)
	return strings.Join(lines, "")
}
