package settings

import (
	"regexp"
	"slices"
	"strings"

	"banmesh/internal/detect"
	"banmesh/internal/firewall"
)

// The effects of an action.
const (
	effectUnknown   = iota
	effectBans      // it drops or rejects the offender's packets
	effectLets      // it lets the offender's packets through
	effectTells     // it tells a person or a service
	effectElsewhere // it bans in a program that is no packet filter of this machine
)

// An actionEffect is the effect of one action.
type actionEffect struct {
	kind    int
	action  firewall.Banaction // of a ban
	guessed string             // the command that says so, where the name does not
}

// effectOf tells the effect of an action: by its name where its commands are
// fail2ban's own, else by its commands.
func effectOf(a detect.JailAction) actionEffect {
	guess := guessEffect(a.Start, a.Ban)
	if guess.kind == effectLets {
		return guess
	}
	if word, _, _ := strings.Cut(strings.TrimSpace(a.Options["blocktype"]), " "); slices.Contains(lettingVerdicts, strings.ToLower(word)) {
		return actionEffect{kind: effectLets}
	}
	if known, err := firewall.ParseBanaction(a.String()); err == nil && !a.Own {
		return actionEffect{kind: effectBans, action: known}
	}
	switch name := strings.ToLower(a.Name); {
	case guess.kind == effectBans:
		return guess
	case name == "hostsdeny", name == "banmesh":
		return actionEffect{kind: effectBans} // the services behind tcp wrappers: those of the jail; or this node itself
	case slices.ContainsFunc(tellingNames, func(part string) bool { return strings.Contains(name, part) }):
		return actionEffect{kind: effectTells}
	case slices.ContainsFunc(elsewhereNames, func(part string) bool { return strings.Contains(name, part) }):
		return actionEffect{kind: effectElsewhere}
	}
	return actionEffect{}
}

// tellingNames are parts of the names of actions that report or notify.
var tellingNames = []string{
	"mail", "smtp", "abuseipdb", "blocklist_de", "blocklist-de", "badips", "dshield", "xarf", "complain", "mynetwatchman", "ipthreat", "report",
	"notify", "notification", "telegram", "slack", "discord", "ntfy", "gotify", "pushover", "pushbullet", "apprise", "mattermost", "matrix", "webhook", "dummy", "syslog",
}

// elsewhereNames are parts of the names of actions that ban in a proxy, on a router
// or in a packet filter of another system.
var elsewhereNames = []string{
	"cloudflare", "nginx-block-map", "mikrotik", "routeros", "netscaler", "nsupdate", "haproxy", "bsd-", "ipfw", "ipfilter", "npf", "osx-", "pf", "apf", "aws", "opnsense", "unifi",
}

var (
	lettingVerdicts  = []string{"accept", "return", "allow"}
	blockingVerdicts = []string{"drop", "reject", "deny", "tarpit", "steal", "blackhole", "unreachable", "prohibit", "throw"}
)

// offenderTag is the place of the offender's address in a command.
var offenderTag = regexp.MustCompile(`(?i)<(?:ip|f-ip\w*|ip_value|adr|addr)>`)

// commands splits the text of an action at line ends and between commands of a
// shell.
var commandEnds = regexp.MustCompile(`\n|;|&&|\|\|?`)

// guessEffect reads an action's commands: iptables and nft with the offender's
// address, and sets of ipset and nft that a rule refers to.
func guessEffect(start, ban string) actionEffect {
	all := commandEnds.Split(start+"\n"+ban, -1)
	out := actionEffect{}
	for _, command := range commandEnds.Split(ban, -1) {
		if !offenderTag.MatchString(command) {
			continue
		}
		verdict, rule := verdictOf(command), command
		if set := setOf(command); verdict == "" && set != "" {
			for _, other := range all {
				if v := verdictOf(other); v != "" && refersTo(other, set) {
					verdict, rule = v, other
					break
				}
			}
		}
		switch {
		case slices.Contains(lettingVerdicts, verdict):
			return actionEffect{kind: effectLets, guessed: strings.TrimSpace(rule)}
		case slices.Contains(blockingVerdicts, verdict):
			out = actionEffect{kind: effectBans, guessed: strings.TrimSpace(rule), action: portsOf(rule, all)}
		}
	}
	return out
}

