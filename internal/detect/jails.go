package detect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/detect/filter"
	"banmesh/internal/span"
	"banmesh/topics"
)

// An Imported jail is a fail2ban jail as a topic.
type Imported struct {
	Jail string
	// Definition is the topic that it becomes. The ports it closes are
	// not filled in: Actions, Port and Protocol say it in fail2ban's words.
	Definition *topics.Definition
	// Actions are fail2ban's against an offender, as its configuration
	// writes them: `nftables[port="ssh", protocol="tcp"]`.
	Actions []string
	// Place is where they stand, as file:line.
	Place string
	// Warnings name settings that could not be carried over, and why.
	Warnings []string
	// Doubtful says that an address may be movable: see [Unproven].
	Doubtful bool
}

// Unproven says of which jails or topics with fail2ban's expressions it is not
// proven that a client cannot move the address, "" of none.
func Unproven(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("not proven for %d of fail2ban's filters: that no text of a client's names another address than its own; only one that is connected can be named (%s)",
		len(names), strings.Join(names, ", "))
}

// ImportJails reads fail2ban's enabled jails as definitions that stand by
// themselves. Jails that are wrong are reported; the others are given.
func ImportJails(dir string) ([]Imported, error) {
	jails, err := f2bconf.ReadJails(dir)
	faults := []error{err}
	var out []Imported
	for _, j := range jails {
		i, err := importJail(j)
		if err != nil {
			faults = append(faults, fmt.Errorf("jail %s: %w", j.Name, err))
			continue
		}
		out = append(out, i)
	}
	return out, errors.Join(faults...)
}

func importJail(j *f2bconf.Jail) (Imported, error) {
	out := Imported{Jail: j.Name, Place: j.Where("action").String()}
	for _, w := range j.Warnings {
		out.Warnings = append(out.Warnings, w.String())
	}
	warn := func(option, format string, args ...any) {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: %s", j.Where(option), fmt.Sprintf(format, args...)))
	}
	name, err := topicOf(j.Name)
	if err != nil {
		return out, err
	}
	d := &topics.Detect{
		Prefregex: j.Filter.Prefregex, Ignoreregex: j.Filter.Ignoreregex, Datepattern: j.Filter.Datepattern, MaxLines: j.Filter.Maxlines,
		Files: j.Logpath, MaxRetry: 5, FindTime: span.Of(10 * time.Minute), BanTime: span.Of(10 * time.Minute),
		Rules: []topics.Rule{{Class: classOf(j.Filter.Name), Regex: j.Filter.Failregex}},
	}
	out.Definition = &topics.Definition{
		Name: name, Title: "fail2ban jail " + j.Name, Description: fmt.Sprintf("Imported from %s.", j.Place.File), Target: "ip", Detect: d,
	}
	switch {
	case strings.HasPrefix(j.Filter.Name, "recidive"):
		// fail2ban's own log says who it banned; where fail2ban is gone, that is
		// known here first hand.
		d.Decisions = true
	case len(d.Files) == 0 && !strings.HasPrefix(j.Backend, "systemd"):
		warn("logpath", "it names no log file")
	}
	if strings.HasPrefix(j.Backend, "systemd") {
		d.Files, d.Journal = nil, j.Filter.Journalmatch
		if len(d.Journal) == 0 {
			d.Journal = []string{""}
			warn("filter", "the filter has no journalmatch: every message of the journal is read")
		}
	}
	if len(j.Filter.Failregex) == 0 {
		return out, fmt.Errorf("%s: %w: the filter %s has no failregex", j.Place, f2bconf.ErrSyntax, j.FilterSpec)
	}
	if err := limits(d, j, warn); err != nil {
		return out, err
	}
	d.UseDNS = j.Options["usedns"] == "yes" || j.Options["usedns"] == "warn"
	for _, a := range j.Actions {
		out.Actions = append(out.Actions, a.String())
	}
	f, err := filter.Compile(filter.Config{
		Name: j.Name, Prefregex: d.Prefregex, Failregex: j.Filter.Failregex, Ignoreregex: d.Ignoreregex, MaxLines: d.MaxLines, DatePattern: d.Datepattern,
	})
	if err != nil {
		return out, err
	}
	out.Doubtful = len(movable(f)) > 0
	for _, m := range d.Journal {
		if why := weakMatch(m); why != "" && m != "" {
			warn("filter", "journal match %q: %s", m, why)
		}
	}
	return out, nil
}

