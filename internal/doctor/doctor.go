// Package doctor looks for faults of a node and names the command that mends
// each: facts of the machine, the configuration and the running agent, gathered
// once, and a judgement that is a plain function of them.
package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/neverban"
	"banmesh/internal/printable"
	"banmesh/internal/span"
)

// A Finding is one thing that `agent doctor` looked at.
type Finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"` // nothing is wrong, though there may be something to know
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"` // a command, or a line and its file
	// Warned says that a warning of the agent's status tells it too.
	Warned bool `json:"-"`
}

// Level is how much of a fault a finding is.
type Level string

// The levels of a [Finding].
const (
	LevelOK    Level = "ok"
	LevelNote  Level = "note" // somebody should know, and nothing need be done
	LevelWrong Level = "wrong"
)

// rank puts faults before notes, and notes before checks that passed.
func (l Level) rank() int { return slices.Index([]Level{LevelWrong, LevelNote, LevelOK}, l) }

// configuredOff begins the reason of an agent that enforces nothing because its
// configuration says so.
const configuredOff = "firewall.mode is "

// compat names programs of others that enforce less than they are told.
func (e *Facts) compat(add func(check string, l Level, fix, format string, args ...any)) {
	for _, x := range e.Status.Compat {
		for _, c := range x.Clients {
			if c.Warning != "" {
				add("bouncer", LevelNote, "use the firewall bouncer's ipset mode, or Traefik's live mode: docs/compat/crowdsec-bouncers.md", "%s (%s) %s", printable.Text(c.Name), printable.Text(c.Kind), c.Warning)
			}
		}
	}
}

