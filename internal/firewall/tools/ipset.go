package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// IPSet is a [Firewall] for systems without nftables, or whose firewall is
// iptables through and through: a pair of ipsets a topic and address family,
// and a chain of iptables' raw table that asks them. Bans have their end in the
// kernel here, too. It costs a process a call, so calls should carry many bans.
type IPSet struct {
	wantedBans
	legacy bool
	looked time.Time                       // when the rules were last looked at
	lapsed map[firewall.Key]desired.Second // bans that have just ended
	// compared is when the sets were last compared entry by entry.
	compared time.Time
}

// Limits of [IPSet].
const (
	// ipsetMaxTimeout is ipset's longest, in seconds (2^32 milliseconds halved);
	// a longer ban is renewed before it runs out.
	ipsetMaxTimeout = 2_147_483
	ipsetRenew      = 24 * time.Hour
	// multiportMost is how many ports one iptables rule can name.
	multiportMost = 15
	// ipsetLook is how often Check looks at the rules, at a few processes each.
	ipsetLook = 10 * time.Second
)

var _ firewall.Firewall = (*IPSet)(nil)

// NewIPSet gives an IPSet enforcer. legacy chooses iptables-legacy where the
// plain iptables is the one that writes nftables rules.
func NewIPSet(o Options, legacy bool) *IPSet {
	s := &IPSet{legacy: legacy, lapsed: make(map[firewall.Key]desired.Second)}
	s.begin(o)
	return s
}

// families are the two that every set and rule exists for.
var families = [...]struct{ suffix, family, iptables string }{{"4", "inet", "iptables"}, {"6", "inet6", "ip6tables"}}

// setName gives a topic's set: at most 31 bytes, so the topic goes by its hash.
func (s *IPSet) setName(t ban.Topic, four, host bool) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(t))
	suffix := "6"
	if four {
		suffix = "4"
	}
	if !host {
		suffix += "n"
	}
	return fmt.Sprintf("%s-%08x-%s", s.config.Table, h.Sum32(), suffix)
}

func (s *IPSet) neverName(suffix string) string { return s.config.Table + "-never-" + suffix }

func (s *IPSet) chainName() string { return strings.ToUpper(s.config.Table) }

