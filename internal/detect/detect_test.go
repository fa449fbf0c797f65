package detect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banmesh/internal/ban"
	"banmesh/internal/detect/source"
	"banmesh/topics"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/dlclark/regexp2/v2.runClock"))
}

// sshd gives the shipped definition, reading path.
func sshd(t testing.TB, path string) *topics.Definition {
	t.Helper()
	for _, d := range topics.Builtin() {
		if d.Name == "sshd" {
			d.Detect.Journal, d.Detect.Files = nil, []string{path}
			return d
		}
	}
	t.Fatal("no topic sshd is shipped")
	return nil
}

// decisions collects a detector's decisions.
type decisions struct {
	mu   sync.Mutex
	list []Decision
	fail error
}

func (d *decisions) ban(_ context.Context, v Decision) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.list = append(d.list, v)
	return nil
}

func (d *decisions) all() []Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Decision(nil), d.list...)
}

// readOnce runs a detector over the logs as they are and stops it cleanly.
func readOnce(t *testing.T, o Options) *Detector {
	t.Helper()
	o.Source.Once = true
	o.Source.Start = source.StartBeginning
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// drain reads every source to its end and saves.
func (d *Detector) drain(ctx context.Context) error {
	for _, r := range d.readers {
		if err := r.run(ctx); err != nil {
			return err
		}
	}
	return d.Save()
}

func failures(n int, address string, at time.Time) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s web1 sshd[%d]: Failed password for root from %s port %d ssh2\n", at.Format(time.Stamp), 100+i, address, 1024+i)
		at = at.Add(time.Second)
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// confirmed is a kernel that saw every connection.
func confirmed(context.Context, Question) Proof { return ProofConfirmed }

func TestMaxretryOffencesWithinFindtimeBan(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	write(t, log, failures(4, "192.0.2.1", start)+failures(5, "192.0.2.2", start)+failures(3, "2001:db8::1", start)+failures(2, "2001:db8::2", start))
	var got decisions
	readOnce(t, Options{Jails: []Jail{{Definition: sshd(t, log)}}, Ban: got.ban, Corroborated: confirmed})
	list := got.all()
	if len(list) != 2 || list[0].Target != ban.MustTarget("192.0.2.2") || list[1].Target != ban.MustTarget("2001:db8::/64") {
		t.Fatalf("decisions = %+v, want 192.0.2.2 and 2001:db8::/64", list)
	}
	v := list[0]
	if v.Class != ban.ClassAuth || v.Hits != 5 || !v.Established || !v.End.Equal(v.Last.Add(time.Hour)) || !v.Last.Equal(start.Add(4*time.Second)) || !strings.Contains(v.Sample, "192.0.2.2") {
		t.Errorf("decision = %+v", v)
	}
}

func TestACleanRestartCountsEveryLineOnce(t *testing.T) {
	dir := t.TempDir()
	log, statePath := filepath.Join(dir, "auth.log"), filepath.Join(dir, "detect.json")
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	var got decisions
	o := Options{Jails: []Jail{{Definition: sshd(t, log)}}, Ban: got.ban, StatePath: statePath}
	for i := range 4 {
		write(t, log, failures(1, "192.0.2.1", start.Add(time.Duration(i)*time.Second)))
		d := readOnce(t, o)
		if s := d.Status().Jails[0]; s.Found != uint64(i+1) || s.Tracked != 1 {
			t.Fatalf("after restart %d: found %d, tracked %d", i, s.Found, s.Tracked)
		}
	}
	if len(got.all()) != 0 {
		t.Fatalf("banned early: %+v", got.all())
	}
	write(t, log, failures(1, "192.0.2.1", start.Add(9*time.Second)))
	readOnce(t, o)
	if list := got.all(); len(list) != 1 || list[0].Hits != 5 {
		t.Fatalf("decisions = %+v, want one with 5 hits", list)
	}
}

func TestAWatchedTargetIsBannedAtItsFirstOffence(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	write(t, log, failures(1, "192.0.2.1", time.Now())+failures(1, "192.0.2.2", time.Now()))
	var got decisions
	readOnce(t, Options{
		Jails: []Jail{{Definition: sshd(t, log)}}, Ban: got.ban,
		Watched: func(topic ban.Topic, target ban.Target) bool {
			return topic == "sshd" && target == ban.MustTarget("192.0.2.2")
		},
	})
	if list := got.all(); len(list) != 1 || list[0].Target != ban.MustTarget("192.0.2.2") || list[0].Hits != 1 {
		t.Fatalf("decisions = %+v", list)
	}
}

func TestIgnoredAddressesAreCountedAndNeverBanned(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	write(t, log, failures(9, "192.0.2.1", time.Now().Add(-time.Minute))+failures(9, "198.51.100.1", time.Now().Add(-time.Minute)))
	def := sshd(t, log)
	def.Detect.IgnoreIP = []string{"192.0.2.0/24"}
	var got decisions
	d := readOnce(t, Options{
		Jails: []Jail{{Definition: def}}, Ban: got.ban,
		Ignored: func(target ban.Target) bool { return target == ban.MustTarget("198.51.100.1") },
	})
	if s := d.Status().Jails[0]; len(got.all()) != 0 || s.Ignored != 18 || s.Found != 0 {
		t.Errorf("decisions = %+v, status %+v", got.all(), s)
	}
}

func TestABanThatFailsIsKeptOverARestart(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "auth.log")
	write(t, log, failures(5, "192.0.2.1", time.Now().Add(-time.Minute)))
	got := decisions{fail: errors.New("the disk is full")}
	o := Options{Jails: []Jail{{Definition: sshd(t, log)}}, Ban: got.ban, StatePath: filepath.Join(dir, "state")}
	if d := readOnce(t, o); d.Status().Pending != 1 {
		t.Fatalf("status = %+v", d.Status())
	}
	got.fail = nil
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	d.offerPending(t.Context())
	if list := got.all(); len(list) != 1 || d.Status().Pending != 0 {
		t.Errorf("decisions = %+v, pending %d", list, d.Status().Pending)
	}
}

func TestADamagedStateIsRefusedNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for _, text := range []string{"{", `{"version":9}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Options{StatePath: path}); !errors.Is(err, ErrState) {
			t.Errorf("New with state %q: %v, want ErrState", text, err)
		}
	}
}

func TestRunFollowsALogAndStopsCleanly(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "auth.log")
	write(t, log, "")
	banned := make(chan Decision, 1)
	d, err := New(Options{
		Jails: []Jail{{Definition: sshd(t, log)}}, StatePath: filepath.Join(dir, "state"),
		Ban:    func(_ context.Context, v Decision) error { banned <- v; return nil },
		Source: source.Options{Start: source.StartBeginning},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	write(t, log, failures(5, "192.0.2.1", time.Now()))
	select {
	case v := <-banned:
		if v.Target != ban.MustTarget("192.0.2.1") {
			t.Errorf("decision = %+v", v)
		}
	case <-time.After(30 * time.Second):
		t.Error("no decision")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err != nil {
		t.Error(err)
	}
}

func recidive(t testing.TB) *topics.Definition {
	t.Helper()
	for _, d := range topics.Builtin() {
		if d.Name == "recidive" {
			d.Detect.Journal, d.Detect.Files, d.Detect.MaxRetry = nil, nil, 3
			return d
		}
	}
	t.Fatal("no topic recidive is shipped")
	return nil
}

func TestWhoIsBannedAgainAndAgainIsBannedForLonger(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "auth.log")
	start := time.Now().Add(-8 * time.Hour).Truncate(time.Second)
	now := start
	var got decisions
	o := Options{Jails: []Jail{{Definition: sshd(t, log)}, {Definition: recidive(t)}}, Ban: got.ban, StatePath: filepath.Join(dir, "state"), Now: func() time.Time { return now }}
	for round := range 3 {
		at := start.Add(time.Duration(round) * 2 * time.Hour)
		now = at.Add(time.Minute)
		write(t, log, failures(15, "192.0.2.1", at))
		if round < 2 {
			write(t, log, failures(10, "192.0.2.2", at))
		}
		readOnce(t, o)
	}
	list := got.all()
	var again []Decision
	for _, v := range list {
		if v.Topic == "recidive" {
			again = append(again, v)
		}
	}
	if len(list) != 6 || len(again) != 1 || again[0].Target != ban.MustTarget("192.0.2.1") || again[0].Class != ban.ClassRecidive || again[0].Hits != 3 || again[0].End.Sub(again[0].Last) != 7*24*time.Hour {
		t.Errorf("decisions = %+v", list)
	}
}

func TestSlowOffendersHaveOnlyTheOffencesOfFindTime(t *testing.T) {
	b := &budget{}
	b.left.Store(10)
	w := newWindow(10*time.Minute, 5, b)
	target, start := ban.MustTarget("192.0.2.1"), time.Unix(1_700_000_000, 0)
	var e *entry
	for i := range 20 {
		e = w.add(target, start.Add(time.Duration(i)*5*time.Minute), 1, true)
	}
	if e.hits != 3 {
		t.Errorf("one offence in five minutes made %v hits in ten", e.hits)
	}
	w.expire(time.Unix(0, e.last))
	if len(w.entries) != 0 || w.oldest != nil || b.left.Load() != 10 {
		t.Errorf("%d entries are left, budget %d", len(w.entries), b.left.Load())
	}
}

func TestMemoryIsBoundedByEvictingTheQuietest(t *testing.T) {
	b := &budget{}
	b.left.Store(100)
	w := newWindow(time.Hour, 5, b)
	start := time.Unix(1_700_000_000, 0)
	for i := range 1000 {
		target, _, ok := targetOf(fmt.Sprintf("10.0.%d.%d", i/256, i%256))
		if !ok {
			t.Fatal("no target")
		}
		w.add(target, start.Add(time.Duration(i)*time.Second), 1, true)
	}
	if len(w.entries) != 100 || w.evicted != 900 || w.entries[ban.MustTarget("10.0.3.231")] == nil {
		t.Errorf("%d entries, %d evicted", len(w.entries), w.evicted)
	}
}

// Nothing says when the lines of a log without dates were written: those from
// before this node looked are nobody's offence today. Those that came while it
// was away are.
func TestALogWithoutDatesBeginsAtItsEnd(t *testing.T) {
	dir := t.TempDir()
	log, statePath := filepath.Join(dir, "x.log"), filepath.Join(dir, "detect.json")
	d, err := topics.Parse("x.toml", []byte("name = \"x\"\n[detect]\nfiles = [\""+log+"\"]\nmaxretry = 2\ndatepattern = [\"{NONE}\"]\n[[detect.rule]]\nclass = \"auth\"\nregex = ['^bad <ADDR>$']\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got decisions
	read := func() {
		t.Helper()
		o := Options{Jails: []Jail{{Definition: d}}, Ban: got.ban, StatePath: statePath}
		o.Source.Once = true
		n, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	write(t, log, strings.Repeat("bad 192.0.2.1\n", 5))
	read()
	if list := got.all(); len(list) != 0 {
		t.Errorf("old lines decide %+v", list)
	}
	write(t, log, strings.Repeat("bad 192.0.2.2\n", 2))
	read()
	if list := got.all(); len(list) != 1 || list[0].Target != ban.MustTarget("192.0.2.2") {
		t.Errorf("lines of the time between decide %+v", list)
	}
}
