package settings

import (
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
	case !a.Own && name == "hostsdeny", name == "banmesh":
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

// guessEffect reads an action's commands: rules with the offender's address, and sets
// that get it and that a rule of the same action asks. Only a command that is wholly understood is a ban.
func guessEffect(start, ban string) actionEffect {
	rules := rulesOf(start + "\n" + ban)
	var blocking []packetRule
	for _, r := range rulesOf(ban) {
		switch {
		case r.source == offender:
			if r.lets() {
				return actionEffect{kind: effectLets, guessed: r.text}
			}
			if r.bans() {
				blocking = append(blocking, r)
			}
		case r.entersSet != "":
			for _, other := range rules {
				if other.source != r.entersSet {
					continue
				}
				if other.removes = r.removes; other.lets() { // who leaves a set of the banned is let through
					return actionEffect{kind: effectLets, guessed: other.text}
				}
				if other.bans() {
					blocking = append(blocking, other)
				}
			}
		}
	}
	if len(blocking) == 0 {
		return actionEffect{}
	}
	return actionEffect{kind: effectBans, guessed: blocking[0].text, action: portsOf(blocking, rules)}
}

// portsOf gives the ports that rules close, or that those rules name which lead to
// their chains; all where one names none.
func portsOf(blocking, all []packetRule) firewall.Banaction {
	var ports, protocols []string
	add := func(r packetRule) {
		if !slices.Contains(ports, r.ports) {
			ports = append(ports, r.ports)
		}
		if !slices.Contains(protocols, r.protocol) {
			protocols = append(protocols, r.protocol)
		}
	}
	for _, r := range blocking {
		led := r.ports != ""
		if led {
			add(r)
		}
		for _, other := range all {
			if r.ports == "" && other.ports != "" && r.chain != "" && other.verdict == strings.ToLower(r.chain) && !other.narrowed {
				add(other)
				led = true
			}
		}
		if !led {
			return firewall.Banaction{AllPorts: true}
		}
	}
	b := firewall.Banaction{Port: strings.Join(ports, ","), Protocol: "all"}
	if len(protocols) == 1 && protocols[0] != "" {
		b.Protocol = protocols[0]
	}
	return b
}
