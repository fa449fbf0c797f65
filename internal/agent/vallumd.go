package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/broker/mqttclient"
	"banmesh/internal/compat/vallumd"
	"banmesh/internal/control"
	"banmesh/internal/export"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
	"banmesh/internal/wholefile"
)

// vallumdSaved is how often changes of the published elements are written down.
const vallumdSaved = time.Second

// vallumdRenewed is the share of its time after which a claim that is repeated counts
// from anew: a repeated message costs nothing before.
const vallumdRenewed = 16

// A vallumdSide is one entry of [[vallumd]]: the bridge to its broker, and the claims
// of others there, which count as those of an import.
type vallumdSide struct {
	by     ban.Import
	conf   settings.Vallumd
	peers  *ledger.Peers
	state  string // the file of vallumdState
	now    func() time.Time
	log    *slog.Logger
	bridge *vallumd.Bridge

	mu        sync.Mutex
	claims    map[ban.Topic]map[ban.Target]time.Time // with the end of each
	full      int                                    // messages beyond the budget
	published []vallumd.Element                      // of the earlier run, until there is a bridge
	written   int                                    // changes of the bridge's that are on disk
	unsaved   bool                                   // claims is not
	pruned    time.Time                              // when claims whose time is over were removed last
	lost      error                                  // why the state of the earlier run is not known
}

// vallumdState is the part of an entry that outlasts a restart.
type vallumdState struct {
	Published []vallumd.Element                  `json:"published"`
	Claims    map[ban.Topic]map[string]time.Time `json:"claims"`
}

// openVallumds reads the state of each entry of [[vallumd]] and gives the ledger the
// claims that still count. Neither a damaged file nor a full disk keeps the node from
// starting: addresses count again when they are published again.
func (a *agent) openVallumds() {
	for by, conf := range a.current().Vallumd() {
		v := &vallumdSide{
			by: by, conf: conf, peers: a.ledger.Peers, state: filepath.Join(a.o.StateDir, "vallumd-"+conf.Name+".json"), now: a.now,
			log: a.log.With(slog.String("part", "vallumd"), slog.String("name", conf.Name)),
		}
		if v.lost = v.open(); v.lost != nil {
			v.log.Error("the state of a broker cannot be read", slog.Any("error", v.lost))
		}
		a.vallumds = append(a.vallumds, v)
	}
}

// open reads the state and hands the ledger the claims that count still.
func (v *vallumdSide) open() error {
	v.claims = map[ban.Topic]map[ban.Target]time.Time{}
	for _, name := range v.conf.Accept {
		v.claims[ban.Topic(name)] = map[ban.Target]time.Time{}
	}
	var s vallumdState
	b, err := os.ReadFile(v.state)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	v.published = s.Published
	now := v.now()
	for topic, claims := range v.claims {
		c := ban.Change{Feed: v.by.Feed(topic), Reset: true}
		for text, end := range s.Claims[topic] {
			target, err := ban.ParseTarget(text)
			if err != nil || !end.After(now) || len(claims) >= v.conf.Live {
				continue
			}
			claims[target] = end
			c.Claims = append(c.Claims, claimOf(target, end))
		}
		slices.SortFunc(c.Claims, ban.Claim.Compare)
		if err := v.peers.Apply(c); err != nil {
			return err
		}
	}
	return nil
}

// claimOf is the claim that a message makes: nobody says for which reason.
func claimOf(target ban.Target, end time.Time) ban.Claim {
	return ban.Claim{Target: target, End: end, Basis: ban.BasisHandedOver, Hits: 1}
}