// Configure implements [Firewall].
func (s *IPSet) Configure(ctx context.Context, c firewall.Config) error {
	c, err := c.Normal()
	if err != nil {
		return err
	}
	if len(c.Honeyports) > 0 {
		return fmt.Errorf("honeyports need nftables: %w", firewall.ErrUnsupported)
	}
	for _, x := range c.Scopes {
		if x.MaxConnections != 0 || x.Remember != 0 {
			return fmt.Errorf("topic %s: connection limits and remembered peers need nftables: %w", x.Topic, firewall.ErrUnsupported)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.config
	if err := s.configure(c); err != nil {
		return err
	}
	if err := s.rules(ctx); err != nil {
		s.ready = before.Table != ""
		return err
	}
	if s.replaced && before.Cap != c.Cap {
		return s.reload(ctx) // into sets of the new size
	}
	return s.flush(ctx)
}

// Replace implements [Firewall]. Each set is filled beside the one in force and
// swapped with it, so that nothing is open meanwhile.
func (s *IPSet) Replace(ctx context.Context, bans iter.Seq[firewall.Ban]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	refused := s.all(bans)
	for k := range s.wanted {
		s.pending[k] = true
	}
	return errors.Join(refused, s.reload(ctx))
}

func (s *IPSet) reload(ctx context.Context) error {
	var b bytes.Buffer
	for _, x := range s.config.Scopes {
		for i, f := range families {
			for _, kind := range []struct {
				host bool
				name string
			}{{true, "hash:ip"}, {false, "hash:net"}} {
				fmt.Fprintf(&b, "create %s-t %s family %s timeout 0 maxelem %d\nflush %s-t\n", s.setName(x.Topic, i == 0, kind.host), kind.name, f.family, s.config.Cap, s.setName(x.Topic, i == 0, kind.host))
			}
		}
	}
	for k, until := range s.wanted {
		s.line(&b, k, until, "-t")
	}
	for _, x := range s.config.Scopes {
		for i := range families {
			for _, host := range []bool{true, false} {
				name := s.setName(x.Topic, i == 0, host)
				fmt.Fprintf(&b, "swap %s %s-t\ndestroy %s-t\n", name, name, name)
			}
		}
	}
	if err := s.run(ctx, b.Bytes(), "ipset", "-exist", "restore"); err != nil {
		return err
	}
	clear(s.pending)
	return nil
}

// line writes the command that makes one key right.
func (s *IPSet) line(b *bytes.Buffer, k firewall.Key, until desired.Second, suffix string) {
	host := k.Prefix.IsSingleIP()
	name := s.setName(k.Topic, k.Prefix.Addr().Is4(), host) + suffix
	for _, p := range halves(k.Prefix) {
		text := p.String()
		if host {
			text = p.Addr().String()
		}
		if until == 0 {
			fmt.Fprintf(b, "del %s %s\n", name, text)
			continue
		}
		seconds := int64(0) // for ever
		if until != desired.Never {
			seconds = min(max(int64(until.Time().Sub(s.now())/time.Second), 1), ipsetMaxTimeout)
		}
		fmt.Fprintf(b, "add %s %s timeout %d\n", name, text, seconds)
	}
}

// Apply implements [Firewall].
func (s *IPSet) Apply(ctx context.Context, add []firewall.Ban, remove []firewall.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if !s.replaced {
		return firewall.ErrNoState
	}
	return errors.Join(s.want(slices.Values(add), remove), s.flush(ctx))
}

// flush writes all that is pending.
func (s *IPSet) flush(ctx context.Context) error {
	if len(s.pending) == 0 {
		return nil
	}
	return s.write(ctx, slices.Collect(maps.Keys(s.pending)))
}

// write writes some keys, and where ipset refuses them, in ever smaller parts.
func (s *IPSet) write(ctx context.Context, keys []firewall.Key) error {
	var b bytes.Buffer
	for _, k := range keys {
		if _, ok := s.scopes[k.Topic]; ok {
			s.line(&b, k, s.wanted[k], "")
		}
	}
	err := s.run(ctx, b.Bytes(), "ipset", "-exist", "restore")
	switch {
	case err == nil:
		for _, k := range keys {
			delete(s.pending, k)
		}
		return nil
	case len(keys) == 1 || ctx.Err() != nil:
		return err
	}
	return errors.Join(s.write(ctx, keys[:len(keys)/2]), s.write(ctx, keys[len(keys)/2:]))
}

// Check implements [Firewall].
func (s *IPSet) Check(ctx context.Context) (d firewall.Drift, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return d, err
	}
	for _, k := range s.ended() {
		s.lapsed[k] = desired.SecondOf(s.now())
	}
	turned, err := s.switched()
	if err != nil {
		return d, err
	}
	if turned {
		d.Changed, d.What = true, []string{"enforcement was switched by hand"}
		if err := s.rules(ctx); err != nil {
			return d, err
		}
	}
	d.Off = s.off
	cured := true
	renew := desired.SecondOf(s.now().Add(ipsetMaxTimeout*time.Second - ipsetRenew))
	if now := s.now(); now.Sub(s.looked) >= ipsetLook && !s.off {
		last := s.looked
		s.looked = now
		what, err := s.differs(ctx)
		if err != nil {
			return d, err
		}
		if len(what) > 0 {
			d.Changed, d.What = true, append(d.What, what...)
			if err := errors.Join(s.rules(ctx), s.reload(ctx)); err != nil {
				return d, err
			}
			// Counted again: changes of the sets by another program show in the counts.
			if what, err = s.setsDiffer(ctx); err != nil {
				return d, err
			}
			cured = len(what) == 0
			s.log.Warn("firewall was changed by another program", "what", strings.Join(d.What, "; "), "cured", cured)
		}
		if !last.IsZero() && now.Truncate(ipsetRenew) != last.Truncate(ipsetRenew) {
			for k, until := range s.wanted {
				if until > renew && until != desired.Never {
					s.pending[k] = true
				}
			}
		}
	}
	err = s.flush(ctx)
	d.Pending, d.Bans = len(s.pending), len(s.wanted)
	d.Cured = d.Changed && err == nil && cured
	return d, err
}

// differs looks for our rules and sets.
func (s *IPSet) differs(ctx context.Context) (what []string, err error) {
	for i, f := range families {
		out, err := s.output(ctx, s.tool(f.iptables)+"-save", "-t", "raw")
		if err != nil {
			return nil, err
		}
		var have []string
		jumps := false
		for line := range strings.Lines(out) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "-A "+s.chainName()+" ") {
				have = append(have, line)
			}
			jumps = jumps || line == "-A PREROUTING -j "+s.chainName()
		}
		if !jumps {
			what = append(what, f.iptables+" no longer asks our chain")
		}
		if !slices.Equal(have, s.chainRules(i == 0)) {
			what = append(what, f.iptables+" had other rules")
		}
	}
	sets, err := s.setsDiffer(ctx)
	return append(what, sets...), err
}

// Counters implements [Firewall].
func (s *IPSet) Counters(ctx context.Context) (map[ban.Topic]firewall.Counter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	out := make(map[ban.Topic]firewall.Counter, len(s.config.Scopes))
	topics := make(map[string]ban.Topic)
	for _, x := range s.config.Scopes {
		out[x.Topic] = firewall.Counter{}
		for i := range families {
			topics[s.setName(x.Topic, i == 0, true)] = x.Topic
			topics[s.setName(x.Topic, i == 0, false)] = x.Topic
		}
	}
	for _, f := range families {
		text, err := s.output(ctx, s.tool(f.iptables)+"-save", "-c", "-t", "raw")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			var c firewall.Counter
			words := strings.Fields(line)
			if len(words) < 3 || words[2] != s.chainName() {
				continue
			}
			i := slices.Index(words, "--match-set")
			if n, err := fmt.Sscanf(words[0], "[%d:%d]", &c.Packets, &c.Bytes); err != nil || n != 2 || i < 0 {
				continue
			}
			if t, ok := topics[words[i+1]]; ok {
				out[t] = firewall.Counter{Packets: out[t].Packets + c.Packets, Bytes: out[t].Bytes + c.Bytes}
			}
		}
	}
	return out, nil
}

// run runs a tool with an input, in no shell.
func (*IPSet) run(ctx context.Context, stdin []byte, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %.300s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

func (*IPSet) output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("running %s: %w", name, err)
	}
	return string(out), nil
}