// topicOf spells a jail's name as a topic.
func topicOf(jail string) (ban.Topic, error) {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(jail))
	return ban.ParseTopic(strings.Trim(name[:min(len(name), ban.MaxTopic)], "-"))
}

// classOf gives the class of a fail2ban filter's offences.
func classOf(name string) ban.Class {
	for _, c := range []struct {
		class ban.Class
		parts []string
	}{
		{ban.ClassRecidive, []string{"recidive"}},
		{ban.ClassSpam, []string{"spam"}},
		{ban.ClassExploit, []string{"shellshock", "overflows", "modsecurity", "suhosin", "php-url-fopen"}},
		{ban.ClassScan, []string{"botsearch", "badbots", "noscript", "nohome", "bad-request", "portsentry", "scanlogd", "fakegooglebot", "xinetd-fail"}},
		{ban.ClassFlood, []string{"limit-req", "named-refused", "counter-strike"}},
	} {
		for _, p := range c.parts {
			if strings.Contains(name, p) {
				return c.class
			}
		}
	}
	return ban.ClassAuth
}

// limits reads thresholds and times.
func limits(d *topics.Detect, j *f2bconf.Jail, warn func(option, format string, args ...any)) error {
	o := j.Options
	if s := o["maxretry"]; s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("%s: maxretry = %q is no count", j.Place, s)
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
				return fmt.Errorf("%s: %s: %w", j.Place, t.option, err)
			}
			*t.into = span.Of(v)
		}
	}
	d.Increment.Enabled = truth(o["bantime.increment"])
	d.Increment.Factor = 1
	if s := o["bantime.factor"]; s != "" {
		v, err := span.Seconds(s)
		if err != nil {
			return fmt.Errorf("%s: bantime.factor: %w", j.Place, err)
		}
		d.Increment.Factor = v
	}
	for _, s := range strings.Fields(o["bantime.multipliers"]) {
		v, err := span.Seconds(s)
		if err != nil {
			return fmt.Errorf("%s: bantime.multipliers: %w", j.Place, err)
		}
		d.Increment.Multipliers = append(d.Increment.Multipliers, v)
	}
	if f := strings.ReplaceAll(o["bantime.formula"], " ", ""); f != "" && d.Increment.Enabled && f != "ban.Time*(1<<(ban.Countifban.Count<20else20))*banFactor" {
		warn("bantime.formula", "bantime.formula is not honoured: the default formula and bantime.multipliers are")
	}
	if truth(o["bantime.overalljails"]) {
		warn("bantime.overalljails", "bantime.overalljails is not honoured: bans are counted for each topic")
	}
	if s := o["ignorecommand"]; s != "" {
		warn("ignorecommand", "ignorecommand is not run: %.200q; use ignoreip or never_ban", s)
	}
	if s := o["logencoding"]; s != "" && s != "auto" && !strings.EqualFold(s, "utf-8") && !strings.EqualFold(s, "utf8") && !strings.EqualFold(s, "ascii") {
		warn("logencoding", "logencoding = %s: lines are read as UTF-8", s)
	}
	d.Timezone = o["logtimezone"]
	d.IgnoreIP = ignoreIPs(o["ignoreip"], warn)
	return nil
}

func truth(s string) bool {
	return slices.Contains([]string{"1", "on", "true", "yes"}, strings.ToLower(strings.TrimSpace(s)))
}

// ignoreIPs reads fail2ban's ignoreip: addresses, prefixes, names and files.
// Names are resolved now, because a name whose owner changes must not decide.
func ignoreIPs(s string, warn func(option, format string, args ...any)) []string {
	var out []string
	for _, item := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" ,\n\t", r) }) {
		if path, ok := strings.CutPrefix(item, "file:"); ok {
			b, err := os.ReadFile(path)
			if err != nil || len(b) > topics.MaxFile {
				warn("ignoreip", "ignoreip: %s cannot be read: %v", item, err)
				continue
			}
			out = append(out, ignoreIPs(string(b), warn)...)
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
		warn("ignoreip", "ignoreip: %q is a name, and names are not honoured: write its addresses", item)
	}
	return out
}
