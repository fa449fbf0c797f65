package settings

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"banmesh/internal/detect"
	"banmesh/internal/firewall"
	"banmesh/topics"
)

// A jailMeaning is the effect of a jail's actions together.
type jailMeaning struct {
	bans    bool
	enforce topics.Enforce
	// lets names an action that lets offenders through, "" for none.
	lets string
	// why says, where nobody is banned, the actions' effect instead.
	why      string
	warnings []detect.JailWarning
}

// meaningOf looks at the effect of each of a jail's actions. Those of fail2ban's
// packet filters are known by name, others by the commands that they run; an action
// whose effect is not known bans nobody.
func meaningOf(j *detect.Imported) (m jailMeaning) {
	warn := func(format string, args ...any) {
		m.warnings = append(m.warnings, detect.JailWarning{Place: j.Place, Text: fmt.Sprintf(format, args...)})
	}
	var others []string
	var scopes []firewall.Scope
	for _, a := range j.Actions {
		e := effectOf(a)
		switch e.kind {
		case effectLets:
			m.lets = "action " + a.Name
			return m
		case effectBans:
			if e.guessed != "" {
				warn("action %s is taken for a ban, by its command: %s", a.Name, e.guessed)
			}
			if chain := a.Options["chain"]; chain != "" && !slices.Contains(usualChains, chain) {
				warn("chain %s: bans are looked at before any chain, also for containers and forwarded traffic", chain)
			}
			scope, err := e.action.Scope(context.Background(), j.Definition.Name, j.Port, j.Protocol)
			if err != nil {
				at := j.Place
				if e.action.Port == "" || e.action.Port == j.Port {
					at = j.PortPlace
				}
				m.warnings = append(m.warnings, detect.JailWarning{Place: at, Text: fmt.Sprintf("%v: all ports are closed instead", err)})
				scope = firewall.Scope{Topic: j.Definition.Name}
			}
			m.bans = true
			scopes = append(scopes, scope)
		case effectTells:
			others = append(others, fmt.Sprintf("action %s only tells somebody", a.Name))
			warn("action %s is not carried over: it only tells somebody", a.Name)
		case effectElsewhere:
			others = append(others, fmt.Sprintf("action %s bans in another program", a.Name))
			warn("action %s is not carried over: it bans in another program, not in this machine's packet filter", a.Name)
		default:
			why := fmt.Sprintf("the effect of action %s is not known", a.Name)
			switch {
			case a.Missing:
				why = fmt.Sprintf("there is no action %s", a.Name)
			case a.Fault != nil:
				why = fmt.Sprintf("action %s cannot be read: %v", a.Name, a.Fault)
			}
			others = append(others, why)
			warn("action %s is not carried over: %s", a.Name, why)
		}
	}
	m.enforce = enforceOf(scopes)
	if m.why = strings.Join(others, ", "); m.why == "" {
		m.why = "it has no action"
	}
	if !m.bans {
		m.warnings = nil // why says it
	}
	return m
}

// usualChains are those of packets to this machine.
var usualChains = []string{"INPUT", "input", "<known/chain>", "f2b-chain"}

// enforceOf joins the ports of several actions.
func enforceOf(scopes []firewall.Scope) (e topics.Enforce) {
	var ports []uint16
	for _, s := range scopes {
		e.AllPorts = e.AllPorts || len(s.Ports) == 0
		ports = append(ports, s.Ports...)
		for _, p := range s.Protocols {
			if !slices.Contains(e.Protocols, p) {
				e.Protocols = append(e.Protocols, p)
			}
		}
	}
	slices.Sort(ports)
	if e.Ports = ranges(slices.Compact(ports)); e.AllPorts {
		e.Ports, e.Protocols = nil, nil
	}
	return e
}

// jailPorts gives the ports that the jail's own variables name, all where they name
// none, or where fault says why they cannot be read.
func jailPorts(j *detect.Imported) (e topics.Enforce, fault string) {
	scope, err := firewall.Banaction{AllPorts: strings.TrimSpace(j.Port) == ""}.Scope(context.Background(), j.Definition.Name, j.Port, j.Protocol)
	if err != nil {
		scope, fault = firewall.Scope{}, fmt.Sprintf("%v: all ports are closed instead", err)
	}
	return enforceOf([]firewall.Scope{scope}), fault
}
