package commands

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/enforcers"
	"banmesh/internal/neverban"
	"banmesh/internal/settings"
)

// finding is one thing that `agent doctor` looked at.
type finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"` // nothing is wrong, though there may be something to know
	Level level  `json:"level"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"` // a command, or a line and its file
}

// level is how much of a fault a finding is.
type level string

const (
	levelOK    level = "ok"
	levelNote  level = "note" // somebody should know, and nothing need be done
	levelWrong level = "wrong"
)

// rank puts faults before notes, and notes before checks that passed.
func (l level) rank() int { return slices.Index([]level{levelWrong, levelNote, levelOK}, l) }

// examined is everything that the checks judge: facts, gathered before, so
// that the checks are plain functions of them.
type examined struct {
	now      time.Time
	settings error          // the configuration's faults
	withheld []finding      // the parts of it that the service may not read
	running  error          // why nobody answers
	status   control.Status // of the running agent
	peers    []control.Peer
	never    []control.NeverBan
	exempt   []control.Exemption
	feeds    []control.Feed
	table    tableState
	boot     []firewall.Restorer // who loads saved rules at boot
	moved    []movedJail         // imported jails that are other ones now
	editions []offered           // definitions of which an earlier edition is installed
	admin    netip.Addr          // from where whoever asks is logged in, or invalid
	clock    clockState
}

// tableState is the kernel's answer about our table; known is false where this
// user may not ask, or something else than nftables enforces.
type tableState struct {
	known, present, off bool
	ahead               []firewall.Neighbour // chains of others that see packets before ours
}

// clockState is the kernel's answer about its clock.
type clockState struct {
	known, synchronised bool
}

func newDoctorCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "doctor",
		Short:   "Look for what is wrong with this node, and name the command that mends it",
		Example: "  agent doctor",
		Long: `Look at the configuration, the running agent, its logs and filters, the firewall, the clock, brokers and peers, and
whether the address from which you are logged in is safe from bans. It changes nothing.
` + "\nExit codes: 0 all well, 1 error, 2 wrong usage, 3 something is wrong",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list := diagnose(examine(c, p))
			slices.SortStableFunc(list, func(a, b finding) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
			bad := 0
			for _, f := range list {
				if !f.OK {
					bad++
				}
			}
			if asJSON {
				if err := cli.JSON(c.OutOrStdout(), list); err != nil {
					return err
				}
			} else {
				wide := 0
				for _, f := range list {
					wide = max(wide, len(f.Check))
				}
				printFindings(c.OutOrStdout(), list, wide)
			}
			if bad > 0 {
				return &cli.Error{Err: fmt.Errorf("%s wrong", things(bad)), Code: cli.ExitPartly}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printFindings prints a line each, with its command below. A command stays
// whole, so that it can be copied.
func printFindings(w io.Writer, list []finding, wide int) {
	for _, f := range list {
		mark := map[level]string{
			levelOK: cli.Paint(w, cli.Good, "ok") + "   ", levelNote: cli.Paint(w, cli.Doubt, "note") + " ", levelWrong: cli.Paint(w, cli.Bad, "WRONG"),
		}[f.Level]
		indent := strings.Repeat(" ", 9+wide)
		fmt.Fprintf(w, "%s  %-*s  %s\n", mark, wide, f.Check, cli.Wrap(w, len(indent), indent, cli.Printable(f.Text)))
		if f.Fix != "" {
			fmt.Fprintf(w, "       fix: %s\n", cli.Printable(f.Fix))
		}
	}
}

func things(n int) string {
	if n == 1 {
		return "1 thing is"
	}
	return fmt.Sprintf("%d things are", n)
}

// examine gathers the facts. Facts that cannot be had are left empty.
func examine(c *cobra.Command, p *paths) examined {
	e := examined{now: time.Now(), clock: kernelClock(), admin: loggedInFrom(os.Getenv("SSH_CONNECTION"))}
	var set *settings.Settings
	if set, e.settings = settings.Load(p.config); e.settings == nil {
		if who, ok := theService(); ok {
			e.withheld = who.withheld(set.Reads())
		}
	}
	e.moved, e.editions = movedJails(p.config), newerEditions(c, p)
	client := p.client()
	if e.running = client.Get(c.Context(), "/v1/status", nil, &e.status); e.running != nil {
		return e
	}
	for path, into := range map[string]any{"/v1/peers": &e.peers, "/v1/never-ban": &e.never, "/v1/allow": &e.exempt, "/v1/feeds": &e.feeds} {
		if err := client.Get(c.Context(), path, nil, into); err != nil {
			e.running = errors.Join(e.running, err)
		}
	}
	chosen, setup := p.chosen()
	if chosen.Name() == e.status.Enforcement {
		e.table = kernelTable(c.Context(), chosen)
	}
	e.boot = enforcers.Restorers(chosen, setup)
	return e
}

func kernelTable(ctx context.Context, chosen firewall.Enforcer) (t tableState) {
	s, err := chosen.Inspect(ctx, nil)
	if err != nil {
		return t
	}
	chains, err := chosen.Neighbours()
	if err != nil {
		return t
	}
	t = tableState{known: true, present: s.Present, off: s.Off}
	ours := slices.IndexFunc(chains, func(n firewall.Neighbour) bool { return n.Ours && n.Hook == "prerouting" })
	for i, n := range chains {
		if ours >= 0 && i < ours && n.Hook == "prerouting" {
			t.ahead = append(t.ahead, n)
		}
	}
	return t
}

// loggedInFrom reads the client's address out of sshd's SSH_CONNECTION.
func loggedInFrom(s string) netip.Addr {
	first, _, _ := strings.Cut(s, " ")
	a, err := netip.ParseAddr(first)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

func kernelClock() clockState {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return clockState{}
	}
	return clockState{known: true, synchronised: t.Status&unix.STA_UNSYNC == 0}
}

// configuredOff begins the reason of an agent that enforces nothing because its
// configuration says so.
const configuredOff = "firewall.mode is "

// compat names programs of others that enforce less than they are told.
func (e *examined) compat(add func(check string, l level, fix, format string, args ...any)) {
	for _, x := range e.status.Compat {
		for _, c := range x.Clients {
			if c.Warning != "" {
				add("bouncer", levelNote, "use the firewall bouncer's ipset mode, or Traefik's live mode: docs/compat/crowdsec-bouncers.md", "%s (%s) %s", cli.Printable(c.Name), cli.Printable(c.Kind), c.Warning)
			}
		}
	}
}

// diagnose judges the facts, most important first.
func diagnose(e examined) (list []finding) {
	add := func(check string, l level, fix, format string, args ...any) {
		if l == levelOK {
			fix = ""
		}
		list = append(list, finding{check, l != levelWrong, l, fmt.Sprintf(format, args...), fix})
	}
	note := func(check string, ok bool, fix, format string, args ...any) {
		if add(check, levelWrong, fix, format, args...); ok {
			last := &list[len(list)-1]
			last.OK, last.Level, last.Fix = true, levelOK, ""
		}
	}
	if e.settings != nil {
		text, _, _ := strings.Cut(e.settings.Error(), "\n")
		note("config", false, "agent check", "%s", text)
	} else {
		note("config", true, "", "the configuration is valid")
	}
	list = append(list, e.withheld...)
	e.imports(add)
	for _, o := range e.editions {
		add("topic", levelNote, fmt.Sprintf("agent topics diff %s --from %s, then agent topics install", o.Topic, o.By), "a newer edition of %s is offered by %s; the installed one stays in use", o.Topic, cli.Printable(o.By))
	}
	if e.clock.known {
		if e.clock.synchronised {
			note("clock", true, "", "the clock is synchronised")
		} else {
			note("clock", false, "timedatectl set-ntp true", "the kernel says that nobody synchronises the clock; feeds of peers look stale or from the future when it drifts")
		}
	}
	if e.running != nil {
		note("agent", false, mendOfSilence(e.running), "%v", e.running)
		return list
	}
	e.compat(add)
	s := e.status
	note("agent", true, "", "running for %s, version %s", cli.Short(e.now.Sub(s.Started)), s.Version)
	switch {
	case s.Enforcement != "observe" && s.Enforcement != "off":
		note("firewall", true, "", "bans are enforced with %s; %d in force", s.Enforcement, s.Bans)
	case strings.HasPrefix(s.Reason, configuredOff):
		// A person chose so: on an application's host that enforces at a proxy, this is how it should be.
		add("firewall", levelNote, `mode = "enforce" in [firewall] of agent.toml, if bans are to act here`, "bans are not enforced here: %s", s.Reason)
	default:
		note("firewall", false, "run the agent as root or with CAP_NET_ADMIN; agent firewall check", "bans are not enforced (%s): %s", s.Enforcement, s.Reason)
	}
	e.firewall(note)
	for _, r := range e.boot {
		note("boot", !r.Fails, r.Fix, "%s", r.Text)
	}
	for _, w := range s.Warnings {
		l := levelWrong
		switch {
		case w.Code == "not-enforcing" || w.Code == "no-broker":
			continue // each has a finding of its own here
		case w.Severity == control.SeverityLow:
			l = levelNote
		}
		add(w.Code, l, w.Fix, "%s", w.Text)
	}
	e.logs(add)
	e.reachable(note)
	for _, b := range s.Brokers {
		if b.Connected {
			note("broker", true, "", "%s is connected", b.URL)
		} else {
			note("broker", false, cmp.Or(b.Advice, "agent status; the broker's log"), "%s is not connected: %s", b.URL, cmp.Or(b.Error, "no reason is known"))
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
	for _, x := range e.peers {
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

// heard says whether any feed of a peer has arrived; one without bans is no
// claim of anybody.
func (e examined) heard(name string) bool {
	return slices.ContainsFunc(e.feeds, func(f control.Feed) bool {
		return !f.Own && f.Name == name && f.Status != federation.StatusUnseen
	})
}

// firewall judges the table: is it there, and before everybody else's.
func (e examined) firewall(note func(string, bool, string, string, ...any)) {
	switch t := e.table; {
	case !t.known:
	case t.off:
		note("table", false, "agent firewall resume", "enforcement was switched off by hand")
	case !t.present:
		note("table", false, "agent status; agent reload", "the table is not in the kernel, though the agent enforces")
	case len(t.ahead) > 0:
		note("table", false, "agent firewall check", "chain %s of table %s %s sees packets before ours", t.ahead[0].Chain, t.ahead[0].Family, t.ahead[0].Table)
	default:
		note("table", true, "", "the table is in place, and before every other chain")
	}
}

// freshness says that the feeds that are read are fresh; the fault of one
// is a warning of the agent's.
func (e examined) freshness(note func(string, bool, string, string, ...any)) {
	read, fresh := 0, 0
	for _, f := range e.feeds {
		if !f.Own {
			read++
		}
		if f.Status == federation.StatusSynced {
			fresh++
		}
	}
	if read > 0 && fresh == read {
		note("feed", true, "", "all %s that are read are fresh", plural(read, "feed"))
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
func (e examined) reachable(note func(string, bool, string, string, ...any)) {
	e.never = slices.DeleteFunc(slices.Clone(e.never), func(x control.NeverBan) bool { return x.Source == string(neverban.SourceCaution) })
	if len(e.never) == 0 {
		note("never-ban", false, "agent reload", "the never-ban list is empty: not even this machine's gateway is on it")
		return
	}
	if !e.admin.IsValid() {
		note("never-ban", true, "", "%d entries found by themselves", len(e.never))
		return
	}
	var entries []neverban.Entry
	for _, x := range e.never {
		entries = append(entries, neverban.Entry{Prefix: x.Prefix, Source: neverban.Source(x.Source), Reason: x.Reason, Until: x.Until})
	}
	entry, ok := neverban.NewSet(entries).Overlaps(netip.PrefixFrom(e.admin, e.admin.BitLen()))
	for _, x := range e.exempt {
		if target, err := ban.TargetOfAddr(e.admin); err == nil && x.Allow && x.Target == target {
			ok, entry = true, neverban.Entry{Prefix: netip.PrefixFrom(e.admin, e.admin.BitLen()), Source: neverban.SourceManual, Reason: x.Comment}
		}
	}
	if ok {
		note("never-ban", true, "", "you are logged in from %s, which nobody can ban: %s", e.admin, entry)
	} else {
		note("never-ban", false, fmt.Sprintf("agent allow add %s --comment \"my own address\"", e.admin), "you are logged in from %s, and a ban of it could lock you out", e.admin)
	}
}
