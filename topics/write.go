package topics

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Format writes a definition as a file that [Parse] reads back, and that says
// everything: laid over a shipped definition it replaces all of it but samples.
func Format(d *Definition) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "name = %s\ntitle = %s\ndescription = %s\ntarget = %s\nprotocol = %s\n", quote(string(d.Name)), quote(d.Title), quote(d.Description), quote(d.Target), quote(d.Protocol))
	if x := d.Detect; x != nil {
		b.WriteString("\n[detect]\n")
		for _, l := range []struct {
			key    string
			values []string
		}{
			{"journal", x.Journal},
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
		fmt.Fprintf(&b, "both = %t\nstdin = %t\ndecisions = %t\nfail2ban = %s\nprefregex = %s\ntimezone = %s\n", x.Both, x.Stdin, x.Decisions, quote(x.Fail2ban), quote(x.Prefregex), quote(x.Timezone))
		fmt.Fprintf(&b, "maxlines = %d\nmaxretry = %d\nguest_maxretry = %d\nfindtime = %s\nbantime = %s\nusedns = %t\nfailure_bytes = %d\nguest_bytes = %d\n", x.MaxLines, x.MaxRetry, x.GuestMaxRetry, quote(x.FindTime.String()), quote(x.BanTime.String()), x.UseDNS, x.FailureBytes, x.GuestBytes)
		for _, f := range [][2]string{{"format", x.Format}, {"address", x.Address}, {"port", x.Port}, {"user", x.User}, {"time", x.Time}} {
			fmt.Fprintf(&b, "%s = %s\n", f[0], quote(f[1]))
		}
		fmt.Fprintf(&b, "episode = %s\ncorroborate = %s\n", quote(x.Episode.String()), quote(x.Corroborate.String()))
		i := x.Increment
		multipliers := strings.ReplaceAll(strings.Trim(fmt.Sprintf("%.6f", i.Multipliers), "[]"), " ", ", ")
		fmt.Fprintf(&b, "\n[detect.increment]\nenabled = %t\nfactor = %f\nmultipliers = [%s]\nmaxtime = %s\nrandom = %s\n", i.Enabled, i.Factor, multipliers, quote(i.MaxTime.String()), quote(i.Random.String()))
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
		for _, y := range x.Success {
			fmt.Fprintf(&b, "\n[[detect.success]]\nregex = %s\nwhere = %s\n", list(y.Regex), list(y.Where))
		}
	}
	fmt.Fprintf(&b, "\n[enforce]\nports = %s\nprotocols = %s\nall_ports = %t\n", list(d.Enforce.Ports), list(d.Enforce.Protocols), d.Enforce.AllPorts)
	return []byte(b.String())
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
