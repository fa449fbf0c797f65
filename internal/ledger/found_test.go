package ledger

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
)

// openAt opens a ledger of a file with a stall in each write.
func openAt(t *testing.T, path string, stall func()) (*Ledger, *store.Store) {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{Store: s, testingOnlyStall: stall})
	if err != nil {
		t.Fatal(err)
	}
	return l, s
}

func foundOf(i int) Local {
	now := time.Now()
	return Local{Topic: "sshd", At: now, Claim: ban.Claim{
		Target: ban.MustTarget(fmt.Sprintf("198.51.%d.%d", i/250, i%250)), End: now.Add(time.Hour), Hits: 5, Basis: ban.BasisStrong, Established: true,
	}}
}

// TestABanWaitsForNoDisk: an attack of fifty addresses a second at a disk that takes 30
// ms a write. Each ban is in the enforcers' hands in the moment in which it is found, and
// on disk after two writes at most.
func TestABanWaitsForNoDisk(t *testing.T) {
	t.Parallel()
	dir := memory(t)
	synctest.Test(t, func(t *testing.T) {
		const attack, each, write = 500, 20 * time.Millisecond, 30 * time.Millisecond
		writes := 0
		path := filepath.Join(dir, "found")
		l, s := openAt(t, path, func() { writes++; time.Sleep(write) })
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Own.Write(ctx) }()
		var slowest, behind time.Duration
		for i := range attack {
			began := time.Now()
			if err := l.Own.Found(foundOf(i)); err != nil {
				t.Fatal(err)
			}
			if got := l.Enforcement.Take(10); len(got) != 1 || !got[0].Ban {
				t.Fatalf("ban %d: the enforcers get %+v", i, got)
			}
			slowest = max(slowest, time.Since(began))
			time.Sleep(each)
			if _, since, _ := l.Own.Behind(); !since.IsZero() {
				behind = max(behind, time.Since(since))
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if slowest != 0 || behind > 2*write {
			t.Errorf("a ban took %s, and waited %s for the disk", slowest, behind)
		}
		if writes >= attack {
			t.Errorf("%d writes for %d bans", writes, attack)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again, s := openAt(t, path, nil)
		defer s.Close()
		if got := len(again.Own.Claims("sshd")); got != attack {
			t.Errorf("%d of %d bans are on disk", got, attack)
		}
	})
}

// TestWhatIsFoundIsPublishedWhenItIsOnDisk: and a person's acts meanwhile is later on
// disk, too.
func TestWhatIsFoundIsPublishedWhenItIsOnDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(memory(t), "order")
	l, s := openAt(t, path, nil)
	for i := range 3 {
		if err := l.Own.Found(foundOf(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.Own.Take(); len(got) != 0 {
		t.Errorf("published before it is on disk: %+v", got)
	}
	if n, since, fault := l.Own.Behind(); n != 3 || since.IsZero() || fault != nil {
		t.Errorf("behind: %d since %s, %v", n, since, fault)
	}
	if _, err := l.Own.Withdraw(Selection{Targets: []ban.Target{foundOf(1).Claim.Target}}, ban.ReasonEnded); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := l.Own.Behind(); n != 0 {
		t.Errorf("a person's decision left %d bans behind it", n)
	}
	if got := l.Own.Take(); len(got) != 1 || len(got[0].Claims) != 2 || len(got[0].Withdrawn) != 1 {
		t.Errorf("published %+v", got)
	}
	if err := l.Own.Found(foundOf(9)); err != nil {
		t.Fatal(err)
	}
	if err := l.Own.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := l.Own.Take(); len(got) != 1 || len(got[0].Claims) != 1 {
		t.Errorf("published after a flush: %+v", got)
	}
	if err := s.Close(); err != nil { // no orderly end
		t.Fatal(err)
	}
	again, s := openAt(t, path, nil)
	defer s.Close()
	if got := again.Own.Claims("sshd"); len(got) != 3 {
		t.Errorf("after a kill: %+v", got)
	}
}

// TestADiskThatRefusesKeepsNoBanOut: bans stay in force, wait, are said to be behind, and are
// written when it takes them again.
func TestADiskThatRefusesKeepsNoBanOut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(memory(t), "full")
	l, s := openAt(t, path, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Own.Found(foundOf(1)); err != nil {
		t.Fatal(err)
	}
	if err := l.Own.Flush(); err == nil {
		t.Error("a closed file takes a write")
	}
	if n, _, fault := l.Own.Behind(); n != 1 || fault == nil || len(l.Enforcement.Take(10)) != 1 {
		t.Errorf("behind: %d, %v", n, fault)
	}
	var err error
	if l.store, err = store.Open(path); err != nil {
		t.Fatal(err)
	}
	defer l.store.Close()
	if err := l.Own.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := l.Own.Behind(); n != 0 {
		t.Errorf("%d bans are behind still", n)
	}
	l.unwritten.list = make([]unwrittenClaim, maxUnwritten-1)
	if err := l.Own.Found(foundOf(2)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if err := l.Own.Found(foundOf(3)); !errors.Is(err, ErrBehind) || len(l.Enforcement.Take(10)) != 1 {
		t.Errorf("beyond the limit: %v", err)
	}
}
