// Benchpolicy measures policy and ledger at a million claims: the time for one
// changed claim until its verdict is known, loading from disk, and memory.
//
//	go run ./test/sim/benchpolicy [-claims 1000000] [-operators 100]
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/ledger"
	"banmesh/internal/store"
)

func main() {
	claims := flag.Int("claims", 1_000_000, "claims in the ledger")
	operators := flag.Int("operators", 100, "operators that make them")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	events := flag.Int("events", 100_000, "changed claims to time")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "benchpolicy: error:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	dir, err := os.MkdirTemp("", "benchpolicy")
	if err == nil {
		err = errors.Join(run(dir, *claims, *operators, *events), os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchpolicy: error:", err)
		os.Exit(1)
	}
}

func run(dir string, claims, operators, events int) error {
	rng := rand.New(rand.NewPCG(2026, 3)) // a fixed seed: the same claims in every run
	now := time.Now().Truncate(time.Second)
	p, feeds, err := network(operators)
	if err != nil {
		return err
	}
	s, err := store.Open(filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	never := protection{ban.NewPrefixes(func(yield func(netip.Prefix, string) bool) {
		for i := range 60 {
			if !yield(netip.PrefixFrom(netip.AddrFrom4([4]byte{200, byte(i), 0, 1}), 32), "entry") {
				return
			}
		}
	})}
	o := ledger.Options{Store: s, Policy: p, NeverBan: never, Now: func() time.Time { return now }}

	// Each operator claims targets out of one pool, so that most targets are
	// claimed by two or three.
	pool := claims * 2 / 5
	changes := make([]ban.Change, operators)
	for i := range changes {
		changes[i] = ban.Change{Feed: feeds[i], Reset: true}
		seen := map[int]bool{}
		for len(seen) < claims/operators {
			n := rng.IntN(pool)
			if !seen[n] {
				seen[n] = true
				changes[i].Claims = append(changes[i].Claims, claim(n, now, rng))
			}
		}
		slices.SortFunc(changes[i].Claims, ban.Claim.Compare)
	}

	base := heap()
	l, err := ledger.Open(o)
	if err != nil {
		return err
	}
	watch := begin()
	for _, c := range changes {
		if err := l.Peers.Apply(c); err != nil {
			return err
		}
	}
	joined := watch.end()
	for range l.Enforcement.Desired() {
	}
	size := 0
	for _, c := range changes {
		size += len(c.Claims)
	}
	own := heap() - base
	fmt.Printf("%d claims of %d operators on %d targets, rule: %s\n", l.Stats().Claims, operators, l.Stats().Targets, p.Source().Topics["sshd"].Ban)

	// Changed claims, one each, new, withdrawn or renewed, as feeds bring them: as
	// many share a durable write as the federation gathers.
	const batch = 256
	took := make([]time.Duration, 0, events/batch)
	for range events / batch {
		changed := make([]ban.Change, batch)
		for i := range changed {
			f := rng.IntN(operators)
			changed[i] = ban.Change{Feed: feeds[f]}
			if rng.IntN(3) == 0 {
				changed[i].Withdrawn = ban.Withdraw(ban.ReasonEnded, target(rng.IntN(pool)))
			} else {
				changed[i].Claims = []ban.Claim{claim(rng.IntN(pool), now, rng)}
			}
		}
		start := time.Now()
		if err := l.Peers.Apply(changed...); err != nil {
			return err
		}
		took = append(took, time.Since(start)/batch)
		l.Enforcement.Take(1 << 20)
	}
	slices.Sort(took)
	total := time.Duration(0)
	for _, d := range took {
		total += d
	}

	watch = begin()
	l.SetPolicy(p)
	all := watch.end()
	if err := errors.Join(l.Close(), s.Close()); err != nil {
		return err
	}

	// A restart: open the state, then the federation replays every feed.
	if s, err = store.Open(filepath.Join(dir, "state")); err != nil {
		return err
	}
	o.Store, o.Loading = s, true
	watch = begin()
	if l, err = ledger.Open(o); err != nil {
		return err
	}
	for _, c := range changes {
		if err := l.Peers.Apply(c); err != nil {
			return err
		}
	}
	l.Loaded()
	reload := watch.end()
	o.Loading = false
	if err := s.Close(); err != nil {
		return err
	}

	// The same number of own bans, which the ledger itself stores.
	if s, err = store.Open(filepath.Join(dir, "own")); err != nil {
		return err
	}
	o.Store = s
	if l, err = ledger.Open(o); err != nil {
		return err
	}
	start := time.Now()
	for from := 0; from < claims; from += 10_000 {
		batch := make([]ledger.Local, 0, 10_000)
		for n := from; n < min(claims, from+10_000); n++ {
			batch = append(batch, ledger.Local{Topic: "sshd", Claim: claim(n, now, rng)})
		}
		if _, err := l.Own.BanAll(batch); err != nil {
			return err
		}
	}
	banned := time.Since(start)
	singles := 500
	start = time.Now()
	for n := range singles {
		if err := l.Own.Ban(ledger.Local{Topic: "sshd", Claim: claim(claims+n, now, rng), Evidence: ledger.Evidence{By: "sshd"}}); err != nil {
			return err
		}
	}
	single := time.Since(start) / time.Duration(singles)
	disk := s.Size()
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = store.Open(filepath.Join(dir, "own")); err != nil {
		return err
	}
	defer s.Close()
	o.Store = s
	watch = begin()
	if _, err = ledger.Open(o); err != nil {
		return err
	}
	open := watch.end()

	figure("verdict_changed_claim_mean", micro(total/time.Duration(len(took))), "us", "20")
	figure("verdict_changed_claim_p99", micro(took[len(took)*99/100]), "us", "20")
	all.print("verdicts_all_again", "-")
	joined.print("join_all_feeds", "-")
	reload.print("load_after_restart", "2")
	open.print("load_own_claims", "2")
	figure("own_ban_batched", micro(banned/time.Duration(claims)), "us", "-")
	figure("own_ban_single_durable", micro(single), "us", "-")
	figure("own_claims_on_disk", fmt.Sprintf("%.1f", float64(disk)/float64(claims)), "B/claim", "-")
	figure("memory_ledger", fmt.Sprintf("%.0f", float64(own)/(1<<20)), "MiB", "150")
	return nil
}
