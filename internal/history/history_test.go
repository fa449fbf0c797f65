package history

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

func target(t rapid.TB, s string) ban.Target {
	x, err := ban.ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func open(t rapid.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func find(t rapid.TB, s *Store, q Query) Page {
	t.Helper()
	p, err := s.Find(q)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAnEventComesBackAsItWasNoted(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Unix(1_780_000_000, 0).UTC()
	s := open(t, dir, Options{Now: func() time.Time { return now }})
	e := Event{
		At: now, Kind: Ban, Topic: "sshd", Target: target(t, "203.0.113.7"), By: "detection", Peers: []string{"alice", "bob"}, Why: "an own offence",
		Until: now.Add(time.Hour), Count: 5, First: now.Add(-time.Minute), Source: "/var/log/auth.log", Sample: "Failed \x1b[2J\u202e password\nport 4001", Port: 4001,
	}
	if err := s.Append([]Event{e}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := find(t, again, Query{}).Events
	if len(got) != 1 {
		t.Fatalf("%d events", len(got))
	}
	e.Cursor = got[0].Cursor
	if fmt.Sprint(got[0]) != fmt.Sprint(e) {
		t.Errorf("\n got %+v\nwant %+v", got[0], e)
	}
}

func TestTextsAreCutAtTheirLimits(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Options{})
	long := strings.Repeat("\x00é", 2000)
	e := Event{At: time.Now(), Kind: Refuse, By: long, Why: long, Source: long, Sample: long, Peers: slices.Repeat([]string{long}, maxPeers+1), Count: -1}
	if err := s.Append([]Event{e}); err != nil {
		t.Fatal(err)
	}
	got := find(t, s, Query{}).Events[0]
	if len(got.By) > maxText || len(got.By) < maxText-1 || len(got.Sample) > maxLine || len(got.Peers) != maxPeers || got.Count != 0 {
		t.Errorf("By %d, Sample %d bytes, %d peers, count %d", len(got.By), len(got.Sample), len(got.Peers), got.Count)
	}
}

// The store against a list: appends, restarts, kills that tear the last record, and
// every sort of question.
func TestTheStoreIsAListThatForgetsItsOldest(t *testing.T) {
	t.Parallel()
	targets := []ban.Target{{}}
	for _, x := range []string{"203.0.113.7", "203.0.113.0/24", "198.51.100.1", "203.0.0.0/16", "2001:db8::1", "2001:db8::/32", "2001:db8:0:1::/64", "0x00000000219ab540356cbb839cbe05303d7705fa"} {
		targets = append(targets, target(t, x))
	}
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "history")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		now := time.Unix(1_780_000_000, 0)
		o := Options{Now: func() time.Time { return now }, keep: 3 * 24 * time.Hour, maxBytes: 6_000, maxSegment: 1_000}
		s := open(t, dir, o)
		var all []Event // noted, whether kept or not
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0:
				now = now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "hours")) * time.Hour)
				s.Expire(now)
			case 1: // killed: nothing is closed, and half a record is there
				if g := len(s.segments); g > 0 && rapid.Bool().Draw(t, "torn") {
					f, err := os.OpenFile(s.segments[g-1].path, os.O_APPEND|os.O_WRONLY, 0)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := f.WriteString(`0123abcd {"c":17`); err != nil {
						t.Fatal(err)
					}
					f.Close()
				}
				s = open(t, dir, o)
			case 2:
				if names, _ := filepath.Glob(filepath.Join(dir, "*"+indexSuffix)); len(names) > 0 {
					name := rapid.SampledFrom(names).Draw(t, "index")
					b, err := os.ReadFile(name)
					if err != nil {
						t.Fatal(err)
					}
					b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 0x55
					if err := os.WriteFile(name, b, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			default:
				list := make([]Event, rapid.IntRange(1, 6).Draw(t, "events"))
				for i := range list {
					list[i] = Event{
						At: now, Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Topic: rapid.SampledFrom([]ban.Topic{"", "sshd", "web"}).Draw(t, "topic"),
						Target: rapid.SampledFrom(targets).Draw(t, "target"), Why: strings.Repeat("x", rapid.IntRange(0, 200).Draw(t, "long")),
						Peers: rapid.SliceOfN(rapid.SampledFrom([]string{"alice", "bob", "carol"}), 0, 2).Draw(t, "peers"),
					}
				}
				if err := s.Append(list); err != nil {
					t.Fatal(err)
				}
				all = append(all, list...)
			}
			check(t, s, o, all, targets, now)
		}
	})
}

