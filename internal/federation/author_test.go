package federation

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

func openStore(tb testing.TB) *store.Store {
	tb.Helper()
	s, err := store.Open(filepath.Join(tb.TempDir(), "agent.db"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func newAuthor(tb testing.TB, s *store.Store, now time.Time) *author {
	tb.Helper()
	root, node := testKey("root"), testKey("node")
	a, err := openAuthor("testnet", "sshd", testFeed("sshd", root, node).Operator, node, noCard, s, now)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// TestAnAuthorReadsItsOwnStateBack restarts the author after every step and
// compares all that it knows.
func TestAnAuthorReadsItsOwnStateBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s, err := store.Open(filepath.Join(t.TempDir(), "agent.db"))
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		now := testTime
		root, node := testKey("root"), testKey("node")
		open := func() *author {
			a, err := openAuthor("testnet", "sshd", testFeed("sshd", root, node).Operator, node, noCard, s, now)
			if err != nil {
				rt.Fatal(err)
			}
			return a
		}
		a := open()
		want := map[ban.Key]wire.Entry{}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(rt, "seconds")) * time.Second)
			switch rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0, 1, 2, 3:
				es := genEntries(rt, "up")
				var down []wire.Withdrawal
				for range rapid.IntRange(0, 3).Draw(rt, "down") {
					down = append(down, wire.Withdrawal{Key: ban.KeyOf(genTarget(rt))})
				}
				es, down = wire.Settle(es, down)
				for _, e := range es {
					want[e.Key] = e
				}
				for _, w := range down {
					delete(want, w.Key)
				}
				if _, err := a.say(now, es, down); err != nil {
					rt.Fatal(err)
				}
			case 4:
				if _, err := a.tick(now, true); err != nil {
					rt.Fatal(err)
				}
			case 5:
				es := genEntries(rt, "all")
				clear(want)
				for _, e := range es {
					want[e.Key] = e
				}
				if _, err := a.sayAll(now, es); err != nil {
					rt.Fatal(err)
				}
			case 6:
				if _, err := a.restart(now, 0); err != nil {
					rt.Fatal(err)
				}
			}
			b := open()
			if a.n != b.n || a.epoch != b.epoch || a.headNumber != b.headNumber || a.set.fingerprint() != b.set.fingerprint() || a.gc != b.gc || len(a.pending) != len(b.pending) {
				rt.Fatalf("after a restart: n %d epoch %d head %d gc %d pending %d, before: n %d epoch %d head %d gc %d pending %d",
					b.n, b.epoch, b.headNumber, b.gc, len(b.pending), a.n, a.epoch, a.headNumber, a.gc, len(a.pending))
			}
			if rapid.Bool().Draw(rt, "go on as the restarted one") {
				a = b
			}
		}
		now = now.Add(time.Minute)
		if _, err := a.tick(now, true); err != nil {
			rt.Fatal(err)
		}
		a.setGC(now)
		for k, e := range want {
			if e.End <= a.gc {
				delete(want, k)
			}
		}
		checkSet(rt, &a.set, want)
	})
}

func TestAFullFeedFitsItsLimits(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	a := newAuthor(t, s, testTime)
	var es []wire.Entry
	for i := range 100_000 {
		e := wire.Entry{Key: ban.Key{Kind: ban.KindAddr4, B: [20]byte{byte(i >> 16), byte(i >> 8), byte(i), byte(i * 7)}}, End: wire.Minutes(testTime) + 10 + uint32(i%14000), Meta: wire.Meta{byte(ban.ClassAuth), byte(i % 9)}}
		if i%10 == 0 {
			e.Key = ban.Key{Kind: ban.KindAddr6, B: [20]byte{0x20, 1, byte(i >> 16), byte(i >> 8), byte(i), 15: 1}}
		}
		es = append(es, e)
	}
	want := set{}
	for i := range es {
		want.put(&es[i])
	}
	out, err := a.sayAll(testTime, want.between("", ""))
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, o := range out {
		if len(o.payload) > wire.MaxSent {
			t.Errorf("%v has %d bytes", o.name, len(o.payload))
		}
		if o.name.Kind == wire.KindHead && len(o.payload) > 400 {
			t.Errorf("a head of %d bytes", len(o.payload))
		}
		if o.name.Kind == wire.KindLive {
			continue
		}
		if _, err := wire.Open(o.name, o.payload); err != nil && o.payload != nil {
			t.Errorf("%v: %v", o.name, err)
		}
		total += len(o.payload)
	}
	t.Logf("%d claims in %d messages, %.2f bytes each", a.set.count, len(out), float64(total)/float64(a.set.count))
	// One more ban costs little, over many.
	bytes, messages := 0, 0
	now := testTime
	const more = 400
	for i := range more {
		now = now.Add(10 * time.Second)
		e := wire.Entry{Key: ban.Key{Kind: ban.KindAddr4, B: [20]byte{200, byte(i * 37), byte(i >> 8), byte(i)}}, End: wire.Minutes(now) + 60, Meta: wire.Meta{2, 5}}
		out, err := a.say(now, []wire.Entry{e}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out {
			bytes += len(o.payload)
			messages++
		}
	}
	t.Logf("one more ban: %d bytes of payload in %.2f messages", bytes/more, float64(messages)/more)
	if bytes/more > 1000 {
		t.Errorf("one more ban in a feed of 100,000 costs %d bytes", bytes/more)
	}
}

func TestDamagedRecordsBeginANewEpoch(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	a := newAuthor(t, s, testTime)
	es := wire.SortClaims([]ban.Claim{{Target: ban.MustTarget("192.0.2.1"), End: testTime.Add(time.Hour)}}, testTime)
	if _, err := a.say(testTime, es, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(func(tx store.Tx) error {
		return tx.Put(bucketOwn, a.storeKey(wire.KindDelta, 1), []byte("garbage"))
	}); err != nil {
		t.Fatal(err)
	}
	b := newAuthor(t, s, testTime)
	if b.epoch <= a.epoch || b.set.count != 0 || b.n != 0 {
		t.Errorf("epoch %d after %d, %d claims, n %d", b.epoch, a.epoch, b.set.count, b.n)
	}
}

// Claims that ended by themselves are not withdrawn when the whole feed is said again, as a
// reload does.
func TestWhatHasEndedIsNotWithdrawn(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, openStore(t), testTime)
	now := testTime.Truncate(time.Minute).Add(10 * time.Second)
	var claims []ban.Claim
	for i := range 200 {
		claims = append(claims, ban.Claim{Target: ban.MustTarget(fmt.Sprintf("192.0.2.%d", i)), End: now.Add(time.Duration(i) * time.Second)})
	}
	if _, err := a.sayAll(now, wire.SortClaims(claims, now)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		now = now.Add(35 * time.Second)
		var live []ban.Claim
		for _, c := range claims {
			if c.End.After(now) {
				live = append(live, c)
			}
		}
		out, err := a.sayAll(now, wire.SortClaims(live, now))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out {
			m, err := wire.Open(o.name, o.payload)
			if err != nil {
				t.Fatal(err)
			}
			if d, ok := m.Body.(*wire.Delta); ok && len(d.Down) > 0 {
				t.Errorf("%v after the start %d claims that ended are withdrawn", now.Sub(testTime), len(d.Down))
			}
		}
	}
}
