package federation

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// -soak runs the hostile network again and again for this long.
var soak = flag.Duration("soak", 0, "how long the hostile network is tried")

// TestAHostileNetworkDelaysAndNeverDeceives runs an author and two readers
// over two brokers that lose, repeat, reorder, replay, forge and forget, with
// clocks that are a day wrong and machines that crash or come back from a
// backup. At every step no reader holds a claim that its author never made, and none
// goes back. After the network has healed each reader holds the author's set.
func TestAHostileNetworkDelaysAndNeverDeceives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if memory, err := os.MkdirTemp("/dev/shm", "hostile"); err == nil {
		// The disk is not under test, and this is ten times faster.
		dir = memory
		t.Cleanup(func() { os.RemoveAll(memory) })
	}
	for range hostileRounds {
		if rapid.Check(t, func(rt *rapid.T) { hostile(rt, dir) }); t.Failed() {
			return
		}
	}
	for deadline := time.Now().Add(*soak); time.Now().Before(deadline) && !t.Failed(); {
		rapid.Check(t, func(rt *rapid.T) { hostile(rt, dir) })
	}
}

// A hostileBroker keeps retained messages and a queue for each reader.
type hostileBroker struct {
	retained map[string][]byte
	before   []map[string][]byte // its earlier contents
	queue    [2][]packet         // by reader, not delivered yet
	down     bool                // the author's messages do not arrive
}

func (b *hostileBroker) take(o outgoing) {
	t := o.name.String()
	switch {
	case o.name.Kind == wire.KindLive:
	case o.payload == nil:
		delete(b.retained, t)
	default:
		b.retained[t] = o.payload
	}
	for i := range b.queue {
		b.queue[i] = append(b.queue[i], packet{topic: t, payload: o.payload})
	}
}

func (b *hostileBroker) holds() (out []packet) {
	for _, t := range slices.Sorted(maps.Keys(b.retained)) {
		out = append(out, packet{topic: t, payload: b.retained[t]})
	}
	return out
}

type hostileWorld struct {
	rt      *rapid.T
	dir     string
	now     time.Time
	author  *author
	astore  *store.Store
	apath   string
	backup  string
	skew    time.Duration // of the author
	brokers [2]*hostileBroker
	readers [2]*hostileReader
	history []packet
	said    map[ban.Claim]bool
	feed    ban.Feed
	card    []byte
	checked wire.Verifier // by the author
}

// A hostileReader is a session that is never run: the test hands it messages.
type hostileReader struct {
	w      *hostileWorld
	s      *Session
	store  *store.Store
	path   string
	skew   time.Duration
	ledger map[ban.Target]ban.Claim
	epoch  uint64
	n      uint64
}

func hostile(rt *rapid.T, parent string) {
	dir, err := os.MkdirTemp(parent, "world")
	if err != nil {
		rt.Fatal(err)
	}
	defer os.RemoveAll(dir)
	w := &hostileWorld{rt: rt, dir: dir, now: testTime, said: map[ban.Claim]bool{}}
	root, node := testKey("root"), testKey("node")
	w.feed = testFeed("sshd", root, node)
	card := wire.Card{Serial: 1, Issued: testTime.Add(-48 * time.Hour), Certificates: []wire.Certificate{{Key: publicOf(node), NotBefore: testTime.Add(-72 * time.Hour), NotAfter: testTime.Add(80 * 24 * time.Hour)}}}
	if w.card, err = card.Sign(root); err != nil {
		rt.Fatal(err)
	}
	for i := range w.brokers {
		w.brokers[i] = &hostileBroker{retained: map[string][]byte{}}
	}
	w.apath = filepath.Join(dir, "author.db")
	w.openAuthor()
	defer func() { w.astore.Close() }()
	for i := range w.readers {
		w.readers[i] = &hostileReader{w: w, path: filepath.Join(dir, string(rune('0'+i))+".db")}
		w.readers[i].open()
		defer w.readers[i].close()
	}
	for range rapid.IntRange(5, 120).Draw(rt, "steps") {
		w.now = w.now.Add(time.Duration(rapid.IntRange(0, 90).Draw(rt, "seconds")) * time.Second)
		w.step()
		for _, r := range w.readers {
			r.check()
		}
	}
	w.heal()
}

func (w *hostileWorld) authorNow() time.Time { return w.now.Add(w.skew) }

func (w *hostileWorld) openAuthor() {
	var err error
	if w.astore, err = store.Open(w.apath); err != nil {
		w.rt.Fatal(err)
	}
	w.author, err = openAuthor("testnet", "sshd", w.feed.Operator, testKey("node"), noCard, w.astore, w.authorNow())
	if err != nil {
		w.rt.Fatal(err)
	}
}

