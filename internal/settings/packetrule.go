package settings

import (
	"regexp"
	"slices"
	"strings"
)

// A packetRule is one command of an action's that changes this machine's packet
// filter, as far as it is understood.
type packetRule struct {
	removes bool // it takes the rule, or the set's member, away
	// source is [offender] where the rule is for packets of the offender's, or the name of a
	// set that the source is looked for in; except that it is for all others'.
	source string
	except bool
	// entersSet names the set that the offender becomes a member of.
	entersSet string
	// verdict is the rule's, or the chain that it leads to, in lower case.
	verdict         string
	chain           string // that the rule stands in
	ports, protocol string
	// narrowed says that the rule has conditions that are not understood, so
	// that it may meet few packets of the source's.
	narrowed bool
	// text are the words that were understood, and no others: a comment may hold a key.
	text string
}

// offender is the source that stands for the offender's address.
const offender = "<ip>"

// offenderTag is the place of the offender's address in a command.
var offenderTag = regexp.MustCompile(`(?i)^<(?:ip|f-ip\w*|ip_value|adr|addr)>(?:/(?:32|128|<\w+>))?$`)

var (
	lettingVerdicts  = []string{"accept", "return", "allow", "trusted"}
	blockingVerdicts = []string{"drop", "reject", "deny", "tarpit", "steal", "blackhole", "unreachable", "prohibit", "throw", "block"}
)

// bans says that the rule stops the packets of its source and of nobody else.
func (r packetRule) bans() bool {
	return slices.Contains(blockingVerdicts, r.verdict) && !r.removes && !r.except && !r.narrowed
}

// lets says that the rule lets its source through, or stops all others, or stops
// stopping it. Conditions change nothing about that.
func (r packetRule) lets() bool {
	if slices.Contains(lettingVerdicts, r.verdict) {
		return !r.removes && !r.except
	}
	return slices.Contains(blockingVerdicts, r.verdict) && r.removes != r.except
}

// rulesOf reads the commands of a text that change the packet filter.
func rulesOf(text string) (out []packetRule) {
	for _, words := range shellCommands(text) {
		name, arguments := program(words)
		var rules []packetRule
		switch name {
		case "iptables", "ip6tables", "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy":
			rules = []packetRule{iptablesRule(arguments)}
		case "nft":
			rules = nftRules(arguments)
		case "ipset":
			rules = []packetRule{ipsetMember(arguments)}
		case "ip", "route":
			rules = []packetRule{routeRule(name, arguments)}
		case "ufw":
			rules = []packetRule{ufwRule(arguments)}
		case "firewall-cmd":
			rules = []packetRule{firewalldRule(arguments)}
		}
		for _, r := range rules {
			if strings.HasPrefix(r.protocol, "$") {
				r.protocol = "" // a loop over protocols
			}
			if r.source != "" || r.entersSet != "" || r.verdict != "" {
				r.text = name + " " + r.text
				out = append(out, r)
			}
		}
	}
	return out
}

// understood notes a word of a rule's.
func (r *packetRule) understood(words ...string) {
	r.text = strings.TrimSpace(r.text + " " + strings.Join(words, " "))
}

// from notes a source address: the offender's, or one that is of no interest.
func (r *packetRule) from(address string, except bool) {
	if offenderTag.MatchString(address) {
		r.source, r.except = offender, except
	} else {
		r.narrowed = true
	}
}
