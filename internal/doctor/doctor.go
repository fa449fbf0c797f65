// Package doctor looks for faults of a node and names the command that mends
// each: facts of the machine, the configuration and the running agent, gathered
// once, and a judgement that is a plain function of them.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/enforcers"
	"banmesh/internal/neverban"
	"banmesh/internal/printable"
	"banmesh/internal/settings"
	"banmesh/internal/span"
)

// A Finding is one thing that `agent doctor` looked at.
type Finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"` // nothing is wrong, though there may be something to know
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"` // a command, or a line and its file
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

// Facts are everything that the checks judge: facts, gathered before, so
// that the checks are plain functions of them.
type Facts struct {
	Now      time.Time
	Settings error          // the configuration's faults
	Withheld []Finding      // the parts of it that the service may not read
	Running  error          // why nobody answers
	Status   control.Status // of the running agent
	Peers    []control.Peer
	Never    []control.NeverBan
	Exempt   []control.Exemption
	Feeds    []control.Feed
	Table    TableState
	Boot     []firewall.Restorer // who loads saved rules at boot
	Moved    []MovedJail         // imported jails that are other ones now
	Editions []Edition           // definitions of which an earlier edition is installed
	Admin    netip.Addr          // from where whoever asks is logged in, or invalid
	Clock    ClockState
}

// TableState is the kernel's answer about our table; Known is false where this
// user may not ask, or something else than nftables enforces.
type TableState struct {
	Known, Present, Off bool
	Ahead               []firewall.Neighbour // chains of others that see packets before ours
}

// ClockState is the kernel's answer about its clock.
type ClockState struct {
	Known, Synchronised bool
}

// An Edition is a topic definition that is offered in a newer edition than the
// installed one.
type Edition struct {
	Topic ban.Topic
	By    string // an operator's name here; "shipped"
}

// Options say where the facts of [Examine] are.
type Options struct {
	Config string // the configuration directory
	Client *control.Client
	// Enforcer gives the configured enforcer with its setup.
	Enforcer func() (firewall.Enforcer, firewall.Setup)
	// Editions lists newer editions of installed definitions; may be nil.
	Editions func(context.Context) []Edition
	// Admin is the address from where whoever asks is logged in, or invalid.
	Admin netip.Addr
}

// Examine gathers the facts and judges them, faults first.
func Examine(ctx context.Context, o Options) []Finding {
	list := Diagnose(examine(ctx, o))
	slices.SortStableFunc(list, func(a, b Finding) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
	return list
}

// examine gathers the facts. Facts that cannot be had are left empty.
func examine(ctx context.Context, o Options) Facts {
	e := Facts{Now: time.Now(), Clock: kernelClock(), Admin: o.Admin}
	var set *settings.Settings
	if set, e.Settings = settings.Load(o.Config); e.Settings == nil {
		e.Withheld = Withheld(set.Reads())
	}
	e.Moved = movedJails(o.Config)
	if o.Editions != nil {
		e.Editions = o.Editions(ctx)
	}
	if e.Running = o.Client.Get(ctx, "/v1/status", nil, &e.Status); e.Running != nil {
		return e
	}
	for path, into := range map[string]any{"/v1/peers": &e.Peers, "/v1/never-ban": &e.Never, "/v1/allow": &e.Exempt, "/v1/feeds": &e.Feeds} {
		if err := o.Client.Get(ctx, path, nil, into); err != nil {
			e.Running = errors.Join(e.Running, err)
		}
	}
	chosen, setup := o.Enforcer()
	if chosen.Name() == e.Status.Enforcement {
		e.Table = kernelTable(ctx, chosen)
	}
	e.Boot = enforcers.Restorers(chosen, setup)
	return e
}

func kernelTable(ctx context.Context, chosen firewall.Enforcer) (t TableState) {
	s, err := chosen.Inspect(ctx, nil)
	if err != nil {
		return t
	}
	chains, err := chosen.Neighbours()
	if err != nil {
		return t
	}
	t = TableState{Known: true, Present: s.Present, Off: s.Off}
	ours := slices.IndexFunc(chains, func(n firewall.Neighbour) bool { return n.Ours && n.Hook == "prerouting" })
	for i, n := range chains {
		if ours >= 0 && i < ours && n.Hook == "prerouting" {
			t.Ahead = append(t.Ahead, n)
		}
	}
	return t
}

// LoggedInFrom reads the client's address out of sshd's SSH_CONNECTION.
func LoggedInFrom(s string) netip.Addr {
	first, _, _ := strings.Cut(s, " ")
	a, err := netip.ParseAddr(first)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

func kernelClock() ClockState {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return ClockState{}
	}
	return ClockState{Known: true, Synchronised: t.Status&unix.STA_UNSYNC == 0}
}

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

// Diagnose judges the facts, most important first.
func Diagnose(e Facts) (list []Finding) {
	add := func(check string, l Level, fix, format string, args ...any) {
		if l == LevelOK {
			fix = ""
		}
		list = append(list, Finding{check, l != LevelWrong, l, fmt.Sprintf(format, args...), fix})
	}
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
		note("firewall", false, "run the agent as root or with CAP_NET_ADMIN; agent firewall check", "bans are not enforced (%s): %s", s.Enforcement, s.Reason)
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
	}
	e.logs(add)
	e.receivers(add)
	e.reachable(note)
	for _, b := range s.Brokers {
		if b.Connected {
			note("broker", true, "", "%s is connected", b.URL)
		} else {
			note("broker", false, cmp.Or(b.Advice, "agent status; the broker's log"), "%s is not connected: %s", b.URL, cmp.Or(b.Error, "no reason is known"))
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
func (e Facts) reachable(note func(string, bool, string, string, ...any)) {
	e.Never = slices.DeleteFunc(slices.Clone(e.Never), func(x control.NeverBan) bool { return x.Source == string(neverban.SourceCaution) })
	if len(e.Never) == 0 {
		note("never-ban", false, "agent reload", "the never-ban list is empty: not even this machine's gateway is on it")
		return
	}
	if !e.Admin.IsValid() {
		note("never-ban", true, "", "%d entries found by themselves", len(e.Never))
		return
	}
	var entries []neverban.Entry
	for _, x := range e.Never {
		entries = append(entries, neverban.Entry{Prefix: x.Prefix, Source: neverban.Source(x.Source), Reason: x.Reason, Until: x.Until})
	}
	entry, ok := neverban.NewSet(entries).Overlaps(netip.PrefixFrom(e.Admin, e.Admin.BitLen()))
	for _, x := range e.Exempt {
		if target, err := ban.TargetOfAddr(e.Admin); err == nil && x.Allow && x.Target == target {
			ok, entry = true, neverban.Entry{Prefix: netip.PrefixFrom(e.Admin, e.Admin.BitLen()), Source: neverban.SourceManual, Reason: x.Comment}
		}
	}
	if ok {
		note("never-ban", true, "", "you are logged in from %s, which nobody can ban: %s", e.Admin, entry)
	} else {
		note("never-ban", false, fmt.Sprintf("agent allow add %s --comment \"my own address\"", e.Admin), "you are logged in from %s, and a ban of it could lock you out", e.Admin)
	}
}