// publish hands the author's messages to the brokers that it reaches.
func (w *hostileWorld) publish(out []outgoing, err error) {
	if err != nil {
		w.rt.Fatal(err)
	}
	if w.author.silence() != "" {
		return
	}
	for _, o := range out {
		w.history = append(w.history, packet{topic: o.name.String(), payload: o.payload})
		for _, b := range w.brokers {
			if !b.down {
				b.take(o)
			}
		}
	}
}

func (w *hostileWorld) step() {
	rt := w.rt
	b := w.brokers[rapid.IntRange(0, 1).Draw(rt, "broker")]
	r := w.readers[rapid.IntRange(0, 1).Draw(rt, "reader")]
	who := slices.Index(w.readers[:], r)
	switch rapid.IntRange(0, 22).Draw(rt, "step") {
	case 0, 1, 2, 3: // the author says something
		var claims []ban.Claim
		for range rapid.IntRange(0, 4).Draw(rt, "claims") {
			c := genClaim(rt)
			c.End = wire.TimeOfMinute(wire.Minutes(w.authorNow()) + uint32(rapid.IntRange(1, 3000).Draw(rt, "for")))
			claims = append(claims, c)
			w.said[c] = true
		}
		var down []wire.Withdrawal
		for range rapid.IntRange(0, 2).Draw(rt, "withdrawn") {
			down = append(down, wire.Withdrawal{Key: ban.KeyOf(genTarget(rt))})
		}
		up, down := wire.Settle(wire.SortClaims(claims, w.authorNow()), down)
		w.publish(w.author.say(w.authorNow(), up, down))
	case 4:
		w.publish(w.author.tick(w.authorNow(), true))
	case 5: // a burst, so that segments and snapshots come up
		for range 30 {
			c := genClaim(rt)
			c.End = wire.TimeOfMinute(wire.Minutes(w.authorNow()) + uint32(rapid.IntRange(1, 3000).Draw(rt, "for")))
			w.said[c] = true
			w.now = w.now.Add(2 * time.Second)
			w.publish(w.author.say(w.authorNow(), []wire.Entry{wire.EntryOf(c)}, nil))
		}
	case 6: // kill -9 after the commit: its messages are not published
		w.astore.Close()
		w.openAuthor()
	case 7: // a backup is taken
		w.backup = filepath.Join(w.dir, "backup.db")
		os.Remove(w.backup)
		if err := w.astore.Backup(w.backup); err != nil {
			rt.Fatal(err)
		}
	case 8: // and restored; or the disk is lost
		w.astore.Close()
		os.Remove(w.apath)
		if w.backup != "" {
			if err := os.Rename(w.backup, w.apath); err != nil {
				rt.Fatal(err)
			}
			w.backup = ""
		}
		w.openAuthor()
		// An author that forgot must find its messages at some broker. If all
		// brokers have forgotten too and its clock was wrong, it needs a new key.
		w.look(w.history)
	case 9:
		b.down = !b.down
	case 10: // the author learns a broker's contents, and fills it
		w.look(b.holds())
		if !b.down && w.author.silence() == "" {
			w.fill(b)
		}
	case 11: // a broker forgets, or goes back to earlier contents
		b.before = append(b.before, maps.Clone(b.retained))
		b.retained = map[string][]byte{}
		if rapid.Bool().Draw(rt, "back") {
			b.retained = maps.Clone(b.before[rapid.IntRange(0, len(b.before)-1).Draw(rt, "to")])
		}
	case 12, 13, 14, 15: // deliver, in any order
		for range rapid.IntRange(1, 40).Draw(rt, "deliveries") {
			if q := b.queue[who]; len(q) > 0 {
				i := 0
				if rapid.IntRange(0, 3).Draw(rt, "reorder") == 0 {
					i = rapid.IntRange(0, len(q)-1).Draw(rt, "which")
				}
				p := q[i]
				switch rapid.IntRange(0, 7).Draw(rt, "fate") {
				case 0: // lost
					b.queue[who] = slices.Delete(q, i, i+1)
				case 1: // repeated
					r.receive(p)
				default:
					b.queue[who] = slices.Delete(q, i, i+1)
					r.receive(p)
				}
			}
		}
	case 16: // anything ever sent, where it belongs or elsewhere, or damaged
		if len(w.history) > 0 {
			p := w.history[rapid.IntRange(0, len(w.history)-1).Draw(rt, "old")]
			if q := w.history[rapid.IntRange(0, len(w.history)-1).Draw(rt, "place")]; rapid.Bool().Draw(rt, "elsewhere") {
				p.topic = q.topic
			}
			if rapid.Bool().Draw(rt, "another topic or network") {
				p.topic = strings.Replace(strings.Replace(p.topic, "sshd", "livepeer", 1), "testnet", "othernet", rapid.IntRange(0, 1).Draw(rt, "network"))
			}
			if len(p.payload) > 0 && rapid.Bool().Draw(rt, "damage") {
				p.payload = slices.Clone(p.payload)
				p.payload[rapid.IntRange(0, len(p.payload)-1).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
			}
			p.retained = rapid.Bool().Draw(rt, "retained")
			r.receive(p)
		}
	case 17: // a self-signed message: a thief of nothing can make it
		f := testFeed("sshd", testKey("root"), testKey("thief"))
		up := []wire.Entry{wire.EntryOf(ban.Claim{Target: ban.MustTarget("9.9.9.9"), End: w.now.Add(time.Hour)})}
		n := wire.FeedName("testnet", f, wire.KindDelta, 1)
		r.receive(packet{topic: n.String(), payload: wire.Seal(testKey("thief"), wire.Header{Kind: wire.KindDelta, Network: "testnet", Topic: "sshd", Operator: f.Operator, Epoch: 9 << wire.EpochShift, Number: 1, Issued: w.now}, (&wire.Delta{Up: up}).Append(nil))})
	case 18, 19: // the reader asks a broker for its missing parts
		r.fetch(b, func() bool { return rapid.IntRange(0, 5).Draw(rt, "lost") == 0 })
	case 20: // the reader's process dies
		r.close()
		r.open()
	case 21:
		r.skew = time.Duration(rapid.SampledFrom([]int{-24, 0, 24}).Draw(rt, "hours")) * time.Hour
	case 22:
		w.skew = time.Duration(rapid.SampledFrom([]int{-24, 0, 24}).Draw(rt, "hours")) * time.Hour
	}
}

// fill gives a broker everything of the feed; that too is said.
func (w *hostileWorld) fill(b *hostileBroker) {
	err := w.author.retained(func(o outgoing) {
		w.history = append(w.history, packet{topic: o.name.String(), payload: o.payload})
		b.take(o)
	})
	if err != nil {
		w.rt.Fatal(err)
	}
}

// look shows the author a broker's copy of its feed.
func (w *hostileWorld) look(holds []packet) {
	seen := uint64(0)
	for _, p := range holds {
		n, err := wire.ParseTopicName(p.topic)
		if err != nil {
			w.rt.Fatal(err)
		}
		m, _, err := w.checked.Open(n, p.payload)
		if err != nil || n.Kind != wire.KindHead && n.Kind != wire.KindDelta {
			continue
		}
		switch w.author.saw(m, true) {
		case sightRestored:
			seen = max(seen, m.Header.Epoch)
		case sightCloned:
			if m.Header.Ahead(w.authorNow()) { // by a clock of ours that was wrong; no publisher judges it
				seen = max(seen, m.Header.Epoch)
				continue
			}
			w.author.stop("cloned")
		}
	}
	if seen > 0 {
		w.publish(w.author.restart(w.authorNow(), seen))
	}
}

func (r *hostileReader) open() {
	var err error
	if r.store, err = store.Open(r.path); err != nil {
		r.w.rt.Fatal(err)
	}
	r.ledger = map[ban.Target]ban.Claim{}
	id := keys.New(filepath.Dir(r.path), testKey("reader"), testKey("reader-root"))
	r.s, err = New(Options{Network: "testnet", Identity: id, Store: r.store, Apply: r.apply, Now: func() time.Time { return r.w.now.Add(r.skew) }})
	if err != nil {
		r.w.rt.Fatal(err)
	}
	if err := r.s.AddCard(r.w.card); err != nil {
		r.w.rt.Fatal(err)
	}
	r.s.Follow([]Following{{"sshd", r.w.feed.Operator}, {"livepeer", r.w.feed.Operator}})
	if err := r.s.Restore(context.Background()); err != nil {
		r.w.rt.Fatal(err)
	}
	r.check()
}

func (r *hostileReader) close() {
	r.store.Close()
}

func (r *hostileReader) apply(_ context.Context, c ban.Change) error {
	if c.Feed != r.w.feed {
		if len(c.Claims) > 0 {
			r.w.rt.Fatalf("a change of another feed: %+v", c)
		}
		return nil
	}
	if c.Reset {
		clear(r.ledger)
	}
	for _, x := range c.Claims {
		r.ledger[x.Target] = x
	}
	for _, x := range c.Withdrawn {
		delete(r.ledger, x.Target)
	}
	return nil
}

func (r *hostileReader) receive(p packet) {
	r.s.receive(p)
	r.step()
}

func (r *hostileReader) step() {
	if err := r.s.step(context.Background()); err != nil {
		r.w.rt.Fatal(err)
	}
}

// check asserts the invariants of every moment.
func (r *hostileReader) check() {
	for _, c := range r.ledger {
		if !r.w.said[c] {
			r.w.rt.Fatalf("the reader holds %+v, which its author never said", c)
		}
	}
	f := r.s.reader.followers[r.w.feed]
	if f == nil {
		r.w.rt.Fatal("the feed is not followed")
	}
	if f.epoch < r.epoch || f.epoch == r.epoch && f.n < r.n {
		r.w.rt.Fatalf("the reader went back from %d/%d to %d/%d", r.epoch, r.n, f.epoch, f.n)
	}
	r.epoch, r.n = f.epoch, f.n
}

// synced says whether the reader has its author's present set.
func (r *hostileReader) synced() bool {
	for _, f := range r.s.Feeds() {
		if f.Feed == r.w.feed {
			return f.Status == StatusSynced && f.Epoch == r.w.author.epoch && f.Batch == r.w.author.n
		}
	}
	return false
}

// fetch lets the reader subscribe: to all that it listens to and all it wants.
func (r *hostileReader) fetch(b *hostileBroker, lost func() bool) {
	if err := r.s.tick(); err != nil {
		r.w.rt.Fatal(err)
	}
	r.step()
	r.s.mu.Lock()
	want := map[string]bool{}
	for t, h := range r.s.base {
		want[t] = true
		for _, once := range h.catchUp {
			want[once] = true
		}
	}
	for _, f := range r.s.reader.followers {
		for _, n := range f.wanted {
			want[n.String()] = true
		}
	}
	r.s.mu.Unlock()
	for _, t := range slices.Sorted(maps.Keys(b.retained)) {
		levels := strings.Split(t, "/")
		levels[5] = "+" // the node
		if (want[t] || want[strings.Join(levels, "/")]) && !lost() {
			r.receive(packet{topic: t, payload: b.retained[t], retained: true})
		}
	}
}

// heal puts the clocks and one broker right and lets everybody talk. The other
// broker goes on serving whatever it has.
func (w *hostileWorld) heal() {
	w.skew = 0
	w.brokers[0].down = false
	w.now = w.now.Add(time.Minute)
	w.astore.Close()
	w.openAuthor()
	w.publish(w.author.tick(w.authorNow(), true))
	w.look(w.brokers[1].holds())
	w.look(w.brokers[0].holds())
	for range 2 {
		w.fill(w.brokers[0])
		w.now = w.now.Add(time.Second)
		w.publish(w.author.tick(w.authorNow(), true))
	}
	w.now = w.now.Add(2 * time.Hour)
	w.publish(w.author.tick(w.authorNow(), true))
	if s := w.author.silence(); s != "" {
		w.rt.Fatalf("the author is silent after the network has healed: %s", s)
	}
	want := map[ban.Target]ban.Claim{}
	w.author.set.each(func(e *wire.Entry) {
		if c := e.Claim(); c.End.After(w.now) {
			want[c.Target] = c
		}
	})
	for i, r := range w.readers {
		r.skew = 0
		for i, synced := 0, 0; i < 40 && synced < 3; i++ {
			w.now = w.now.Add(time.Minute)
			r.fetch(w.brokers[1], func() bool { return false })
			r.fetch(w.brokers[0], func() bool { return false })
			if r.synced() {
				synced++ // and it stays so
			}
		}
		got := map[ban.Target]ban.Claim{}
		for t, c := range r.ledger {
			if c.End.After(w.now.Add(-40 * time.Minute * time.Duration(i+1))) {
				got[t] = c
			}
		}
		for t, c := range want {
			if r.ledger[t] != c {
				w.rt.Fatalf("after healing reader %d has %+v, want %+v; %s", i, r.ledger[t], c, r.s.reader.followers[w.feed].debug())
			}
		}
		for t, c := range got {
			if want[t] != c && c.End.After(w.now) {
				w.rt.Fatalf("after healing reader %d still has %+v; feed %+v", i, c, r.s.Feeds())
			}
		}
		for _, f := range r.s.Feeds() {
			if f.Feed == w.feed && f.Status != StatusSynced {
				w.rt.Fatalf("after healing reader %d is %s; author at %d/%d; %s", i, f.Status, w.author.epoch, w.author.n, r.s.reader.followers[w.feed].debug())
			}
		}
	}
}

func (f *follower) debug() string {
	s := fmt.Sprintf("at %d/%d sound %v, head %d/%d, joinNext %v, pending %d/%d (%d), level %d, tries %d, frozen %d, wants %v", f.epoch, f.n, f.sound, f.headEpoch, f.headNumber, f.joinNext,
		f.pending.epoch, f.pending.last, len(f.pending.byN), f.level, f.tries, f.frozen, f.wanted)
	if f.head != nil {
		s += fmt.Sprintf(", head n %d snapshot %d pieces %+v", f.head.N, f.head.SnapshotN, f.pieces())
	}
	return s
}
