package detect

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/span"
	"banmesh/topics"
)

// limits reads thresholds and times.
func limits(d *topics.Detect, j *f2bconf.Jail, warn func(option, format string, args ...any)) error {
	o := j.Options
	if s := o["maxretry"]; s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("%s: maxretry = %q is no count", j.Where("maxretry"), s)
		}
		d.MaxRetry = n
	}
	for _, t := range []struct {
		option string
		into   *span.Duration
	}{{"findtime", &d.FindTime}, {"bantime", &d.BanTime}, {"bantime.maxtime", &d.Increment.MaxTime}, {"bantime.rndtime", &d.Increment.Random}} {
		if s := strings.TrimSpace(o[t.option]); s != "" {
			v, err := span.Parse(s)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", j.Where(t.option), t.option, err)
			}
			*t.into = span.Of(v)
		}
	}
	d.Increment.Enabled = truth(o["bantime.increment"])
	d.Increment.Factor = 1
	if s := o["bantime.factor"]; s != "" {
		v, err := span.Seconds(s)
		if err != nil {
			return fmt.Errorf("%s: bantime.factor: %w", j.Where("bantime.factor"), err)
		}
		d.Increment.Factor = v
	}
	for _, s := range strings.Fields(o["bantime.multipliers"]) {
		v, err := span.Seconds(s)
		if err != nil {
			return fmt.Errorf("%s: bantime.multipliers: %w", j.Where("bantime.multipliers"), err)
		}
		d.Increment.Multipliers = append(d.Increment.Multipliers, v)
	}
	if f := strings.ReplaceAll(o["bantime.formula"], " ", ""); f != "" && d.Increment.Enabled && f != "ban.Time*(1<<(ban.Countifban.Count<20else20))*banFactor" {
		warn("bantime.formula", "bantime.formula is not honoured: the default formula and bantime.multipliers are")
	}
	if truth(o["bantime.overalljails"]) {
		warn("bantime.overalljails", "bantime.overalljails is not honoured: bans are counted for each topic")
	}
	if words := strings.Fields(o["ignorecommand"]); len(words) > 0 { // its arguments may hold a key
		warn("ignorecommand", "ignorecommand is not run: %.200q; use ignoreip or never_ban", words[0])
	}
	if s := o["logencoding"]; s != "" && s != "auto" && !strings.EqualFold(s, "utf-8") && !strings.EqualFold(s, "utf8") && !strings.EqualFold(s, "ascii") {
		warn("logencoding", "logencoding = %s: lines are read as UTF-8", s)
	}
	usedns := strings.ToLower(strings.TrimSpace(o["usedns"]))
	d.UseDNS = usedns == "yes" || usedns == "warn"
	d.Timezone = o["logtimezone"]
	d.IgnoreIP = ignoreIPs(o["ignoreip"], warn)
	return nil
}

// fileComment is a comment in a file that ignoreip names.
var fileComment = regexp.MustCompile(`#[^\n]*`)

func truth(s string) bool {
	return slices.Contains([]string{"1", "on", "true", "yes"}, strings.ToLower(strings.TrimSpace(s)))
}

// ignoreIPs reads fail2ban's ignoreip: addresses, prefixes, names and files.
func ignoreIPs(s string, warn func(option, format string, args ...any)) []string {
	var out []string
	for _, item := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" ,\n\t", r) }) {
		if path, ok := strings.CutPrefix(item, "file:"); ok {
			b, err := os.ReadFile(path)
			if err != nil || len(b) > topics.MaxFile {
				warn("ignoreip", "ignoreip: %s cannot be read: %v", item, err)
				continue
			}
			out = append(out, ignoreIPs(fileComment.ReplaceAllString(string(b), ""), warn)...)
			continue
		}
		if _, err := ban.ParseTarget(item); err == nil {
			out = append(out, item)
			continue
		}
		if base, mask, ok := strings.Cut(item, "/"); ok {
			if m, err := netip.ParseAddr(mask); err == nil && m.Is4() {
				bits, _ := net.IPMask(m.AsSlice()).Size()
				out = append(out, fmt.Sprintf("%s/%d", base, bits))
				continue
			}
		}
		if topics.IsHostName(item) {
			out = append(out, item)
			continue
		}
		warn("ignoreip", "ignoreip: %q is no address, no prefix and no host name", item)
	}
	return out
}
