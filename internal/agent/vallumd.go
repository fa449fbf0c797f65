package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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
	"banmesh/internal/store"
)

const (
	// vallumdSaved is how often changes of the published elements are written down, and
	// vallumdSeen how often it is, without one, that the connection was up.
	vallumdSaved = time.Second
	vallumdSeen  = time.Minute
	// vallumdBucket has, below the name of each entry, the records that outlast a kill:
	// NAME/session, NAME/published/SET/ADDRESS and NAME/claims/TOPIC/TARGET with its end
	// in Unix seconds.
	vallumdBucket = "vallumd"
)

// vallumdRenewed is the share of its time after which a claim that is repeated counts
// from anew: a repeated message costs nothing before.
const vallumdRenewed = 16

// A vallumdSide is one entry of [[vallumd]]: the bridge to its broker, and the claims
// of others there, which count as those of an import.
type vallumdSide struct {
	by     ban.Import
	conf   settings.Vallumd
	peers  *ledger.Peers
	store  *store.Store
	now    func() time.Time
	log    *slog.Logger
	bridge *vallumd.Bridge

	mu     sync.Mutex
	claims map[ban.Topic]map[ban.Target]time.Time // with the end of each
	full   int                                    // messages beyond the budget
	pruned time.Time                              // when claims whose time is over were removed last

	// Of the earlier run: the broker's session, the elements of sets, and why they are
	// not known.
	session   vallumd.Session
	published []vallumd.Element
	lost      error
}

// openVallumds reads the records of each entry of [[vallumd]] and gives the ledger the
// claims that still count. A damaged record does not keep the node from
// starting: addresses count again when they are published again.
func (a *agent) openVallumds() {
	for by, conf := range a.current().Vallumd() {
		v := &vallumdSide{
			by: by, conf: conf, peers: a.ledger.Peers, store: a.store, now: a.now,
			log: a.log.With(slog.String("part", "vallumd"), slog.String("name", conf.Name)),
		}
		if v.lost = v.open(); v.lost != nil {
			v.log.Error("the records of a broker cannot be read", slog.Any("error", v.lost))
		}
		a.vallumds = append(a.vallumds, v)
	}
}

func (v *vallumdSide) key(parts ...string) string {
	return v.conf.Name + "/" + strings.Join(parts, "/")
}