// connect makes the bridges of all entries.
func (a *agent) connectVallumds() error {
	for _, v := range a.vallumds {
		broker, err := settings.BrokerOf(v.conf.Broker())
		if err != nil {
			return err
		}
		o := vallumd.Options{
			Name: v.conf.Name, Timeout: v.conf.Timeout, Table: a.table, Receive: v.receive, MayPublish: a.mayPublish, Now: a.now, Log: v.log,
			Broker: mqttclient.Endpoint{URL: broker.URL, TLS: broker.TLS, User: broker.User, Password: broker.Password, ClientID: clientID()},
		}
		for _, t := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(v.conf.Publish, v.conf.Accept)))) {
			s := vallumd.Set{Topic: ban.Topic(t), Publish: slices.Contains(v.conf.Publish, t), Accept: slices.Contains(v.conf.Accept, t)}
			s.Name, s.Name6 = v.conf.SetsOf(t)
			o.Sets = append(o.Sets, s)
		}
		v.bridge = vallumd.New(o, v.published)
		v.published = nil
	}
	return nil
}

// mayPublish says whether a ban may go out to vallumds: one that rests on more than the
// claim of an import. Others publish theirs themselves, and two nodes that published each
// other's would keep a ban alive for ever.
func (a *agent) mayPublish(e export.Entry) bool {
	s, ok := a.ledger.Standing(e.Topic, e.Target)
	return ok && slices.ContainsFunc(s.Claims, func(c ledger.Claimed) bool {
		if !c.Counts() {
			return false
		}
		_, imported := a.ledger.Policy().Import(c.Feed.Operator)
		return c.Own && c.Source.Published() || !c.Own && !imported
	})
}

// run serves the entry until ctx ends.
func (v *vallumdSide) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return v.bridge.Run(ctx) })
	group.Go(func() error {
		tick := time.NewTicker(vallumdSaved)
		defer tick.Stop()
		for {
			over := false
			select {
			case <-ctx.Done():
				over = true
			case <-tick.C:
			}
			v.mu.Lock()
			var err error
			if v.unsaved || v.bridge.Changes() != v.written {
				err = v.save()
			}
			v.mu.Unlock()
			if err != nil {
				v.log.Warn("state_not_written", slog.Any("error", err))
			}
			if over {
				return nil
			}
		}
	})
	return group.Wait()
}

// receive takes messages of others over: the ledger first, then the file. It fails only
// where the ledger does, and may be given the same messages again.
func (v *vallumdSide) receive(_ context.Context, messages []vallumd.Message) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	ends, full := v.outcome(messages, v.now())
	var changes []ban.Change
	for topic, list := range ends {
		c := ban.Change{Feed: v.by.Feed(topic)}
		for target, end := range list {
			if end.IsZero() {
				c.Withdrawn = append(c.Withdrawn, ban.Withdraw(ban.ReasonEnded, target)...)
			} else {
				c.Claims = append(c.Claims, claimOf(target, end))
			}
		}
		slices.SortFunc(c.Claims, ban.Claim.Compare)
		changes = append(changes, c)
	}
	if len(changes) > 0 {
		if err := v.peers.Apply(changes...); err != nil {
			return err
		}
	}
	if full > 0 && v.full == 0 {
		v.log.Warn("messages_beyond_the_budget", slog.Int("live", v.conf.Live))
	}
	v.full += full
	if len(changes) == 0 {
		return nil
	}
	for topic, list := range ends {
		for target, end := range list {
			if end.IsZero() {
				delete(v.claims[topic], target)
			} else {
				v.claims[topic][target] = end
			}
		}
	}
	v.unsaved = true
	if err := v.save(); err != nil {
		v.log.Warn("state_not_written", slog.Any("error", err)) // run tries again
	}
	return nil
}

// outcome gives the targets whose claims messages change, with their ends, zero for one that is
// withdrawn, and the number of messages beyond the budget. A claim that is repeated
// changes nothing until a good part of its time is over.
func (v *vallumdSide) outcome(messages []vallumd.Message, now time.Time) (ends map[ban.Topic]map[ban.Target]time.Time, full int) {
	ends = map[ban.Topic]map[ban.Target]time.Time{}
	more := map[ban.Topic]int{} // addresses, of the messages so far
	for _, m := range messages {
		target, err := ban.TargetOfAddr(m.Addr)
		claims := v.claims[m.Topic]
		if err != nil || claims == nil {
			continue
		}
		until, changed := ends[m.Topic][target]
		if !changed {
			until = claims[target]
		}
		end := now.Add(v.conf.For)
		switch {
		case !m.Add && until.IsZero(), m.Add && until.After(end.Add(-v.conf.For/vallumdRenewed)):
			continue
		case !m.Add:
			end = time.Time{}
			more[m.Topic]--
		case until.IsZero() && !v.room(claims, more[m.Topic], now):
			full++
			continue
		case until.IsZero():
			more[m.Topic]++
		}
		if ends[m.Topic] == nil {
			ends[m.Topic] = map[ban.Target]time.Time{}
		}
		ends[m.Topic][target] = end
	}
	return ends, full
}

