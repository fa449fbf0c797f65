package nft

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// text gives the table in nft's language, as `nft -s -t list table` prints it:
// without the elements of sets.
func (r *ruleset) text(table string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n\tcomment %q\n", table, r.comment)
	for _, c := range r.counters {
		fmt.Fprintf(&b, "\tcounter %s {\n\t}\n\n", c)
	}
	for _, s := range r.sets {
		s.writeText(&b)
	}
	for i, c := range r.chains {
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if c.base {
			at := map[int32]string{prioBans: "filter hook prerouting priority raw - 10", prioTrack: "filter hook prerouting priority mangle - 10", prioTraps: "nat hook prerouting priority dstnat + 10"}[c.prio]
			fmt.Fprintf(&b, "\t\ttype %s; policy accept;\n", at)
		}
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule.text)
		}
		b.WriteString("\t}\n")
		if i < len(r.chains)-1 {
			b.WriteByte('\n')
		}
	}
	b.WriteString("}\n")
	return b.String()
}

func (s set) writeText(b *strings.Builder) {
	what := "set"
	types := s.key.name
	if s.data.magic != 0 {
		what = "map"
		types += " : " + s.data.name
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s\n", what, s.name, types)
	if s.size != 0 {
		fmt.Fprintf(b, "\t\tsize %d\n", s.size)
	}
	var flags []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{{unix.NFT_SET_EVAL, "dynamic"}, {unix.NFT_SET_INTERVAL, "interval"}, {unix.NFT_SET_TIMEOUT, "timeout"}} {
		if s.flags&f.bit != 0 {
			flags = append(flags, f.name)
		}
	}
	if flags != nil {
		fmt.Fprintf(b, "\t\tflags %s\n", strings.Join(flags, ","))
	}
	if s.timeout != 0 {
		fmt.Fprintf(b, "\t\ttimeout %s\n", nftDuration(s.timeout))
	}
	if s.comment != "" {
		fmt.Fprintf(b, "\t\tcomment %q\n", s.comment)
	}
	b.WriteString("\t}\n\n")
}

// nftDuration writes a duration as nft does: "1h30m".
func nftDuration(d time.Duration) string {
	var b strings.Builder
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if v := d / u.unit; v > 0 {
			fmt.Fprintf(&b, "%d%s", v, u.name)
			d -= v * u.unit
		}
	}
	return b.String()
}
