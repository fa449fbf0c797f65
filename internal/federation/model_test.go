//go:build !race

package federation

import (
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// -states bounds the states that the model tries, -batches says how much more
// its author says in each epoch: with 3 there are 25,000 states, with 6 333,000.
var (
	modelStates  = flag.Int("states", 1_000_000, "how many states of the model are tried at most")
	modelBatches = flag.Int("batches", 3, "how much the author of the model says")
)

// The model: an author whose machine forgets and begins a new epoch, a thief of
// its node's key who writes into the old epoch and begins one of its own, the
// author's answer (a card that revokes the key, a new node, or the mark that the
// key is stolen), and a reader between brokers that deliver any of these
// messages, in any order, any number of times, or never. Whatever two brokers
// and the network can do to a reader is such a delivery, so one reader stands
// for all. The reader is the real one, with messages whose signatures were
// checked before; its states are walked until there are no more, or -states.
type model struct {
	messages []modelMessage
	store    *store.Store
	operator ban.Operator
	feeds    [2]ban.Feed // of the stolen node and of the new one
	// said has the contents that the author signed, of each feed: what a
	// reader may hold while no message of the thief came to it.
	said [2]map[string]bool
	last [2]string // the author's newest contents
	// mutate, if set, breaks a reader's state after each delivery, to show that
	// a fault is noticed.
	mutate func(before, after *modelState, m *modelMessage)

	mu     sync.Mutex
	synced map[wire.Hash]string // contents of readers synced at a head
	faults map[string]bool
}

type modelMessage struct {
	what  string // for faults
	card  *wire.Card
	raw   []byte
	m     *wire.Message
	feed  int
	thief bool
	final bool // of the author's newest state: brokers retain it
}

// A modelState is a reader's knowledge.
type modelState struct {
	card      *modelMessage
	followers [2]*follower
	touched   bool // a message of the thief was believed
}

func newModel(t *testing.T) *model {
	t.Helper()
	m := &model{synced: map[wire.Hash]string{}, faults: map[string]bool{}}
	open := func(name string) *store.Store {
		s, err := store.Open(filepath.Join(t.TempDir(), name+".db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	m.store = open("reader")
	root, node, next := testKey("root"), testKey("node"), testKey("next")
	m.feeds = [2]ban.Feed{testFeed("sshd", root, node), testFeed("sshd", root, next)}
	m.operator = m.feeds[0].Operator
	// Revoked is everything said in the last minute, as readers date it.
	certify := func(serial uint64, key wire.PublicKey, revoked ...wire.Revocation) *modelMessage {
		c := wire.Card{Serial: serial, Issued: testTime.Add(-time.Hour), Revocations: revoked, Certificates: []wire.Certificate{{Key: key, NotBefore: testTime.Add(-72 * time.Hour), NotAfter: testTime.Add(720 * time.Hour)}}}
		raw, err := c.Sign(root)
		if err != nil {
			t.Fatal(err)
		}
		card, err := wire.OpenCard(raw)
		if err != nil {
			t.Fatal(err)
		}
		m.messages = append(m.messages, modelMessage{what: fmt.Sprint("card ", serial), card: card, raw: raw, final: serial == 2})
		return &m.messages[len(m.messages)-1]
	}
	certify(1, publicOf(node))
	certify(2, publicOf(next), wire.Revocation{Node: m.feeds[0].Node, Since: testTime.Add(-time.Minute)})

	now := testTime.Add(-100 * time.Minute)
	entry := func(last byte) []wire.Entry {
		return wire.SortClaims([]ban.Claim{{Target: ban.MustTarget(fmt.Sprintf("192.0.2.%d", last)), End: testTime.Add(5 * time.Hour)}}, now)
	}
	// The author says 1, then others, and takes 1 back; it forgets and begins
	// again with its present set; it says more.
	a := newAuthor(t, open("author"), now)
	m.add(t, a, 0, "first epoch, ", false)
	step := func(a *author, feed int, what string, thief bool, up []wire.Entry, down ...wire.Withdrawal) {
		t.Helper()
		now = now.Add(2 * time.Minute)
		if _, err := a.say(now, up, down); err != nil {
			t.Fatal(err)
		}
		if _, err := a.tick(now.Add(coalesce), true); err != nil {
			t.Fatal(err)
		}
		now = now.Add(headBusy)
		if _, err := a.tick(now, true); err != nil {
			t.Fatal(err)
		}
		m.add(t, a, feed, what, thief)
	}
	step(a, 0, "first epoch, ", false, entry(1))
	// The thief knows the state here.
	forged, gc, first := cloneSet(&a.set), a.gc, a.epoch
	step(a, 0, "first epoch, ", false, entry(2), wire.Withdrawal{Key: ban.KeyOf(ban.MustTarget("192.0.2.1"))})
	for i := range *modelBatches {
		step(a, 0, "first epoch, ", false, entry(byte(3+i)))
	}
	if err := a.commit(func() { a.newEpoch(now, 0) }); err != nil {
		t.Fatal(err)
	}
	m.add(t, a, 0, "second epoch, ", false)
	for i := range 1 + *modelBatches {
		step(a, 0, "second epoch, ", false, entry(byte(20+i)))
	}
	m.retained(a, 0)

	// The thief says 66: as another second batch of the first epoch, and in an
	// epoch of its own.
	forged.apply(wire.Minutes(now), entry(66), nil, wire.Minutes(now))
	for _, body := range []wire.Body{
		&wire.Delta{GC: gc, Fingerprint: forged.fingerprint(), Up: entry(66)},
		&wire.Head{N: 2, TTL: headTTL, GC: gc, Count: 2, Fingerprint: forged.fingerprint(), Ring: ring, Pieces: &wire.Pieces{}},
	} {
		n, number := wire.FeedName("testnet", m.feeds[0], body.Kind(), 2), uint64(2)
		if body.Kind() == wire.KindHead {
			n.Slot, number = 0, 90
		}
		m.message(t, n, wire.Seal(node, wire.Header{Kind: n.Kind, Network: "testnet", Topic: "sshd", Operator: m.operator, Epoch: first, Number: number, Issued: now}, body.Append(nil)), 0, "the thief's, ", true)
	}
	now = now.Add(2 * time.Minute)
	thief := newAuthor(t, open("thief"), now)
	m.add(t, thief, 0, "the thief's epoch, ", true)
	step(thief, 0, "the thief's epoch, ", true, entry(66))
	step(thief, 0, "the thief's epoch, ", true, entry(67))

	// The author's answers: with its root key a new node that says 2 and 3,
	// without it the mark.
	if _, err := a.markStolen(now, thief.epoch); err != nil {
		t.Fatal(err)
	}
	m.add(t, a, 0, "", false)
	b, err := openAuthor("testnet", "sshd", m.operator, next, noCard, open("next"), now)
	if err != nil {
		t.Fatal(err)
	}
	step(b, 1, "the new node's, ", false, append(entry(2), entry(3)...))
	step(b, 1, "the new node's, ", false, entry(4))
	m.retained(b, 1)
	return m
}

// add takes messages that an author has published since, and notes their contents.
func (m *model) add(t *testing.T, a *author, feed int, what string, thief bool) {
	t.Helper()
	// Published messages are in the store: newer ones have taken the place
	// of older ones there, so each step is looked at.
	err := a.store.View(func(tx store.Tx) error {
		return tx.Each(bucketOwn, a.prefix(), func(k string, v []byte) error {
			if k == a.prefix()+"state" || slices.ContainsFunc(m.messages, func(x modelMessage) bool { return x.m != nil && string(x.m.Raw) == string(v) }) {
				return nil
			}
			kind, slot := k[len(a.prefix()):], 0
			kind, number, slotted := strings.Cut(kind, "/")
			if slotted {
				fmt.Sscan(number, &slot)
			}
			for _, x := range []wire.Kind{wire.KindHead, wire.KindDelta, wire.KindSegment, wire.KindChunk, wire.KindManifest} {
				if x.String() == kind {
					m.message(t, wire.FeedName("testnet", m.feeds[feed], x, slot), slices.Clone(v), feed, what, thief)
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.said[feed] == nil {
		m.said[feed] = map[string]bool{"": true}
	}
	if !thief {
		m.said[feed][contents(&a.set)] = true
	}
}

// retained notes which messages are the author's newest state.
func (m *model) retained(a *author, feed int) {
	m.last[feed] = contents(&a.set)
	err := a.store.View(func(tx store.Tx) error {
		return tx.Each(bucketOwn, a.prefix(), func(_ string, v []byte) error {
			for i := range m.messages {
				if x := &m.messages[i]; x.m != nil && string(x.m.Raw) == string(v) {
					x.final = true
				}
			}
			return nil
		})
	})
	if err != nil {
		panic(err)
	}
}

func (m *model) message(t *testing.T, n wire.Name, payload []byte, feed int, what string, thief bool) {
	t.Helper()
	x, err := wire.Open(n, payload)
	if err != nil {
		t.Fatalf("%s%v: %v", what, n.Kind, err)
	}
	what = fmt.Sprintf("%s%v %d", what, n.Kind, x.Header.Number)
	m.messages = append(m.messages, modelMessage{what: what, m: x, feed: feed, thief: thief})
}

// contents lists the targets of a set.
func contents(s *set) string {
	var out []string
	s.each(func(e *wire.Entry) {
		if t, err := e.Key.Target(); err == nil {
			out = append(out, t.String())
		}
	})
	return strings.Join(out, " ")
}

// deliver gives the state after a message, or after enough time for whatever
// waits, if there is none.
func (m *model) deliver(s *modelState, x *modelMessage) *modelState {
	out := &modelState{card: s.card, touched: s.touched}
	r := &reader{
		network: "testnet", node: func() ban.Node { return ban.Node{1} }, store: m.store, log: slog.New(slog.DiscardHandler),
		following: []Following{{"sshd", m.operator}}, followers: map[ban.Feed]*follower{},
		cards: &cards{store: m.store, log: slog.New(slog.DiscardHandler), held: map[ban.Operator]*cardState{}, asked: map[ban.Operator]*asking{}},
	}
	if s.card != nil {
		r.cards.held[m.operator] = &cardState{s.card.card, s.card.raw}
	}
	for i, f := range s.followers {
		if f != nil {
			r.followers[m.feeds[i]] = cloneFollower(f)
			r.followers[m.feeds[i]].account = r.accountOf(m.operator)
			r.followers[m.feeds[i]].counted = account{}
			r.followers[m.feeds[i]].settle()
		}
	}
	fx := &effects{now: testTime}
	switch {
	case x == nil:
		for _, w := range r.followers {
			w.joinNext, w.joinWait = time.Time{}, 0
			w.progress(fx)
		}
	case x.card != nil:
		if r.cards.take(x.card, x.raw, fx) {
			out.card = x
			r.reconcile(fx)
		}
	default:
		w := r.followers[m.feeds[x.feed]]
		if w == nil || w.halted != nil || x.m.Header.Kind.IsPiece() && !w.wants(x.m.Name) || r.believable(x.m, testTime) != nil {
			break
		}
		w.receive(x.m, fx)
		out.touched = s.touched || x.thief
	}
	for i := range m.feeds {
		if out.followers[i] = r.followers[m.feeds[i]]; out.followers[i] != nil {
			out.followers[i].unbounded()
		}
	}
	if m.mutate != nil && x != nil {
		m.mutate(s, out, x)
	}
	return out
}

// unbounded makes rates no part of the model: they delay, and time passes.
func (f *follower) unbounded() {
	f.allowed, f.pieced, f.joins = allowance{burst: 1e9}, allowance{burst: 1e9}, allowance{burst: 1e9}
	f.epochs = epochs{allowed: allowance{burst: 1e9}}
	f.triedAt = time.Time{}
}

// check finds broken invariants.
func (m *model) check(before, after *modelState, x *modelMessage) {
	fault := func(format string, args ...any) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.faults) < 20 {
			m.faults[fmt.Sprintf(format, args...)+", by "+x.what] = true
		}
	}
	if before.card != nil && (after.card == nil || after.card.card.Serial < before.card.card.Serial) {
		fault("an older card took the place of a newer one")
	}
	for i, f := range after.followers {
		if f == nil {
			if before.followers[i] != nil && after.card.card.Serial == before.card.card.Serial {
				fault("a feed was forgotten")
			}
			continue // nothing of a revoked node is stored here, so there is nothing to follow
		}
		held := contents(&f.set)
		was := before.followers[i]
		switch {
		case i == 1 && !m.said[1][held]:
			fault("the new node's feed holds %q", held)
		case !after.touched && f.sound && !m.said[i][held]:
			fault("a reader whom no thief reached holds %q", held)
		case !after.touched && f.frozen > 0 && !f.stolen:
			fault("an honest author is accused")
		case after.card != nil && after.card.card.Serial == 2 && i == 0 && held != "":
			fault("%q of a revoked node is in force", held)
		}
		if was != nil {
			switch {
			case f.headEpoch < was.headEpoch || f.headEpoch == was.headEpoch && f.headNumber < was.headNumber:
				fault("a head was replaced by an older one")
			case f.frozen < was.frozen || was.stolen && !f.stolen:
				fault("an accusation was forgotten")
			case was.stolen && held != "" && held != contents(&was.set):
				fault("a node whose key is stolen was believed")
			}
		}
		if f.status(testTime) == StatusSynced && f.n == f.head.N && f.epoch == f.headEpoch {
			m.mu.Lock()
			other, ok := m.synced[f.headHash]
			m.synced[f.headHash] = held
			m.mu.Unlock()
			if ok && other != held {
				fault("two readers are synced at one head with %q and %q", held, other)
			}
		}
	}
}

// heal delivers an honest broker's retained messages: twice, as pieces are taken when
// they are asked for. The reader must come to hold the author's newest state.
func (m *model) heal(s *modelState) {
	revoked := s.card != nil && s.card.card.Serial == 2
	if !revoked && s.followers[0] != nil && (s.touched || s.followers[0].stolen) {
		revoked = true // the author has made a new node
	}
	feed := 0
	if revoked {
		feed = 1
	}
	for range 3 {
		for i := range m.messages {
			x := &m.messages[i]
			if x.final && (x.card == nil && x.feed == feed || x.card != nil && revoked) || x.card != nil && x.card.Serial == 1 {
				s = m.deliver(s, x)
			}
		}
		s = m.deliver(s, nil)
	}
	f := s.followers[feed]
	if f == nil || f.status(testTime) != StatusSynced || contents(&f.set) != m.last[feed] {
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.faults) < 20 {
			why := "there is no follower"
			if f != nil {
				why = fmt.Sprintf("%s with %q", f.status(testTime), contents(&f.set))
			}
			m.faults[fmt.Sprintf("an honest broker does not bring feed %d to its author's state: %s", feed, why)] = true
		}
	}
}

// walk tries every message in every state, depth first, with two workers.
func (m *model) walk(most int) (states, deliveries int, closed bool) {
	var mu sync.Mutex
	seen := map[[16]byte]bool{}
	start := &modelState{}
	seen[start.key()] = true
	stack := []*modelState{start}
	busy := 0
	more := sync.NewCond(&mu)
	worker := func() {
		mu.Lock()
		defer mu.Unlock()
		for {
			for len(stack) == 0 && busy > 0 {
				more.Wait()
			}
			if len(stack) == 0 || len(seen) >= most {
				more.Broadcast()
				return
			}
			s := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			busy++
			mu.Unlock()
			next := make([]*modelState, 0, len(m.messages)+1)
			keys := make([][16]byte, 0, len(m.messages)+1)
			for i := range len(m.messages) + 1 {
				x := &modelMessage{what: "time"}
				var n *modelState
				if i < len(m.messages) {
					x = &m.messages[i]
					n = m.deliver(s, x)
				} else {
					n = m.deliver(s, nil)
				}
				m.check(s, n, x)
				next, keys = append(next, n), append(keys, n.key())
			}
			if k := s.key(); k[0]%16 == 0 {
				m.heal(s)
			}
			mu.Lock()
			deliveries += len(next)
			for i, n := range next {
				if !seen[keys[i]] {
					seen[keys[i]] = true
					stack = append(stack, n)
				}
			}
			busy--
			more.Broadcast()
		}
	}
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(worker)
	}
	workers.Wait()
	return len(seen), deliveries, len(stack) == 0
}

// TestHostileDeliveryIsTriedInEveryOrder walks the model.
func TestHostileDeliveryIsTriedInEveryOrder(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	states, deliveries, closed := m.walk(*modelStates)
	t.Logf("%d messages, %d states, %d deliveries, all there are: %v", len(m.messages), states, deliveries, closed)
	for _, f := range slices.Sorted(maps.Keys(m.faults)) {
		t.Error(f)
	}
	if states < *modelStates && !closed {
		t.Errorf("the walk ended early")
	}
	if len(m.synced) < 5 {
		t.Errorf("readers came to be synced at %d heads only: the model delivers too little", len(m.synced))
	}
}

// key tells states apart by whatever a later message may depend on.
func (s *modelState) key() (k [16]byte) {
	b := make([]byte, 0, 512)
	if s.card != nil {
		b = append(b, byte(s.card.card.Serial))
	}
	b = append(b, ';')
	flag := func(v ...bool) {
		for _, x := range v {
			b = appendBool(b, x)
		}
	}
	number := func(v ...uint64) {
		for _, x := range v {
			b = binary.AppendUvarint(b, x)
		}
	}
	flag(s.touched)
	for _, f := range s.followers {
		if flag(f == nil); f == nil {
			continue
		}
		number(f.epoch, f.n, uint64(f.gc), f.headEpoch, f.headNumber, f.frozen, uint64(f.level), f.pending.epoch, f.pending.last, uint64(f.set.count))
		flag(f.sound, f.recheck, f.recheckDispute, f.stolen, f.tooLarge, f.head == nil, f.manifest == nil, f.halted == nil, f.join == nil, f.joinNext.IsZero())
		b = append(b, f.headHash[:]...)
		b = append(b, contents(&f.set)...)
		b = appendHashes(b, slices.Collect(maps.Keys(f.pending.byN)), func(n uint64) wire.Hash { return f.pending.byN[n].Hash })
		b = appendHashes(b, slices.Collect(maps.Keys(f.recent)), func(n uint64) wire.Hash { return f.recent[n] })
		b = appendPieces(b, f.gathered)
		b = appendPieces(b, f.segments)
		if j := f.join; j != nil {
			flag(j.built)
			number(j.epoch, j.n, uint64(j.gc))
			b = append(b, j.from[:]...)
			b = append(b, contents(&j.set)...)
			b = appendPieces(b, j.chunks)
			b = appendHashes(b, slices.Collect(maps.Keys(j.hashes)), func(n uint64) wire.Hash { return j.hashes[n] })
		}
	}
	sum := sha256.Sum256(b)
	copy(k[:], sum[:])
	return k
}

func appendHashes(b []byte, numbers []uint64, of func(uint64) wire.Hash) []byte {
	slices.Sort(numbers)
	for _, n := range numbers {
		h := of(n)
		b = append(binary.AppendUvarint(b, n), h[:8]...)
	}
	return append(b, ';')
}

func appendPieces(b []byte, of map[wire.Hash]*wire.Message) []byte {
	for _, h := range slices.SortedFunc(maps.Keys(of), func(x, y wire.Hash) int { return slices.Compare(x[:], y[:]) }) {
		b = append(b, h[:8]...)
	}
	return append(b, ';')
}

// cloneFollower copies whatever a delivery changes.
func cloneFollower(f *follower) *follower {
	c := *f
	c.set = cloneSet(&f.set)
	c.pending.byN = maps.Clone(f.pending.byN)
	c.recent = maps.Clone(f.recent)
	c.gathered = maps.Clone(f.gathered)
	c.segments = maps.Clone(f.segments)
	c.wanted = slices.Clone(f.wanted)
	c.asked = maps.Clone(f.asked)
	c.logKeys = slices.Clone(f.logKeys)
	if f.join != nil {
		j := *f.join
		j.set = cloneSet(&f.join.set)
		j.chunks = maps.Clone(f.join.chunks)
		j.hashes = maps.Clone(f.join.hashes)
		c.join = &j
	}
	return &c
}

func cloneSet(s *set) set {
	c := set{count: s.count}
	for _, p := range s.pages {
		q := *p
		q.keys, q.ends, q.metas, q.saids = slices.Clone(p.keys), slices.Clone(p.ends), slices.Clone(p.metas), slices.Clone(p.saids)
		c.pages = append(c.pages, &q)
	}
	return c
}

// A field that the copy or the key does not know of would make the walk miss
// states: whoever adds one looks here.
func TestTheModelKnowsEveryFieldOfAFollower(t *testing.T) {
	t.Parallel()
	for of, want := range map[reflect.Type]int{
		reflect.TypeFor[pendingDeltas](): 4, reflect.TypeFor[follower](): 51, reflect.TypeFor[join](): 10, reflect.TypeFor[set](): 3, reflect.TypeFor[page](): 7,
	} {
		if got := of.NumField(); got != want {
			t.Errorf("%v has %d fields, the model knows %d: see cloneFollower, cloneSet and key", of, got, want)
		}
	}
}
