package federation

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
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

// memoryMax is the MemoryMax of the agent's unit, goMemLimit its GOMEMLIMIT.
const (
	memoryMax  = 1 << 30
	goMemLimit = "GOMEMLIMIT=900MiB"
)

// The child of TestAStartBesideAHugePeerIsBounded reads from its environment
// where the store is, whom to follow, how many claims are stored, and the file
// that puts it under the unit's limit ("" for none).
const (
	envHugeStore    = "BANMESH_TEST_HUGE_STORE"
	envHugeOperator = "BANMESH_TEST_HUGE_OPERATOR"
	envHugeClaims   = "BANMESH_TEST_HUGE_CLAIMS"
	envHugeCgroup   = "BANMESH_TEST_HUGE_CGROUP"
)

// limitedGroup makes a cgroup with the unit's MemoryMax, of either version, and
// gives the file in which a process enters it, or "" where that is not allowed.
func limitedGroup(t *testing.T) string {
	t.Helper()
	for _, v := range []struct{ root, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"},
	} {
		dir := filepath.Join(v.root, fmt.Sprintf("banmesh-test-%d", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { os.Remove(dir) })
		f, err := os.OpenFile(filepath.Join(dir, v.limit), os.O_WRONLY, 0) // there already, where memory is accounted
		if err != nil {
			continue
		}
		_, err = f.WriteString(strconv.Itoa(memoryMax))
		if errors.Join(err, f.Close()) == nil {
			return filepath.Join(dir, "cgroup.procs")
		}
	}
	return ""
}

// The stored feeds of a peer with three nodes of a million claims each cost a
// start the readers' compact state and the ledger's share of one operator. A
// process of its own starts under the unit's limits.
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
	group := limitedGroup(t)
	if group == "" {
		t.Log("no cgroup can be made here: only the peak is looked at")
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestHugePeerChild$")
	c.Env = append(os.Environ(), goMemLimit, envHugeStore+"="+path, envHugeOperator+"="+operator.String(),
		envHugeClaims+"="+strconv.Itoa(claims), envHugeCgroup+"="+group)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("the start: %v\n%s", err, out)
	}
	peak := c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	t.Logf("figure start_huge_peer_rss_mib %d aim %d, in a cgroup: %v", peak>>20, memoryMax>>20, group != "")
	if peak >= memoryMax {
		t.Errorf("the start took %d MiB; its unit has %d", peak>>20, memoryMax>>20)
	}
}

// TestHugePeerChild is the start that TestAStartBesideAHugePeerIsBounded looks at.
func TestHugePeerChild(t *testing.T) {
	path := os.Getenv(envHugeStore)
	if path == "" {
		t.Skip("run by TestAStartBesideAHugePeerIsBounded")
	}
	if group := os.Getenv(envHugeCgroup); group != "" {
		if err := os.WriteFile(group, []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	claims, err := strconv.Atoi(os.Getenv(envHugeClaims))
	if err != nil {
		t.Fatal(err)
	}
	operator, err := ban.ParseOperator(os.Getenv(envHugeOperator))
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(path)
	if err != nil {
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
	id, err := keys.Create(filepath.Join(t.TempDir(), "identity"), "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Network: "testnet", Identity: id, Store: st, Commit: func(_ context.Context, write func(store.Tx) error, changes iter.Seq[ban.Change]) error {
		return l.Peers.ApplyAll(changes, write)
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Follow([]Following{{"sshd", operator}})
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Loaded()
	if s := l.Stats(); s.Feeds != 3 || s.Banned != 20_000 || s.Claims > 30_000 || s.Claims+s.Dropped != 3*claims {
		t.Errorf("the ledger holds %+v", s)
	}
}