// Diagnose judges the facts, faults first. admin is the address from where whoever asks
// is logged in, or invalid.
func Diagnose(e Facts, admin netip.Addr) []Finding {
	list := e.judge(admin)
	slices.SortStableFunc(list, func(a, b Finding) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
	return list
}

// judge judges the facts in the order in which a person would look at them.
func (e Facts) judge(admin netip.Addr) (list []Finding) {
	add := func(check string, l Level, fix, format string, args ...any) {
		if l == LevelOK {
			fix = ""
		}
		list = append(list, Finding{Check: check, OK: l != LevelWrong, Level: l, Text: fmt.Sprintf(format, args...), Fix: fix})
	}
	warned := func() { list[len(list)-1].Warned = true }
	note := func(check string, ok bool, fix, format string, args ...any) {
		if add(check, LevelWrong, fix, format, args...); ok {
			last := &list[len(list)-1]
			last.OK, last.Level, last.Fix = true, LevelOK, ""
		}
	}
	if e.Settings != nil {
		text, _, _ := strings.Cut(e.Settings.Error(), "\n")
		note("config", false, "agent check", "%s", text)
	} else {
		note("config", true, "", "the configuration is valid")
	}
	list = append(list, e.Withheld...)
	e.imports(add)
	for _, o := range e.Editions {
		add("topic", LevelNote, fmt.Sprintf("agent topics diff %s --from %s, then agent topics install", o.Topic, o.By), "a newer edition of %s is offered by %s; the installed one stays in use", o.Topic, printable.Text(o.By))
	}
	if e.Clock.Known {
		if e.Clock.Synchronised {
			note("clock", true, "", "the clock is synchronised")
		} else {
			note("clock", false, "timedatectl set-ntp true", "the kernel says that nobody synchronises the clock; feeds of peers look stale or from the future when it drifts")
		}
	}
	if e.Running != nil {
		note("agent", false, mendOfSilence(e.Running), "%v", e.Running)
		return list
	}
	e.compat(add)
	s := e.Status
	note("agent", true, "", "running for %s, version %s", span.Short(e.Now.Sub(s.Started)), s.Version)
	switch {
	case s.Enforcement != "observe" && s.Enforcement != "off":
		note("firewall", true, "", "bans are enforced with %s; %d in force", s.Enforcement, s.Bans)
	case strings.HasPrefix(s.Reason, configuredOff):
		// A person chose so: on an application's host that enforces at a proxy, this is how it should be.
		add("firewall", LevelNote, `mode = "enforce" in [firewall] of agent.toml, if bans are to act here`, "bans are not enforced here: %s", s.Reason)
	default:
		fix := "agent firewall check"
		for _, w := range s.Warnings {
			if w.Code == "not-enforcing" {
				fix = w.Fix
			}
		}
		note("firewall", false, fix, "bans are not enforced (%s): %s", s.Enforcement, s.Reason)
		warned()
	}
	e.firewall(note)
	for _, r := range e.Boot {
		note("boot", !r.Fails, r.Fix, "%s", r.Text)
	}
	for _, w := range s.Warnings {
		l := LevelWrong
		switch {
		case w.Code == "not-enforcing" || w.Code == "no-broker" || w.Code == "messages" && strings.HasPrefix(w.Fix, "agent notify test"):
			continue // each has a finding of its own here
		case w.Severity == control.SeverityLow:
			l = LevelNote
		}
		add(w.Code, l, w.Fix, "%s", w.Text)
		warned()
	}
	e.logs(add)
	e.receivers(add)
	e.reachable(admin, note)
	for _, b := range s.Brokers {
		if b.Connected {
			note("broker", true, "", "%s is connected", b.URL)
		} else {
			note("broker", false, cmp.Or(b.Advice, "agent status; the broker's log"), "%s is not connected: %s", b.URL, cmp.Or(b.Error, "no reason is known"))
			list[len(list)-1].Warned = !slices.ContainsFunc(s.Brokers, func(b control.BrokerStatus) bool { return b.Connected })
		}
	}
	for _, x := range s.Lists {
		if x.Held == nil && x.Fault == "" && x.Ends.After(e.Now) { // else it is a warning of the agent's
			note("list", true, "", "%s counts with %s, confirmed %s ago; %d refused", x.Name, entries(x.Entries), span.Short(e.Now.Sub(x.Confirmed)), x.Junk+x.Wide+x.Never)
		}
	}
	for _, x := range s.Vallumd {
		if x.Connected { // else it is a warning of the agent's
			note("vallumd", true, "", "%s is connected", printable.Text(x.Name))
		}
	}
	subscribes := false
	for _, t := range s.Topics {
		subscribes = subscribes || t.Subscribe
		if t.Subscribe && t.Policy == "" {
			note("policy", false, "agent peers add NAME ID", "%s is accepted, but nobody is trusted in it", t.Topic)
		}
		if (t.Subscribe || t.Publish) && len(s.Brokers) == 0 {
			note("broker", false, "agent network join INVITATION, or [[brokers]] in agent.toml", "%s is shared or accepted, but no broker is configured", t.Topic)
		}
	}
	for _, x := range e.Peers {
		switch {
		case x.Quarantine != nil: // a warning of the agent's
		case x.Strikes > 0:
			note("peer", false, "agent peers show "+x.Name, "%s claimed what must never be banned, %d times within a day", x.Name, x.Strikes)
		case subscribes && x.Feeds == 0 && !e.heard(x.Name):
			note("peer", false, "agent feeds; ask "+x.Name+" whether its node publishes", "nothing is heard of %s", x.Name)
		}
	}
	e.freshness(note)
	return list
}

func entries(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

// heard says whether any feed of a peer has arrived; one without bans is no
// claim of anybody.
func (e Facts) heard(name string) bool {
	return slices.ContainsFunc(e.Feeds, func(f control.Feed) bool {
		return !f.Own && f.Name == name && f.Status != federation.StatusUnseen
	})
}

// firewall judges the table: is it there, and before everybody else's.
func (e Facts) firewall(note func(string, bool, string, string, ...any)) {
	switch t := e.Table; {
	case !t.Known:
	case t.Off:
		note("table", false, "agent firewall resume", "enforcement was switched off by hand")
	case !t.Present:
		note("table", false, "agent status; agent reload", "the table is not in the kernel, though the agent enforces")
	case len(t.Ahead) > 0:
		note("table", false, "agent firewall check", "chain %s of table %s %s sees packets before ours", t.Ahead[0].Chain, t.Ahead[0].Family, t.Ahead[0].Table)
	default:
		note("table", true, "", "the table is in place, and before every other chain")
	}
}

// freshness says that the feeds that are read are fresh; the fault of one
// is a warning of the agent's.
func (e Facts) freshness(note func(string, bool, string, string, ...any)) {
	read, fresh := 0, 0
	for _, f := range e.Feeds {
		if !f.Own {
			read++
		}
		if f.Status == federation.StatusSynced {
			fresh++
		}
	}
	if read > 0 && fresh == read {
		note("feed", true, "", "all %s that are read are fresh", count(read, "feed"))
	}
}

// mendOfSilence is the mend where the agent does not answer this user.
func mendOfSilence(err error) string {
	if errors.Is(err, control.ErrPermission) {
		return "sudo agent doctor, or join the group that owns the socket: it answers others than you"
	}
	return "systemctl start banmesh-agent, or agent run; journalctl -u banmesh-agent -n 20 says why it stopped"
}

// reachable judges whether whoever asks could be locked out.
func (e Facts) reachable(admin netip.Addr, note func(string, bool, string, string, ...any)) {
	e.Never = slices.DeleteFunc(slices.Clone(e.Never), func(x control.NeverBan) bool { return x.Source == string(neverban.SourceCaution) })
	if len(e.Never) == 0 {
		note("never-ban", false, "agent reload", "the never-ban list is empty: not even this machine's gateway is on it")
		return
	}
	if !admin.IsValid() {
		note("never-ban", true, "", "%d entries found by themselves", len(e.Never))
		return
	}
	var entries []neverban.Entry
	for _, x := range e.Never {
		entries = append(entries, neverban.Entry{Prefix: x.Prefix, Source: neverban.Source(x.Source), Reason: x.Reason, Until: x.Until})
	}
	entry, ok := neverban.NewSet(entries).Overlaps(netip.PrefixFrom(admin, admin.BitLen()))
	for _, x := range e.Exempt {
		if target, err := ban.TargetOfAddr(admin); err == nil && x.Allow && x.Target == target {
			ok, entry = true, neverban.Entry{Prefix: netip.PrefixFrom(admin, admin.BitLen()), Source: neverban.SourceManual, Reason: x.Comment}
		}
	}
	if ok {
		note("never-ban", true, "", "you are logged in from %s, which nobody can ban: %s", admin, entry)
	} else {
		note("never-ban", false, fmt.Sprintf("agent allow add %s --comment \"my own address\"", admin), "you are logged in from %s, and a ban of it could lock you out", admin)
	}
}