// room says whether one more address fits into the budget of a topic, beside its
// claims and so many more. Those whose time is over make
// room, once a second: a flood must not look through all for each message.
func (v *vallumdSide) room(claims map[ban.Target]time.Time, more int, now time.Time) bool {
	if len(claims)+more >= v.conf.Live && now.Sub(v.pruned).Abs() >= time.Second {
		v.pruned = now
		maps.DeleteFunc(claims, func(_ ban.Target, end time.Time) bool { return !end.After(now) })
	}
	return len(claims)+more < v.conf.Live
}

// save writes the state down. v.mu is held.
func (v *vallumdSide) save() error {
	published, changes := v.bridge.Published()
	s := vallumdState{Published: published, Claims: map[ban.Topic]map[string]time.Time{}}
	for topic, claims := range v.claims {
		s.Claims[topic] = map[string]time.Time{}
		for target, end := range claims {
			s.Claims[topic][target.String()] = end
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := wholefile.Write(v.state, b, 0o600); err != nil {
		return fmt.Errorf("writing down the claims of %s: %w", v.by, err)
	}
	v.written, v.unsaved = changes, false
	return nil
}

// vallumdStatus gives the state of each entry of [[vallumd]].
func (a *agent) vallumdStatus() (list []control.Vallumd) {
	for _, v := range a.vallumds {
		s := v.bridge.Status()
		v.mu.Lock()
		x := control.Vallumd{
			Name: string(v.by), URL: s.URL, Connected: s.Connected, Error: s.Err, Publish: topicsOf(v.conf.Publish), Accept: topicsOf(v.conf.Accept),
			Told: s.Published, LeftOut: s.LeftOut, Received: s.Received, Ignored: s.Ignored, Full: v.full, Last: s.Last,
		}
		v.mu.Unlock()
		list = append(list, x)
	}
	return list
}

func topicsOf(names []string) (list []ban.Topic) {
	for _, n := range names {
		list = append(list, ban.Topic(n))
	}
	return list
}

// warnVallumds says which brokers are not reached, and which bans are left out.
func (a *agent) warnVallumds() (list []control.Warning) {
	for _, v := range a.vallumds {
		if v.lost != nil {
			list = append(list, api.CompatDown.Warn(fmt.Sprintf("the claims of %s before the start are not known: %v", v.by, v.lost), "df -h; nothing else: addresses count when they are announced again"))
		}
	}
	for _, x := range a.vallumdStatus() {
		if !x.Connected {
			list = append(list, api.CompatDown.Warn(fmt.Sprintf("the broker of %s, %s, is not reached: %s", x.Name, x.URL, x.Error), "url, user and ca_file in [[vallumd]]; agent status"))
		}
		if x.LeftOut > 0 && len(x.Publish) > 0 {
			list = append(list, api.VallumdLeftOut.Warn(fmt.Sprintf("%d bans are not published to %s: an ipset of vallumd's takes single addresses, %d at most, and IPv6 in a set of its own", x.LeftOut, x.Name, vallumd.MaxElements), "sets6 in [[vallumd]], where IPv6 is left out"))
		}
		if x.Full > 0 {
			list = append(list, api.VallumdFull.Warn(fmt.Sprintf("%s announced %d addresses more than may count", x.Name, x.Full), "live in [[vallumd]]; agent withdraw --all --by "+x.Name))
		}
	}
	return list
}

// clientID names this connection to brokers of vallumd's, which take an identifier once.
func clientID() string { return "banmesh-" + rand.Text()[:12] }
