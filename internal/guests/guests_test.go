package guests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

var start = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// clocked opens a set whose clock is the test's.
func clocked(t *testing.T, path string, now *time.Time) *Set {
	t.Helper()
	s, err := Open(Options{Path: path, Now: func() time.Time { return *now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{45, byte(i >> 16), byte(i >> 8), byte(i)})
}

func (s *Set) add(t *testing.T, addr string, at time.Time) {
	t.Helper()
	if err := s.Add("sshd", netip.MustParseAddr(addr), at, false); err != nil {
		t.Fatal(err)
	}
}

func TestAGuestIsOneUntilItsEndAndOverlapsAreSeenBothWays(t *testing.T) {
	now := start
	s := clocked(t, "", &now)
	s.add(t, "192.0.2.7", now)
	s.add(t, "2001:db8:1:2:3::4", now)
	for target, want := range map[string]bool{
		"192.0.2.7": true, "192.0.2.6": false, "192.0.2.8": false, "192.0.2.0/24": true, "192.0.3.0/24": false, "0.0.0.0/0": true,
		"::ffff:192.0.2.7": true, "2001:db8:1:2::9": true, "2001:db8:1:3::1": false, "2001:db8:1::/48": true, "2001:db8:1:2:3::/80": true,
		"2001:db8:2::/48": false, "::/0": true, "0x00000000219ab540356cBB839Cbe05303d7705Fa": false,
	} {
		if why, got := s.Protects(ban.MustTarget(target)); got != want || got == (why == "") {
			t.Errorf("%s: %t %q", target, got, why)
		}
	}
	now = now.Add(DefaultStay - time.Second)
	if _, ok := s.Protects(ban.MustTarget("192.0.2.7")); !ok {
		t.Error("it ended early")
	}
	now = now.Add(time.Second)
	if _, ok := s.Protects(ban.MustTarget("192.0.2.7")); ok {
		t.Error("it has not ended")
	}
	if err := s.Expire(); err != nil || s.Len() != 0 {
		t.Errorf("%d are kept, %v", s.Len(), err)
	}
}

func TestNobodysAddressesAndOldSuccessesMakeNoGuest(t *testing.T) {
	now := start
	s := clocked(t, "", &now)
	for _, a := range []string{"127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"} {
		s.add(t, a, now)
	}
	s.add(t, "192.0.2.1", now.Add(-DefaultStay))
	if err := s.Add("sshd", netip.Addr{}, now, false); err != nil || s.Len() != 0 {
		t.Errorf("guests are %v, %v", s.All(), err)
	}
	// A clock that is ahead in a log gives no longer stay.
	s.add(t, "192.0.2.1", now.Add(time.Hour))
	if g := s.All(); len(g) != 1 || !g[0].Until.Equal(now.Add(DefaultStay)) {
		t.Errorf("guests are %v", g)
	}
}

func TestALoginSaysMoreThanWork(t *testing.T) {
	now := start
	s := clocked(t, "", &now)
	a := netip.MustParseAddr("192.0.2.1")
	for _, x := range []struct {
		topic  ban.Topic
		worked bool
		want   string
	}{
		{"livepeer", true, "livepeer true"},
		{"sshd", false, "sshd false"},
		{"livepeer", true, "sshd false"},
	} {
		now = now.Add(time.Hour)
		if err := s.Add(x.topic, a, now, x.worked); err != nil {
			t.Fatal(err)
		}
		g := s.All()[0]
		if got := fmt.Sprint(g.Topic, " ", g.Worked); got != x.want || !g.Last.Equal(now) {
			t.Errorf("after %+v it is %+v", x, g)
		}
	}
}

func TestAFullSetKeepsThoseWhoseEndIsLast(t *testing.T) {
	now := start
	s := clocked(t, "", &now)
	s.most = 1000
	for i := range 1000 {
		if err := s.Add("sshd", address(i), now.Add(time.Duration(i)*time.Second-time.Hour), false); err != nil {
			t.Fatal(err)
		}
	}
	if s.Len() != 1000 {
		t.Fatalf("at the limit there are %d", s.Len())
	}
	if err := s.Add("sshd", address(1000), now, false); err != nil {
		t.Fatal(err)
	}
	if n := s.Len(); n > 1000 || n < 980 {
		t.Errorf("beyond the limit there are %d", n)
	}
	for i, want := range map[int]bool{0: false, 100: true, 999: true, 1000: true} {
		target, _ := ban.TargetOfAddr(address(i))
		if _, got := s.Protects(target); got != want {
			t.Errorf("%d is a guest: %t", i, got)
		}
	}
}

func TestOneSubscribersNetworksPushNobodyElseOut(t *testing.T) {
	now := start
	s := clocked(t, "", &now)
	s.add(t, "2001:db8:ffff::1", now.Add(-time.Hour))
	for i := range 1000 {
		b := netip.MustParseAddr("2001:db8:1::").As16()
		binary.BigEndian.PutUint16(b[6:], uint16(i))
		now = now.Add(time.Second)
		if err := s.Add("sshd", netip.AddrFrom16(b), now, false); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Len(); n != maxNeighbours+1 {
		t.Errorf("%d guests", n)
	}
	if _, ok := s.Protects(ban.MustTarget("2001:db8:ffff::1")); !ok {
		t.Error("another subscriber was pushed out")
	}
}

func TestAHundredThousandGuestsFitInTenMegabytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guests")
	now := start
	s := clocked(t, path, &now)
	for i := range MaxGuests {
		if err := s.Add("sshd", address(i), now, false); err != nil {
			t.Fatal(err)
		}
	}
	memory := cap(s.list) * int(unsafe.Sizeof(record{}))
	info, err := os.Stat(path)
	if err != nil || s.Len() != MaxGuests || memory+int(info.Size()) > 10<<20 {
		t.Fatalf("%d guests in %d bytes of memory and %v of file, %v", s.Len(), memory, info.Size(), err)
	}
	t.Logf("%d guests: %d bytes of memory, %d of file", s.Len(), memory, info.Size())
	if again := clocked(t, path, &now); again.Len() != MaxGuests {
		t.Errorf("after a restart %d", again.Len())
	}
}

func TestAClientThatLogsInEachSecondDoesNotFillTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guests")
	now := start
	s := clocked(t, path, &now)
	s.add(t, "192.0.2.1", now)
	before, _ := os.Stat(path)
	for range 599 {
		now = now.Add(time.Second)
		s.add(t, "192.0.2.1", now)
	}
	if after, _ := os.Stat(path); after.Size() != before.Size() {
		t.Errorf("the file grew from %d to %d", before.Size(), after.Size())
	}
	now = now.Add(time.Second)
	s.add(t, "192.0.2.1", now)
	if g := s.All(); !g[0].Last.Equal(now) {
		t.Errorf("after ten minutes it is %+v", g)
	}
}

func TestChangesAreToldOnce(t *testing.T) {
	now := start
	var told []string
	s, err := Open(Options{Now: func() time.Time { return now }, Changed: func(x ban.Target) { told = append(told, x.String()) }})
	if err != nil {
		t.Fatal(err)
	}
	s.add(t, "192.0.2.1", now)
	s.add(t, "192.0.2.1", now)
	s.add(t, "2001:db8::1", now)
	if n, err := s.Remove(ban.MustTarget("192.0.2.0/24")); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	now = now.Add(2 * DefaultStay)
	if err := s.Expire(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"192.0.2.1", "2001:db8::/64", "192.0.2.1", "2001:db8::/64"}; !slices.Equal(told, want) {
		t.Errorf("told %v", told)
	}
}

// Killed at any byte of its file, a set has all guests but the last.
func TestATornFileLosesItsLastRecordAlone(t *testing.T) {
	dir := t.TempDir()
	now := start
	s := clocked(t, filepath.Join(dir, "guests"), &now)
	for i := range 4 {
		if err := s.Add(ban.Topic([]string{"sshd", "dovecot"}[i%2]), address(i), now, false); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(filepath.Join(dir, "guests"))
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for n := range len(whole) + 1 {
		path := filepath.Join(dir, "torn")
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		torn := clocked(t, path, &now)
		if got := torn.Len(); got < last || got > last+1 && last >= 0 {
			t.Fatalf("%d bytes hold %d guests, one less %d", n, got, last)
		} else {
			last = got
		}
		// It goes on from there.
		torn.add(t, "198.51.100.1", now)
		if again := clocked(t, path, &now); again.Len() != last+1 {
			t.Fatalf("after %d bytes and one more guest there are %d", n, again.Len())
		}
	}
	if last != 4 {
		t.Errorf("the whole file holds %d", last)
	}
	if err := os.WriteFile(filepath.Join(dir, "torn"), []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Path: filepath.Join(dir, "torn")}); !errors.Is(err, ErrFile) {
		t.Errorf("another file: %v", err)
	}
}

// A set is the map that anybody would write, over restarts and evictions.
func TestASetIsAMapWithEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "guests")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		now := start
		open := func() *Set {
			s, err := Open(Options{Path: filepath.Join(dir, "guests"), Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := open()
		defer func() { _ = s.Close() }()
		model := map[netip.Addr]time.Time{}
		addr := rapid.Custom(func(t *rapid.T) netip.Addr { return address(rapid.IntRange(0, 20).Draw(t, "address")) })
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				a := addr.Draw(t, "guest")
				if err := s.Add("sshd", a, now, false); err != nil {
					t.Fatal(err)
				}
				if old := model[a]; now.Sub(old) >= refreshAfter {
					model[a] = now
				}
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, int(DefaultStay/time.Second)).Draw(t, "seconds")) * time.Second)
			},
			"remove": func(t *rapid.T) {
				a := addr.Draw(t, "guest")
				target, _ := ban.TargetOfAddr(a)
				if _, err := s.Remove(target); err != nil {
					t.Fatal(err)
				}
				delete(model, a)
			},
			"expire":  func(t *rapid.T) { _ = s.Expire() },
			"restart": func(t *rapid.T) { _ = s.Close(); s = open() },
			"kill":    func(t *rapid.T) { s = open() },
			"": func(t *rapid.T) {
				maps.DeleteFunc(model, func(_ netip.Addr, at time.Time) bool { return !at.Add(DefaultStay).After(now) })
				got := map[netip.Addr]time.Time{}
				for _, g := range s.All() {
					got[g.Prefix.Addr()] = g.Last.UTC()
				}
				if !maps.EqualFunc(got, model, time.Time.Equal) {
					t.Fatalf("it has %v, the model %v", got, model)
				}
			},
		})
	})
}

func FuzzRead(f *testing.F) {
	b := appendTopic([]byte(magic), 0, "sshd")
	r := record{last: 1, until: seconds(start.Add(time.Hour))}
	r.addr[10], r.addr[11], r.addr[12] = 255, 255, 45
	f.Add(appendRecord(b, kindGuest, encode(r)))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &Set{o: Options{Now: func() time.Time { return start }, Stay: DefaultStay}, most: 10}
		if s.read(bytes.NewReader(b)) != nil {
			return
		}
		if len(s.list) > 10 || !slices.IsSortedFunc(s.list, func(a, b record) int { return bytes.Compare(a.addr[:], b.addr[:]) }) {
			t.Errorf("read %v", s.list)
		}
		s.All()
	})
}

func BenchmarkProtects(b *testing.B) {
	s, err := Open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range MaxGuests {
		if err := s.Add("sshd", address(2*i), time.Now(), false); err != nil {
			b.Fatal(err)
		}
	}
	target := ban.MustTarget("45.0.99.1")
	for b.Loop() {
		s.Protects(target)
	}
}
