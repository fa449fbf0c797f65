package settings

import (
	"regexp"
	"slices"
	"strings"
)

// routeRule reads the arguments of ip and route: routes to the offender and rules
// for its packets that lead nowhere.
func routeRule(name string, words []string) (r packetRule) {
	for len(words) > 0 && strings.HasPrefix(words[0], "-") && name == "ip" {
		words = words[1:]
	}
	if name == "ip" {
		if len(words) == 0 || words[0] != "route" && words[0] != "ro" && words[0] != "r" && words[0] != "rule" {
			return r
		}
		r.understood(words[0])
		words = words[1:]
	}
	if len(words) == 0 {
		return r
	}
	switch words[0] {
	case "add", "append", "replace", "a":
	case "del", "delete", "d":
		r.removes = true
	default:
		return r
	}
	for _, word := range words {
		switch {
		case offenderTag.MatchString(word):
			r.source = offender
		case slices.Contains(blockingVerdicts, strings.ToLower(word)):
			r.verdict = strings.ToLower(word)
		}
		r.understood(word)
	}
	return r
}

// ufwRule reads the arguments of ufw.
func ufwRule(words []string) (r packetRule) {
	for i := 0; i < len(words); i++ {
		next := func() string {
			if i++; i < len(words) {
				return words[i]
			}
			return ""
		}
		switch word := words[i]; word {
		case "deny", "reject", "allow":
			r.verdict = word
			r.understood(word)
		case "delete":
			r.removes = true
			r.understood(word)
		case "from":
			value := next()
			r.from(value, false)
			r.understood(word, value)
		case "port":
			r.ports = next()
			r.understood(word, r.ports)
		case "proto":
			r.protocol = next()
			r.understood(word, r.protocol)
		case "to":
			value := next()
			r.narrowed = r.narrowed || value != "any"
		case "insert", "comment":
			next()
		case "--force", "prepend", "in", "route", "log", "log-all":
		default: // "limit", "out", "on", "app"
			r.narrowed = true
		}
	}
	return r
}

// Parts of a rich rule of firewalld's.
var (
	richSource  = regexp.MustCompile(`\bsource\s+(NOT\s+)?(address|ipset)=\s*["']?([^"'\s]+)`)
	richVerdict = regexp.MustCompile(`\b(drop|reject|accept)\b`)
	richPort    = regexp.MustCompile(`\bport\s+port=["']?([\w,\-<>]+)["']?(?:\s+protocol=["']?(\w+))?`)
)

// firewalldRule reads the arguments of firewall-cmd.
func firewalldRule(words []string) (r packetRule) {
	zone, set := "", ""
	for i, word := range words {
		option, value, attached := strings.Cut(word, "=")
		if !attached && i+1 < len(words) {
			value = words[i+1]
		}
		r.removes = r.removes || strings.HasPrefix(option, "--remove-")
		switch option {
		case "--add-rule", "--remove-rule": // --direct, of: family table chain place arguments
			if i+5 < len(words) && words[i+2] != "nat" {
				direct := iptablesRule(append([]string{"-A", words[i+3]}, words[i+5:]...))
				direct.removes = r.removes
				return direct
			}
		case "--zone":
			zone = strings.ToLower(value)
		case "--add-source", "--remove-source":
			if set, ok := strings.CutPrefix(value, "ipset:"); ok {
				r.source = set
			} else {
				r.from(value, false)
			}
			r.understood(word)
		case "--add-entry", "--remove-entry":
			if offenderTag.MatchString(value) {
				r.entersSet = set
			}
		case "--ipset":
			set = value
		case "--add-rich-rule", "--remove-rich-rule":
			r.richRule(value)
		}
	}
	if r.source != "" && r.verdict == "" { // of a zone's source
		r.verdict = zone
		r.understood("--zone=" + zone)
	}
	return r
}

func (r *packetRule) richRule(text string) {
	m := richSource.FindStringSubmatch(text)
	verdict := richVerdict.FindString(text)
	if m == nil || verdict == "" {
		return
	}
	if r.verdict = verdict; m[2] == "ipset" {
		r.source, r.except = m[3], m[1] != ""
	} else {
		r.from(m[3], m[1] != "")
	}
	r.understood("rule source", strings.TrimSpace(m[1]+m[2]+"="+m[3]), verdict)
	if p := richPort.FindStringSubmatch(text); p != nil {
		r.ports, r.protocol = p[1], p[2]
	}
	for _, narrow := range []string{"service ", "limit ", "destination ", "icmp-", "forward-port", "source-port"} {
		r.narrowed = r.narrowed || strings.Contains(text, narrow)
	}
}
