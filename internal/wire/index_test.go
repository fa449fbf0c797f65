package wire

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

func TestAnIndexSaysWhatIsInIt(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		in := rapid.SliceOfN(rapid.Uint32(), 0, 300).Draw(rt, "entries")
		entries := make([]IndexEntry, len(in))
		for i, e := range in {
			entries[i] = IndexEntry(e)
		}
		var x Index
		for i, b := range AppendIndex(entries) {
			whole, err := x.Add(b)
			if err != nil || !whole {
				rt.Fatalf("shard %d: %v %v", i, whole, err)
			}
		}
		for _, e := range in {
			if !x.Has(IndexEntry(e)) {
				rt.Fatalf("%x is missing", e)
			}
		}
		if len(x.entries) > len(in) {
			rt.Fatalf("%d entries of %d", len(x.entries), len(in))
		}
	})
}

// A thousand operators in ten topics: three bytes a feed.
func TestALargeIndexIsSmallAndComesInShards(t *testing.T) {
	entries := make([]IndexEntry, 0, 50_000)
	for i := range 50_000 {
		entries = append(entries, IndexOfFeed(ban.Feed{Topic: "sshd", Operator: ban.Operator{byte(i), byte(i >> 8)}}, uint64(i), 7, 0, 0))
	}
	for _, n := range []int{10_000, indexShard, indexShard + 1, 50_000} {
		shards := AppendIndex(append([]IndexEntry(nil), entries[:n]...))
		var x Index
		size := 0
		for i, b := range shards {
			whole, err := x.Add(b)
			if err != nil || whole != (i == len(shards)-1) || len(b) > MaxPayload {
				t.Fatalf("%d entries, shard %d of %d: %v %v, %d bytes", n, i, len(shards), whole, err, len(b))
			}
			size += len(b)
		}
		if per := float64(size) / float64(n); per > 3.3 {
			t.Errorf("%d entries: %.1f bytes each", n, per)
		}
	}
	if got := AppendIndex(make([]IndexEntry, 0)); len(got) != 1 {
		t.Errorf("an empty index has %d messages", len(got))
	}
}

func TestAnIndexThatIsNoneIsRefused(t *testing.T) {
	good := AppendIndex([]IndexEntry{1, 5, 900})[0]
	for name, b := range map[string][]byte{
		"empty": nil, "cut off": good[:len(good)-1], "longer": append(append([]byte(nil), good...), 0), "no shards": {0, 0, 0},
		"a shard beyond the last": {2, 2, 0}, "too many shards": {65, 0, 0}, "too large an entry": {1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0x0f, 1},
	} {
		var x Index
		if _, err := x.Add(b); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var x Index
	if _, err := x.Add([]byte{2, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Add([]byte{3, 1, 0}); !errors.Is(err, ErrIndex) {
		t.Errorf("shards of two indexes: %v", err)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte{1, 0, 0})
	f.Add(AppendIndex([]IndexEntry{1, 5, 900})[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		var x Index
		if _, err := x.Add(b); err != nil && !errors.Is(err, ErrIndex) {
			t.Fatal(err)
		}
		if len(x.entries) > len(b) {
			t.Fatalf("%d entries of %d bytes", len(x.entries), len(b))
		}
	})
}