func check(t *rapid.T, s *Store, o Options, all []Event, targets []ban.Target, now time.Time) {
	t.Helper()
	kept := find(t, s, Query{Follow: true, Limit: MaxLimit}).Events
	// The newest events are kept, and all that are not too old
	// where there is room.
	if len(kept) > len(all) || fmt.Sprint(kept) != fmt.Sprint(all[len(all)-len(kept):]) {
		t.Fatalf("kept %v\nof %v", kept, all)
	}
	if len(all) > 0 && len(kept) == 0 {
		t.Fatal("nothing is kept")
	}
	if st := s.Stats(); st.Bytes > o.maxBytes+2*o.maxSegment+2_000 || st.Events != len(kept) {
		t.Fatalf("%+v, %d events", st, len(kept))
	}
	q := Query{
		Target: rapid.SampledFrom(targets).Draw(t, "about"), Topic: rapid.SampledFrom([]ban.Topic{"", "sshd"}).Draw(t, "in"),
		Peer: rapid.SampledFrom([]string{"", "alice", "nobody"}).Draw(t, "of"), Limit: rapid.IntRange(1, 20).Draw(t, "limit"),
	}
	if rapid.Bool().Draw(t, "lately") {
		q.Since = now.Add(-30 * time.Hour)
	}
	if rapid.Bool().Draw(t, "kinds") {
		q.Kinds = []Kind{Ban, Shield}
	}
	if rapid.Bool().Draw(t, "follow") && len(kept) > 0 {
		q.After = rapid.SampledFrom(kept).Draw(t, "after").Cursor
	}
	var want []Event
	for _, e := range kept {
		if q.matches(&e) && e.Cursor > q.After {
			want = append(want, e)
		}
	}
	more := len(want) > q.Limit
	if q.After == 0 {
		slices.Reverse(want)
	}
	if more {
		want = want[:q.Limit]
	}
	got := find(t, s, q)
	if fmt.Sprint(got.Events) != fmt.Sprint(want) || got.More != more || got.Missed {
		t.Fatalf("%+v\n got %+v\nwant %v, more %v", q, got, want, more)
	}
	if more && q.After != 0 && got.Next != want[len(want)-1].Cursor {
		t.Fatalf("next is %d behind %d", got.Next, want[len(want)-1].Cursor)
	}
}

// The header of an index is read alone at a start, so that no damage of it may hide
// events.
func TestADamagedHeaderOfAnIndexHidesNoEvent(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_780_000_000, 0)
	o := Options{Now: func() time.Time { return now }, keep: 24 * time.Hour, maxBytes: 1 << 20, maxSegment: 1}
	dir := t.TempDir()
	s := open(t, dir, o)
	for range 2 { // of which the first has an index
		if err := s.Append([]Event{{At: now, Kind: Start}, {At: now, Kind: Stop}}); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"+indexSuffix))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	whole, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range indexHeader {
		b := bytes.Clone(whole)
		b[i] ^= 0x55
		if err := os.WriteFile(names[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, o)
		all := find(t, s, Query{Follow: true}).Events
		if len(all) != 4 || len(find(t, s, Query{After: all[0].Cursor}).Events) != 3 {
			t.Errorf("byte %d: %v", i, all)
		}
	}
}

