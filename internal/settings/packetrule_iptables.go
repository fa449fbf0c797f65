package settings

import (
	"slices"
	"strings"
)

// An iptablesOption is an option of iptables with its value, "" where it takes none.
type iptablesOption struct {
	name, value string
	not         bool
	flags       string // behind the value of --match-set
}

// iptablesOptions reads arguments: "-s A", "--source=A", "! -s A", and "-s ! A" as it was once written.
func iptablesOptions(words []string) (out []iptablesOption) {
	next := func() (word string) {
		if len(words) > 0 {
			word, words = words[0], words[1:]
		}
		return word
	}
	for len(words) > 0 {
		o := iptablesOption{name: next()}
		if o.name == "!" {
			o.not, o.name = true, next()
		}
		attached := false
		if strings.HasPrefix(o.name, "--") {
			o.name, o.value, attached = strings.Cut(o.name, "=")
		}
		if !attached && strings.HasPrefix(o.name, "-") && !slices.Contains(iptablesFlags, o.name) {
			if o.value = next(); o.value == "!" {
				o.not, o.value = true, next()
			}
		}
		if o.name == "--match-set" {
			o.flags = next()
		}
		out = append(out, o)
	}
	return out
}

// iptablesFlags are options without a value.
var iptablesFlags = []string{"-w", "--wait", "-n", "-q", "-4", "-6", "-C", "-N", "-F", "-X", "-L"}

// iptablesMatches are the extensions that by themselves leave no packet out.
var iptablesMatches = []string{"tcp", "udp", "multiport", "comment", "set", "conntrack", "state"}

// iptablesRule reads the arguments of iptables.
func iptablesRule(words []string) (r packetRule) {
	changes, narrow := false, func(yes bool) { r.narrowed = r.narrowed || yes }
	for _, o := range iptablesOptions(words) {
		told := true
		switch o.name {
		case "-A", "-I", "-D", "--append", "--insert", "--delete":
			changes, r.chain = true, o.value
			r.removes = o.name == "-D" || o.name == "--delete"
			narrow(r.chain == "OUTPUT" || r.chain == "POSTROUTING")
		case "-s", "--source", "--src":
			r.from(o.value, o.not)
		case "--match-set":
			r.source, r.except = o.value, o.not
			narrow(o.flags != "src")
		case "-p", "--protocol", "--proto":
			r.protocol = strings.ToLower(o.value)
			narrow(o.not)
		case "--dport", "--dports", "--destination-port", "--destination-ports", "--ctorigdstport":
			r.ports = o.value
			narrow(o.not)
		case "-j", "--jump", "-g", "--goto":
			r.verdict = strings.ToLower(o.value)
		default:
			told = false
			narrow(narrows(o))
		}
		if told && o.not {
			r.understood("!")
		}
		if told {
			r.understood(o.name, o.value)
		}
	}
	if !changes {
		return packetRule{} // it asks, or makes a chain
	}
	return r
}

// narrows says that an option may leave packets of the source's out.
func narrows(o iptablesOption) bool {
	switch o.name {
	case "-m", "--match":
		return !slices.Contains(iptablesMatches, o.value)
	case "--ctstate", "--state":
		return o.not || !strings.Contains(o.value, "NEW")
	case "-t", "--table":
		return o.value == "nat"
	case "--comment", "--reject-with", "-i", "--in-interface", "-W", "--wait-interval":
		return false
	}
	place := strings.Trim(o.name, "0123456789") == "" // in the chain, or seconds to wait
	return !place && !slices.Contains(iptablesFlags, o.name)
}

// ipsetMember reads the arguments of ipset.
func ipsetMember(words []string) (r packetRule) {
	for i, word := range words {
		adds := slices.Contains([]string{"add", "-A", "--add"}, word)
		if !adds && !slices.Contains([]string{"del", "-D", "--del"}, word) || i+2 >= len(words) {
			continue
		}
		if rest := words[i+2:]; slices.ContainsFunc(rest, offenderTag.MatchString) && !slices.Contains(rest, "nomatch") {
			r.entersSet, r.removes = words[i+1], !adds
		}
		return r
	}
	return r
}