// open reads the records and hands the ledger the claims that count still.
func (v *vallumdSide) open() error {
	v.claims = map[ban.Topic]map[ban.Target]time.Time{}
	changes := map[ban.Topic]*ban.Change{}
	for _, name := range v.conf.Accept {
		topic := ban.Topic(name)
		v.claims[topic], changes[topic] = map[ban.Target]time.Time{}, &ban.Change{Feed: v.by.Feed(topic), Reset: true}
	}
	var faults []error
	var over []string // keys of claims that count no longer
	err := v.store.View(func(tx store.Tx) error {
		if b := tx.Get(vallumdBucket, v.key("session")); b != nil {
			faults = append(faults, json.Unmarshal(b, &v.session))
		}
		for _, read := range []struct {
			prefix string
			record func(first, second string, value []byte) error
		}{
			{v.key("published", ""), func(set, addr string, _ []byte) error {
				a, err := netip.ParseAddr(addr)
				v.published = append(v.published, vallumd.Element{Set: set, Addr: a})
				return err
			}},
			{v.key("claims", ""), func(topic, text string, value []byte) error {
				target, err := ban.ParseTarget(text)
				seconds, err2 := strconv.ParseInt(string(value), 10, 64)
				end := time.Unix(seconds, 0)
				if c := changes[ban.Topic(topic)]; c != nil && err == nil && err2 == nil && end.After(v.now()) && len(c.Claims) < v.conf.Live {
					v.claims[c.Feed.Topic][target] = end
					c.Claims = append(c.Claims, claimOf(target, end))
				} else {
					over = append(over, v.key("claims", topic, text))
				}
				return cmp.Or(err, err2)
			}},
		} {
			if err := tx.Each(vallumdBucket, read.prefix, func(key string, value []byte) error {
				first, second, _ := strings.Cut(strings.TrimPrefix(key, read.prefix), "/")
				faults = append(faults, read.record(first, second, value))
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if len(over) > 0 && err == nil {
		err = v.store.Update(func(tx store.Tx) error {
			for _, k := range over {
				if err := tx.Delete(vallumdBucket, k); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, c := range changes {
		slices.SortFunc(c.Claims, ban.Claim.Compare)
		faults = append(faults, v.peers.Apply(*c))
	}
	return errors.Join(append(faults, err)...)
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
			Name: v.conf.Name, Session: v.session, Published: v.published, Timeout: v.conf.Timeout, Table: a.table, Receive: v.receive, MayPublish: a.mayPublish, Now: a.now, Log: v.log,
			Broker: mqttclient.Endpoint{URL: broker.URL, TLS: broker.TLS, User: broker.User, Password: broker.Password},
		}
		for _, t := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(v.conf.Publish, v.conf.Accept)))) {
			s := vallumd.Set{Topic: ban.Topic(t), Publish: slices.Contains(v.conf.Publish, t), Accept: slices.Contains(v.conf.Accept, t)}
			s.Name, s.Name6 = v.conf.SetsOf(t)
			o.Sets = append(o.Sets, s)
		}
		v.bridge = vallumd.New(o)
		if err := v.bridge.Save(v.save); err != nil {
			v.log.Warn("state_not_written", slog.Any("error", err))
		}
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
			if err := v.bridge.Save(v.save); err != nil {
				v.log.Warn("state_not_written", slog.Any("error", err))
			}
			if over {
				return nil
			}
		}
	})
	return group.Wait()
}

// save writes down the elements that came into sets or went, and from time to time that
// the session is in use.
func (v *vallumdSide) save(changed map[vallumd.Element]bool, s vallumd.Session) error {
	if len(changed) == 0 && s.ID == v.session.ID && s.Last.Sub(v.session.Last) < vallumdSeen && slices.Equal(s.Sets, v.session.Sets) {
		return nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	err = v.store.Update(func(tx store.Tx) error {
		errs := []error{tx.Put(vallumdBucket, v.key("session"), text)}
		for x, there := range changed {
			if k := v.key("published", x.Set, x.Addr.String()); there {
				errs = append(errs, tx.Put(vallumdBucket, k, []byte{1}))
			} else {
				errs = append(errs, tx.Delete(vallumdBucket, k))
			}
		}
		return errors.Join(errs...)
	})
	if err == nil {
		v.session = s
	}
	return err
}

// receive takes messages of others over, and has written them down when it gives nil. It
// may be given the same messages again.
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
		if err := v.store.Update(func(tx store.Tx) error { return v.put(tx, ends) }); err != nil {
			return fmt.Errorf("writing down the claims of %s: %w", v.by, err)
		}
	}
	if full > 0 && v.full == 0 {
		v.log.Warn("messages_beyond_the_budget", slog.Int("live", v.conf.Live))
	}
	v.full += full
	for topic, list := range ends {
		for target, end := range list {
			if end.IsZero() {
				delete(v.claims[topic], target)
			} else {
				v.claims[topic][target] = end
			}
		}
	}
	return nil
}

// put writes claims down, by their ends.
func (v *vallumdSide) put(tx store.Tx, ends map[ban.Topic]map[ban.Target]time.Time) error {
	var errs []error
	for topic, list := range ends {
		for target, end := range list {
			if k := v.key("claims", string(topic), target.String()); end.IsZero() {
				errs = append(errs, tx.Delete(vallumdBucket, k))
			} else {
				errs = append(errs, tx.Put(vallumdBucket, k, strconv.AppendInt(nil, end.Unix(), 10)))
			}
		}
	}
	return errors.Join(errs...)
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
		case until.IsZero() && !v.room(m.Topic, more[m.Topic], now):
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
func (v *vallumdSide) room(topic ban.Topic, more int, now time.Time) bool {
	claims := v.claims[topic]
	if len(claims)+more >= v.conf.Live && now.Sub(v.pruned).Abs() >= time.Second {
		v.pruned = now
		if err := v.prune(now); err != nil {
			v.log.Warn("state_not_written", slog.Any("error", err))
		}
	}
	return len(claims)+more < v.conf.Live
}

// prune removes the claims whose time is over.
func (v *vallumdSide) prune(now time.Time) error {
	over := map[ban.Topic]map[ban.Target]time.Time{}
	for topic, claims := range v.claims {
		over[topic] = map[ban.Target]time.Time{}
		for target, end := range claims {
			if !end.After(now) {
				over[topic][target] = time.Time{}
				delete(claims, target)
			}
		}
	}
	return v.store.Update(func(tx store.Tx) error { return v.put(tx, over) })
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