func TestAReaderIsToldOfEventsThatAreGone(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_780_000_000, 0)
	o := Options{Now: func() time.Time { return now }, keep: 24 * time.Hour, maxBytes: 1 << 20, maxSegment: 1 << 20}
	dir := t.TempDir()
	s := open(t, dir, o)
	var cursors []Cursor
	for range 4 {
		list := []Event{{At: now, Kind: Start}, {At: now, Kind: Stop}}
		if err := s.Append(list); err != nil {
			t.Fatal(err)
		}
		cursors = append(cursors, list[0].Cursor, list[1].Cursor)
		now = now.Add(25 * time.Hour)
	}
	s.Expire(now)
	for i, c := range cursors {
		if got := find(t, s, Query{After: c}).Missed; got != (i < 5) {
			t.Errorf("behind event %d of %d: missed %v", i+1, len(cursors), got)
		}
	}
	// A store that is begun anew has later cursors, and says that it lacks the rest.
	again := open(t, t.TempDir(), o)
	if err := again.Append([]Event{{At: now, Kind: Start}}); err != nil {
		t.Fatal(err)
	}
	p := find(t, again, Query{After: cursors[7]})
	if !p.Missed || len(p.Events) != 1 {
		t.Errorf("a new store: %+v", p)
	}
}

func TestWaitingEndsWithTheEvent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, dir, Options{})
		got := make(chan Page, 1)
		go func() {
			p, err := s.Wait(t.Context(), Query{Follow: true, Topic: "sshd"})
			if err != nil {
				t.Error(err)
			}
			got <- p
		}()
		for _, topic := range []ban.Topic{"web", "sshd"} {
			synctest.Wait()
			if err := s.Append([]Event{{At: time.Now(), Kind: Ban, Topic: topic}}); err != nil {
				t.Fatal(err)
			}
		}
		if p := <-got; len(p.Events) != 1 || p.Events[0].Topic != "sshd" {
			t.Errorf("%+v", p)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if p, err := s.Wait(ctx, Query{After: s.next - 1}); err != nil || len(p.Events) > 0 || p.Next != s.next-1 {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

func TestAFullDiskKeepsWhatWasThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Options{})
	if err := s.Append([]Event{{At: time.Now(), Kind: Start}}); err != nil {
		t.Fatal(err)
	}
	file := s.file
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	s.file = full
	if err := s.Append([]Event{{At: time.Now(), Kind: Stop}}); err == nil || s.Stats().WriteErr == nil {
		t.Error("a full disk is not noticed")
	}
	s.file = file
	if err := s.Append([]Event{{At: time.Now(), Kind: Config}}); err != nil || s.Stats().WriteErr != nil {
		t.Error(err)
	}
	list := find(t, open(t, dir, Options{}), Query{Follow: true}).Events
	if len(list) != 2 || list[0].Kind != Start || list[1].Kind != Config {
		t.Errorf("%+v", list)
	}
}

func FuzzReadRecords(f *testing.F) {
	good, err := appendRecord(nil, &Event{Cursor: 1, At: time.Unix(1, 0), Kind: Ban, Topic: "sshd", Sample: "a\tb"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(append([]byte("rubbish\n"), good...), "torn"...))
	f.Add(bytes.Repeat([]byte("x"), 3*maxRecord))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, damaged, err := ReadRecords(bytes.NewReader(b), func(e Event, offset int64) {
			line, _, _ := bytes.Cut(b[offset:], []byte("\n"))
			if again, err := parseRecord(line); err != nil || fmt.Sprint(again) != fmt.Sprint(e) {
				t.Errorf("%q at %d is %v", line, offset, err)
			}
		})
		if err != nil || size > int64(len(b)) || size > 0 && b[size-1] != '\n' || damaged > len(b) {
			t.Errorf("size %d of %d, %d damaged, %v", size, len(b), damaged, err)
		}
	})
}

func FuzzIndex(f *testing.F) {
	e := Event{Cursor: 5, At: time.Unix(1, 0), Kind: Ban}
	x := entryOf(&e, 0)
	var s summary
	s.note(&x, 5)
	s.size = 100
	f.Add(encodeIndex(&s, entries(nil).add(&x)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, list, ok := decodeIndex(b)
		if ok && !bytes.Equal(b[:12], encodeIndex(&s, list)[:12]) {
			t.Errorf("%v %v", s, list)
		}
	})
}
