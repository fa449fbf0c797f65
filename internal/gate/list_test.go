package gate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestEachWalletIsDeniedUntilItsOwnEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		written := time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(t, "written"), 0)
		ends := map[[20]byte]time.Time{}
		var entries []Entry
		for range rapid.IntRange(0, 40).Draw(t, "count") {
			var e Entry
			e.Wallet[rapid.IntRange(0, 19).Draw(t, "byte")] = rapid.Byte().Draw(t, "value")
			e.Until = written.Add(time.Duration(rapid.Int64Range(-100, 100_000).Draw(t, "seconds")) * time.Second)
			e.Reason = Reason{Topic: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "topic"), Class: "manual"}
			entries = append(entries, e)
			if e.Until.After(written) && (ends[e.Wallet].IsZero() || e.Until.After(ends[e.Wallet])) {
				ends[e.Wallet] = e.Until
			}
		}
		b, err := Encode(Header{Path: path, Written: written}, entries)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if l.Len() != len(ends) {
			t.Fatalf("%d wallets are listed, want %d", l.Len(), len(ends))
		}
		for _, e := range entries {
			end, listed := ends[e.Wallet]
			if !listed {
				end = written // it had ended by then
			}
			for _, at := range []time.Time{written, end.Add(-time.Second), end, end.Add(1000 * time.Hour)} {
				if !listed && at.Before(end) {
					continue
				}
				if d, denied := l.Denied(e.Wallet, at); denied != at.Before(end) || denied && !d.Until.Equal(end) {
					t.Fatalf("%x at %s: %v %+v, its end is %s", e.Wallet, at, denied, d, end)
				}
			}
		}
	})
}

func TestNoDamagedFileIsBelieved(t *testing.T) {
	whole, err := Encode(Header{Path: path, Written: time.Now()}, denied(bad, good))
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := Decode(whole[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		flipped := bytes.Clone(whole)
		flipped[n] ^= 1
		if _, err := Decode(flipped); !errors.Is(err, ErrDamaged) {
			t.Fatalf("another byte %d: %v", n, err)
		}
	}
	if _, err := Decode(append(bytes.Clone(whole), 0)); !errors.Is(err, ErrDamaged) {
		t.Error("a byte behind it passes")
	}
}

func TestWhatAGateWouldRefuseIsNotWritten(t *testing.T) {
	for claim, h := range map[string]Header{
		"no path":              {},
		"a guessed path":       {Path: "webhook"},
		"a unix chain":         {Path: path, Chain: "unix:///x"},
		"a chain without host": {Path: path, Chain: "http:///x"},
		"two lines":            {Path: path, Message: "a\nb"},
		"a long message":       {Path: path, Message: strings.Repeat("x", MaxMessage+1)},
	} {
		if _, err := Encode(h, nil); err == nil {
			t.Errorf("%s passes", claim)
		}
	}
	if _, err := Encode(Header{Path: path, Message: strings.Repeat("x", MaxMessage)}, nil); err != nil {
		t.Errorf("a message at the limit: %v", err)
	}
}

func TestTheFileIsReplacedWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wallets")
	if _, err := ReadFile(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	first, err := Encode(Header{Path: path, Written: time.Now()}, denied(bad))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		before, _ := Look(file)
		if err := WriteFile(file, first); err != nil {
			t.Fatal(err)
		}
		l, err := ReadFile(file)
		if err != nil || l.Len() != 1 {
			t.Fatalf("read %v, %v", l, err)
		}
		if after, _ := Look(file); after == before {
			t.Error("a new file looks like the old one")
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
	if err := WriteFile(filepath.Join(file, "x"), first); err == nil {
		t.Error("a directory that is none is written to")
	}
	if _, err := ReadFile(filepath.Dir(file)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a directory: %v", err)
	}
}

func FuzzAListIsReadWholeOrNotAtAll(f *testing.F) {
	whole, err := Encode(Header{Path: path, Written: time.Unix(1_700_000_000, 0)}, []Entry{{Wallet: [20]byte{1}, Until: time.Unix(1_800_000_000, 0), Reason: Reason{Topic: "a"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, true)
	f.Add(whole[:40], true)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal { // past the checksum, to the rest of the parser
			b = reseal(b)
		}
		l, err := Decode(b)
		if err != nil {
			return
		}
		for n := range l.Len() {
			w := [20]byte(l.records[n*recordSize:])
			until := binary.BigEndian.Uint32(l.records[n*recordSize+20:])
			if _, denied := l.Denied(w, time.Unix(int64(until)-1, 0)); !denied {
				t.Fatalf("wallet %d of %x is not found", n, b)
			}
		}
	})
}
