package detect

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"banmesh/internal/detect/source"
	"banmesh/topics"
)

// Two topics that share a log are one reader; their logs are told apart all the
// same, and a detector that takes another's place goes on counting.
func TestEachNamedLogIsCountedByItselfAndOverReloads(t *testing.T) {
	dir := t.TempDir()
	shared, own, missing := filepath.Join(dir, "shared.log"), filepath.Join(dir, "own.log"), filepath.Join(dir, "none.log")
	now := time.Now()
	write(t, shared, failures(3, "203.0.113.7", now)+"nothing\n")
	write(t, own, failures(2, "203.0.113.8", now))
	one := sshd(t, shared)
	one.Detect.Files = []string{shared, missing}
	two := &topics.Definition{}
	*two = *sshd(t, shared)
	detect := *two.Detect
	two.Name, two.Detect = "other", &detect
	two.Detect.Files = []string{shared, own}
	o := Options{Jails: []Jail{{Definition: one}, {Definition: two}}, Ban: (&decisions{}).ban, StatePath: filepath.Join(dir, "state")}
	d := readOnce(t, o)
	check := func(when string, factor uint64) {
		t.Helper()
		st := d.Status()
		if len(st.Sources) != 1 || len(st.Sources[0].Logs) != 3 {
			t.Fatalf("%s: %+v", when, st.Sources)
		}
		want := map[string]struct {
			read, matched uint64
			topics, found int
		}{shared: {4, 3, 2, 1}, missing: {0, 0, 1, 0}, own: {2, 2, 1, 1}}
		for _, l := range st.Sources[0].Logs {
			w := want[l.Name]
			if l.Kind != source.KindFile || l.Count.Read != factor*w.read || l.Count.Matched != factor*w.matched || len(l.Topics) != w.topics || l.Health.Found != w.found || l.Count.LastLine.IsZero() != (w.read == 0) {
				t.Errorf("%s: %+v, want %+v", when, l, w)
			}
		}
	}
	check("read", 1)
	// The configuration is read again, and the logs grow.
	o.Before = d.LogCounts()
	write(t, shared, failures(3, "203.0.113.9", now)+"nothing\n")
	write(t, own, failures(2, "203.0.113.10", now))
	d = readOnce(t, o)
	check("after a reload", 2)
}

// A topic names the journal by several matches, for the versions of its service;
// the lines of another topic's match are counted there.
func TestALineThatSeveralMatchesGiveCountsOnceATopic(t *testing.T) {
	one, all := sshd(t, ""), sshd(t, "")
	one.Detect.Files, one.Detect.Journal = nil, []string{"_UID=0 _COMM=sshd", "_UID=0 SYSLOG_IDENTIFIER=sshd"}
	other := *all
	detect := *all.Detect
	other.Name, other.Detect = "everything", &detect
	detect.Files, detect.Journal = nil, []string{""}
	d, err := New(Options{Jails: []Jail{{Definition: &other}, {Definition: one}}, Ban: (&decisions{}).ban})
	if err != nil {
		t.Fatal(err)
	}
	r := d.readers[0]
	for _, matched := range [][]int{{0, 1, 2}, {0, 2}, {0}} {
		r.handle(t.Context(), source.Line{Journal: true, Stream: "journal", Text: []byte("nothing"), Matched: matched})
	}
	var got []uint64
	for _, c := range r.logs.list {
		got = append(got, c.count().Read)
		if c.count().LastLine.IsZero() {
			t.Errorf("%+v was never heard", c.log)
		}
	}
	if want := []uint64{3, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}
