package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/fail2ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
)

// Fail2ban is fail2ban's socket, where [fail2ban] asks for it.
type Fail2ban interface {
	// Listen is where it answers, "" while it does not.
	Listen() string
	Clients() []fail2ban.Client
	// Total gives the bans of a topic since the start.
	Total(ban.Topic) uint64
}

func fail2banClient(c fail2ban.Client) control.CompatClient {
	return control.CompatClient{Name: "user " + strconv.FormatUint(uint64(c.User), 10), Last: c.Last, Asked: c.Asked}
}

// Jails gives the node's topics to fail2ban's clients.
func (s *Server) Jails() fail2ban.Node { return jails{s} }

// jails implements [fail2ban.Node] by the topics of addresses.
type jails struct{ s *Server }

// ignoredBy is the comment of an allowance that a client made.
const ignoredBy = "fail2ban-client, addignoreip"

// Jails implements [fail2ban.Node]: the topics with which this node does
// something.
func (n jails) Jails() (names []string) {
	with := map[ban.Topic]bool{}
	_, entries := n.s.o.Table.Snapshot()
	for e := range entries {
		with[e.Topic] = true
	}
	for _, t := range n.s.o.Settings().Topics() {
		if t.Definition.Target == "ip" && (t.Detect || t.Subscribe || t.Publish || with[t.Topic]) {
			names = append(names, string(t.Topic))
		}
	}
	return names
}

func (n jails) find(name string) (settings.Topic, error) {
	t, ok := n.s.o.Settings().Find(ban.Topic(name))
	if !ok || t.Definition.Target != "ip" {
		return t, fmt.Errorf("%.64q: %w", name, fail2ban.ErrJail)
	}
	return t, nil
}

// Jail implements [fail2ban.Node].
func (n jails) Jail(name string) (fail2ban.Jail, error) {
	t, err := n.find(name)
	if err != nil {
		return fail2ban.Jail{}, err
	}
	x := jailStatus(t, n.s.o.Detection.Status())
	mode, _ := n.s.o.Firewall.Enforcement()
	j := fail2ban.Jail{
		Name: name, Failed: x.CurrentlyFailed, TotalFailed: x.TotalFailed, Files: x.Files, Journal: x.Journal,
		BanTime: n.s.o.Settings().BanTime(t.Topic), FailRegex: []string{}, IgnoreRegex: []string{}, Actions: []string{mode},
	}
	for range n.s.o.Ledger.Bans(ledger.Filter{Topic: t.Topic}) {
		j.Banned++
	}
	j.TotalBanned = max(n.s.o.Fail2ban.Total(t.Topic), uint64(j.Banned))
	if d := t.Definition.Detect; d != nil {
		j.FindTime, j.MaxRetry, j.MaxLines, j.IgnoreRegex = d.FindTime.Duration(), d.MaxRetry, d.MaxLines, slices.Clone(d.Ignoreregex)
		for _, r := range d.Rules {
			j.FailRegex = append(j.FailRegex, r.Regex...)
		}
	}
	return j, nil
}

// Bans implements [fail2ban.Node], up to [maxListed].
func (n jails) Bans(name string) (list []fail2ban.Ban) {
	for x := range n.s.o.Ledger.Bans(ledger.Filter{Topic: ban.Topic(name)}) {
		if len(list) == maxListed {
			break
		}
		list = append(list, fail2ban.Ban{Target: x.Target.String(), Since: x.Since, Until: x.Until})
	}
	slices.SortStableFunc(list, func(a, b fail2ban.Ban) int { return a.Since.Compare(b.Since) })
	return list
}

// Banned implements [fail2ban.Node].
func (n jails) Banned(name, target string) bool {
	t, err := addressOf(target)
	return err == nil && n.s.o.Ledger.Action(ban.Topic(name), t) == policy.Ban
}

// addressOf reads an address or a prefix. Names of hosts are not asked for.
func addressOf(word string) (ban.Target, error) {
	t, err := ban.ParseTarget(word)
	if err != nil || t.Kind() == ban.KindWallet {
		return t, fmt.Errorf("%.64q: %w", word, fail2ban.ErrAddress)
	}
	return t, nil
}

