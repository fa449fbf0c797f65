package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/lists"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

// publicList measures a public list of so many entries: from its bytes to entries, and
// from entries to claims that are on disk and judged; and the same list again, a tenth of
// it new.
func publicList(dir string, entries int) error {
	p, err := policy.Compile(policy.Source{Imports: map[string]policy.ImportSource{"list:bench": {Topics: []string{"sshd"}, Live: entries}}}, nil)
	if err != nil {
		return err
	}
	s, err := store.Open(filepath.Join(dir, "lists.db"))
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := ledger.Open(ledger.Options{Store: s, Policy: p})
	if err != nil {
		return err
	}
	before := heap()
	for _, first := range []int{0, entries / 10} {
		var text bytes.Buffer
		for i := range entries {
			fmt.Fprintln(&text, address(first+i))
		}
		began := time.Now()
		e, err := lists.Read(&text, lists.Options{Most: entries})
		if err != nil {
			return err
		}
		read := time.Since(began)
		end := began.Add(48 * time.Hour)
		claims := make([]ban.Claim, 0, len(e.Targets))
		for _, t := range lists.Sorted(e.Targets) {
			claims = append(claims, ban.Claim{Target: t, End: end, Basis: ban.BasisHandedOver})
		}
		began = time.Now()
		if err := l.Peers.Apply(ban.Change{Feed: ban.Import("list:bench").Feed("sshd"), Reset: true, Claims: claims}); err != nil {
			return err
		}
		name := map[bool]string{true: "list-first", false: "list-tenth-new"}[first == 0]
		figure(name+"-read", float64(read.Microseconds())/1000, "ms", "200")
		figure(name+"-apply", float64(time.Since(began).Microseconds())/1000, "ms", "1000")
		if got := len(l.Peers.Imported("list:bench", "sshd")); got != entries {
			return fmt.Errorf("%d entries count, want %d", got, entries)
		}
	}
	figure("list-memory", float64(heap()-before)/(1<<20), "MB", "20")
	info, err := os.Stat(filepath.Join(dir, "lists.db"))
	if err != nil {
		return err
	}
	figure("list-disk", float64(info.Size())/(1<<20), "MB", "20")
	runtime.KeepAlive(l)
	return nil
}

// heap gives the bytes in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
