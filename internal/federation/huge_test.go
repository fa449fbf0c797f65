package federation

import (
	"context"
	"encoding/binary"
	"iter"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// hugeFeed stores a feed as a reader that followed it has it.
func hugeFeed(t *testing.T, st *store.Store, feed ban.Feed, first, n int, now time.Time) {
	t.Helper()
	f := newFollower("testnet", feed)
	f.epoch, f.n, f.sound = 1, 1, true
	for i := range n {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(11<<24+first+i))
		target, err := ban.TargetOfAddr(netip.AddrFrom4(a))
		if err != nil {
			t.Fatal(err)
		}
		es := wire.SortClaims([]ban.Claim{{Target: target, End: now.Add(time.Duration(60+i%5000) * time.Minute), Class: ban.ClassScan, Basis: ban.BasisStrong}}, now)
		f.set.put(&es[0])
	}
	fx := effects{now: now}
	f.storeBase(&fx)
	if err := st.Update(func(tx store.Tx) error { return putAll(tx, fx.contents[feed]) }); err != nil {
		t.Fatal(err)
	}
}

// The stored feeds of a peer with three nodes of a million claims each cost a
// start the readers' compact state and the ledger's share of one operator.
func TestAStartBesideAHugePeerIsBounded(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	path := filepath.Join(t.TempDir(), "agent.db")
	st, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	root := testKey("alice")
	var operator ban.Operator
	claims := 1_000_000
	if hostileRounds == 1 { // under the race detector
		claims = 50_000
	}
	for i, name := range []string{"one", "two", "three"} {
		feed := testFeed("sshd", root, testKey(name))
		operator = feed.Operator
		hugeFeed(t, st, feed, i*claims, claims, now)
	}
	st.Close()
	if st, err = store.Open(path); err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	p, err := policy.Compile(policy.Source{
		Operators: map[string]policy.OperatorSource{"alice": {ID: operator.String()}},
		Topics:    map[string]policy.TopicSource{"sshd": {Ban: "any of alice"}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(ledger.Options{Store: st, Policy: p, Loading: true})
	if err != nil {
		t.Fatal(err)
	}
	id, err := keys.Create(filepath.Join(t.TempDir(), "identity"), "", now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Network: "testnet", Identity: id, Store: st, Commit: func(_ context.Context, write func(store.Tx) error, changes iter.Seq[ban.Change]) error {
		return l.Peers.ApplyAll(changes, write)
	}})
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s.Follow([]Following{{"sshd", operator}})
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Loaded()
	runtime.ReadMemStats(&after)
	if grown := (after.Sys - before.Sys) >> 20; grown > 600 {
		t.Errorf("the start took %d MiB from the system; its unit has 1024", grown)
	}
	if s := l.Stats(); s.Feeds != 3 || s.Banned != 20_000 || s.Claims > 30_000 || s.Claims+s.Dropped != 3*claims {
		t.Errorf("the ledger holds %+v", s)
	}
}