func addressesOf(words []string) (list []ban.Target, err error) {
	for _, w := range words {
		t, err := addressOf(w)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// Ban implements [fail2ban.Node]: claims of the source fail2ban.
func (n jails) Ban(ctx context.Context, name string, words []string) (int, error) {
	targets, err := addressesOf(words)
	if err != nil {
		return 0, err
	}
	var bans []ledger.Local
	before := 0
	for _, t := range targets {
		b, err := localBan(n.s.o.Settings(), control.BanRequest{Target: t, Topic: ban.Topic(name), By: string(ledger.SourceFail2ban)}, n.s.o.Now())
		if err != nil {
			return 0, err
		}
		bans = append(bans, b)
		if n.s.o.Ledger.Action(b.Topic, t) == policy.Ban {
			before++
		}
	}
	refused, err := n.s.o.Ledger.Own.BanAll(bans)
	if err != nil {
		return 0, err
	}
	n.s.o.Log.InfoContext(ctx, "banned by a fail2ban client", slog.String("topic", name), slog.Int("targets", len(targets)), slog.Int("refused", len(refused)))
	if len(refused) > 0 {
		var why []string
		for _, r := range refused {
			why = append(why, fmt.Sprintf("%s: %v", targets[r.Index], r.Err))
		}
		return 0, fmt.Errorf("%d banned, %d refused: %s", len(targets)-len(refused), len(refused), strings.Join(why[:min(len(why), 10)], "; "))
	}
	return max(len(targets)-before, 0), nil
}

// Unban implements [fail2ban.Node]. Own claims are withdrawn; a named target
// that is banned all the same, by others' word, is exempt as by `agent unban`.
func (n jails) Unban(ctx context.Context, name string, words []string) ([]string, error) {
	topic := ban.Topic(name)
	if words == nil {
		return n.unbanAll(ctx, topic)
	}
	targets, err := addressesOf(words)
	if err != nil {
		return nil, err
	}
	var was []ban.Target
	lifted := []string{}
	for i, t := range targets {
		if !slices.Contains(was, t) && len(n.s.lifted(t, topic)) > 0 {
			was, lifted = append(was, t), append(lifted, words[i])
		}
	}
	if len(was) == 0 {
		return nil, nil
	}
	withdrawn, err := n.s.o.Ledger.Own.Withdraw(ledger.Selection{Targets: was, Topic: topic}, ban.ReasonEnded)
	if err != nil {
		return nil, err
	}
	n.forget(withdrawn)
	var still []ledger.Exemption
	for _, t := range was {
		if len(n.s.lifted(t, topic)) > 0 {
			still = append(still, ledger.Exemption{Target: t, Topic: topic, Comment: "fail2ban-client, unban"})
		}
	}
	if len(still) > 0 {
		if _, err := n.s.o.Ledger.Exemptions.Add(still, ledger.DefaultUnban); err != nil {
			return nil, err
		}
	}
	n.s.o.Log.InfoContext(ctx, "unbanned by a fail2ban client", slog.Int("targets", len(was)), slog.Int("exempt", len(still)))
	return lifted, nil
}

// unbanAll withdraws every own claim and exempts nobody: scripts do this at
// each deployment, and an exemption of every attacker is not meant by it.
func (n jails) unbanAll(ctx context.Context, topic ban.Topic) (lifted []string, err error) {
	withdrawn, err := n.s.o.Ledger.Own.Withdraw(ledger.Selection{Topic: topic}, ban.ReasonEnded)
	if err != nil {
		return nil, err
	}
	n.forget(withdrawn)
	seen := map[ban.Target]bool{}
	for _, b := range withdrawn {
		if !seen[b.Claim.Target] && b.Claim.Target.Kind() != ban.KindWallet && n.s.o.Ledger.Action(b.Topic, b.Claim.Target) != policy.Ban {
			seen[b.Claim.Target] = true
			lifted = append(lifted, b.Claim.Target.String())
		}
	}
	n.s.o.Log.InfoContext(ctx, "own claims withdrawn by a fail2ban client", slog.Int("claims", len(withdrawn)))
	return lifted, nil
}

func (n jails) forget(list []ledger.Local) {
	for _, b := range list {
		n.s.o.Detection.Forget(b.Topic, b.Claim.Target)
	}
}

// Ignored implements [fail2ban.Node]: the never-ban list and those that people
// allowed, the same in every jail.
func (n jails) Ignored(string) []string {
	list := []string{}
	add := func(s string) {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	for _, e := range n.s.o.NeverBan() {
		if t, err := ban.TargetOfPrefix(e.Prefix); err == nil {
			add(t.String())
		} else {
			add(e.Prefix.String())
		}
	}
	for _, e := range n.s.o.Ledger.Exemptions.List() {
		if e.Allow && e.Target.Kind() != ban.KindWallet {
			add(e.Target.String())
		}
	}
	return list
}

// Ignore implements [fail2ban.Node]: as `agent allow` and `agent allow remove`.
func (n jails) Ignore(name, word string, on bool) error {
	t, err := addressOf(word)
	if err != nil {
		return err
	}
	if on {
		_, err := n.s.o.Ledger.Exemptions.Allow(t, time.Time{}, ignoredBy+" in "+name)
		return err
	}
	err = n.s.o.Ledger.Exemptions.Remove(t, true)
	if errors.Is(err, ledger.ErrUnknown) {
		return fmt.Errorf("%s: %w: it was not added by hand", t, fail2ban.ErrAddress)
	}
	return err
}

// Attempt implements [fail2ban.Node]: each failure weighs as a log line of the
// topic.
func (n jails) Attempt(ctx context.Context, name, address string, times int) error {
	t, err := n.find(name)
	if err != nil {
		return err
	}
	target, err := addressOf(address)
	if err != nil {
		return err
	}
	class := ban.ClassAuth
	if d := t.Definition.Detect; d != nil && len(d.Rules) > 0 {
		class = cmp.Or(d.Rules[0].Class, class)
	}
	for range times {
		err := n.s.o.Detection.Report(ctx, detect.Observation{Topic: t.Topic, Target: target, Class: class, At: n.s.o.Now()})
		if err != nil {
			return err
		}
	}
	return nil
}

// LogTarget implements [fail2ban.Node].
func (n jails) LogTarget() string { return n.s.o.Settings().Config().Fail2ban.Log }