// Forms of commands. An option of iptables may stand with "=" or a blank.
var (
	jumpTo     = regexp.MustCompile(`(?:\s-j|\s--jump|\s-g|\s--goto)[\s=]+([A-Za-z][\w-]*)`)
	nftRule    = regexp.MustCompile(`(?i)\bnft\b.*\brule\b.*\b(drop|reject|accept|return)\b`)
	routeVerb  = regexp.MustCompile(`(?i)\b(?:ip(?:\s+-\S+)*\s+route|route)\s+add\b.*\b(blackhole|unreachable|prohibit|throw|reject)\b`)
	ufwVerb    = regexp.MustCompile(`(?i)\bufw\b.*\b(deny|reject|allow)\b`)
	firewalld  = regexp.MustCompile(`(?i)\bfirewall-cmd\b.*\b(drop|reject|accept)\b`)
	ipsetAdd   = regexp.MustCompile(`\bipset\b.*\s(?:add|-A|--add)\s+(\S+)`)
	nftElement = regexp.MustCompile(`\bnft\b.*\belement\b\s+(?:\S+\s+)*?(\S+)\s*\\?\{`)
	portOption = regexp.MustCompile(`(?:--d(?:estination-)?ports?[\s=]+|\bdport\s+)(\{[^}]*\}|[\w,:\-]+)`)
	protocol   = regexp.MustCompile(`(?:-p|--protocol)[\s=]+([a-z]+)|\b(tcp|udp)\s+dport\b`)
)

// verdictOf gives a command's verdict in lower case, "" where it has none.
func verdictOf(command string) string {
	if strings.Contains(command, "iptables") || strings.Contains(command, "ip6tables") {
		for _, m := range jumpTo.FindAllStringSubmatch(command, -1) {
			return strings.ToLower(m[1])
		}
		return ""
	}
	for _, form := range []*regexp.Regexp{nftRule, routeVerb, ufwVerb, firewalld} {
		if m := form.FindStringSubmatch(command); m != nil {
			return strings.ToLower(m[1])
		}
	}
	return ""
}

// setOf gives the set that a command adds the offender to, "" for none.
func setOf(command string) string {
	for _, form := range []*regexp.Regexp{ipsetAdd, nftElement} {
		if m := form.FindStringSubmatch(command); m != nil {
			return m[1]
		}
	}
	return ""
}

// refersTo says that a rule asks whether an address is in the set.
func refersTo(rule, set string) bool {
	words := strings.Fields(strings.NewReplacer("=", " ", `\`, "").Replace(rule))
	return slices.Contains(words, "@"+set) || slices.Contains(words, "--match-set") && slices.Contains(words, set)
}

// portsOf gives the ports that a rule closes, or that the rule names which leads to its
// chain; all where none does.
func portsOf(rule string, all []string) firewall.Banaction {
	ports := portOption.FindStringSubmatch(rule)
	if ports == nil && strings.Contains(rule, "iptables") {
		// The rule stands in a chain of the action's own.
		if m := regexp.MustCompile(`\s(?:-I|-A|--insert|--append)\s+(\S+)`).FindStringSubmatch(rule); m != nil {
			for _, other := range all {
				if to := jumpTo.FindStringSubmatch(other); to != nil && to[1] == m[1] && portOption.MatchString(other) {
					rule, ports = other, portOption.FindStringSubmatch(other)
					break
				}
			}
		}
	}
	if ports == nil {
		return firewall.Banaction{AllPorts: true}
	}
	b := firewall.Banaction{Port: strings.Trim(strings.ReplaceAll(ports[1], " ", ""), "{}"), Protocol: "all"}
	if m := protocol.FindStringSubmatch(rule); m != nil {
		b.Protocol = m[1] + m[2]
	}
	return b
}
