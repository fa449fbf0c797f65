package topics

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Format writes a definition as a file that [Parse] reads back, and that says
// everything: laid over a shipped definition it replaces all of it but samples.
func Format(d *Definition) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "name = %s\ntitle = %s\ndescription = %s\ntarget = %s\nprotocol = %s\n", quote(string(d.Name)), quote(d.Title), quote(d.Description), quote(d.Target), quote(d.Protocol))
	if d.Category != "" {
		fmt.Fprintf(&b, "category = %s\n", quote(d.Category))
	}
	if x := d.Detect; x != nil {
		b.WriteString("\n[detect]\n")
		for _, l := range []struct {
			key    string
			values []string
		}{
			{"journal", x.Journal},
			{"journal_dirs", x.JournalDirs},
			{"journal_files", x.JournalFiles},
			{"files", x.Files},
			{"docker", x.Docker},
			{"syslog", x.Syslog},
			{"ignoreregex", x.Ignoreregex},
			{"datepattern", x.Datepattern},
			{"ignoreip", x.IgnoreIP},
			{"taint", x.Taint},
		} {
			fmt.Fprintf(&b, "%s = %s\n", l.key, list(l.values))
		}
		fmt.Fprintf(&b, "both = %t\nstdin = %t\ndecisions = %t\nfail2ban = %s\nprefregex = %s\ntimezone = %s\njournal_namespace = %s\nstart = %s\n", x.Both, x.Stdin, x.Decisions, quote(x.Fail2ban), quote(x.Prefregex), quote(x.Timezone), quote(x.JournalNamespace), quote(x.Start))
		fmt.Fprintf(&b, "maxlines = %d\nmaxretry = %d\nguest_maxretry = %d\nfindtime = %s\nbantime = %s\nusedns = %t\nfailure_bytes = %d\nguest_bytes = %d\n", x.MaxLines, x.MaxRetry, x.GuestMaxRetry, quote(x.FindTime.String()), quote(x.BanTime.String()), x.UseDNS, x.FailureBytes, x.GuestBytes)
		for _, f := range [][2]string{{"format", x.Format}, {"address", x.Address}, {"port", x.Port}, {"user", x.User}, {"time", x.Time}} {
			fmt.Fprintf(&b, "%s = %s\n", f[0], quote(f[1]))
		}
		fmt.Fprintf(&b, "episode = %s\ncorroborate = %s\n", quote(x.Episode.String()), quote(x.Corroborate.String()))
		// Of a shipped definition below none of these may stay.
		for _, table := range []struct {
			key string
			n   int
		}{{"rule", len(x.Rules)}, {"set", len(x.Sets)}, {"success", len(x.Success)}} {
			if table.n == 0 {
				fmt.Fprintf(&b, "%s = []\n", table.key)
			}
		}
		formatIncrement(&b, x.Increment)
		for _, r := range x.Rules {
			fmt.Fprintf(&b, "\n[[detect.rule]]\nclass = %s\nregex = %s\nwhere = %s\n", quote(r.Class.String()), list(r.Regex), list(r.Where))
			if r.Weight != nil {
				fmt.Fprintf(&b, "weight = %f\n", *r.Weight)
			}
			if r.Twin {
				b.WriteString("twin = true\n")
			}
			if r.Weak != nil {
				fmt.Fprintf(&b, "weak = %t\n", *r.Weak)
			}
		}
		for _, s := range x.Sets {
			fmt.Fprintf(&b, "\n[[detect.set]]\nname = %s\nsource = %s\ndate = %s\npath = %t\ntexts = %s\n", quote(s.Name), quote(s.Source), quote(s.Date), s.Path, list(s.Texts))
		}
		for _, y := range x.Success {
			fmt.Fprintf(&b, "\n[[detect.success]]\nregex = %s\nwhere = %s\n", list(y.Regex), list(y.Where))
		}
	}
	formatEnforce(&b, d.Enforce)
	return []byte(b.String())
}

// FormatChanges writes the part of a definition that an import changes of a shipped
// one: where the log is, thresholds, ignored addresses, ports. Laid over the shipped
// definition it leaves all else as it is, also where a later version ships another one.
func FormatChanges(d *Definition) []byte {
	var b strings.Builder
	x, was := d.Detect, Detect{}
	for _, s := range Builtin() {
		if s.Name == d.Name && s.Detect != nil {
			was = *s.Detect
		}
	}
	fmt.Fprintf(&b, "name = %s\n\n[detect]\n", quote(string(d.Name)))
	for _, l := range []struct {
		key         string
		values, was []string
	}{
		{"journal", x.Journal, was.Journal},
		{"journal_dirs", x.JournalDirs, was.JournalDirs},
		{"journal_files", x.JournalFiles, was.JournalFiles},
		{"files", x.Files, was.Files},
		{"ignoreip", x.IgnoreIP, was.IgnoreIP},
	} {
		if !slices.Equal(l.values, l.was) {
			fmt.Fprintf(&b, "%s = %s\n", l.key, list(l.values))
		}
	}
	for _, l := range [][3]string{{"journal_namespace", x.JournalNamespace, was.JournalNamespace}, {"timezone", x.Timezone, was.Timezone}, {"start", x.Start, was.Start}} {
		if l[1] != l[2] {
			fmt.Fprintf(&b, "%s = %s\n", l[0], quote(l[1]))
		}
	}
	fmt.Fprintf(&b, "maxretry = %d\nfindtime = %s\nbantime = %s\n", x.MaxRetry, quote(x.FindTime.String()), quote(x.BanTime.String()))
	if x.Increment.Enabled || was.Increment.Enabled {
		formatIncrement(&b, x.Increment)
	}
	formatEnforce(&b, d.Enforce)
	return []byte(b.String())
}

func formatIncrement(b *strings.Builder, i Increment) {
	multipliers := strings.ReplaceAll(strings.Trim(fmt.Sprintf("%.6f", i.Multipliers), "[]"), " ", ", ")
	fmt.Fprintf(b, "\n[detect.increment]\nenabled = %t\nfactor = %f\nmultipliers = [%s]\nmaxtime = %s\nrandom = %s\n", i.Enabled, i.Factor, multipliers, quote(i.MaxTime.String()), quote(i.Random.String()))
}

func formatEnforce(b *strings.Builder, e Enforce) {
	fmt.Fprintf(b, "\n[enforce]\nports = %s\nprotocols = %s\nall_ports = %t\n", list(e.Ports), list(e.Protocols), e.AllPorts)
}

func list(values []string) string {
	if len(values) == 0 {
		return "[]"
	}
	var b strings.Builder
	b.WriteString("[\n")
	for _, v := range values {
		b.WriteString("  " + quote(v) + ",\n")
	}
	b.WriteByte(']')
	return b.String()
}

// quote writes a string so that expressions stay readable: literally where
// TOML can.
func quote(s string) string {
	plain := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) < 0
	switch {
	case plain && !strings.Contains(s, "'"):
		return "'" + s + "'"
	case plain && !strings.Contains(s, "''") && !strings.HasSuffix(s, "'"):
		return "'''" + s + "'''"
	}
	b, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return strings.ReplaceAll(string(b), "\x7f", `\u007f`)
}
