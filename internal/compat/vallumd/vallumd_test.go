package vallumd

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
	"banmesh/internal/export"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	t0   = time.Unix(1_800_000_000, 0)
	sets = []Set{
		{Topic: "sshd", Name: "blacklist", Name6: "blacklist6", Publish: true, Accept: true},
		{Topic: "web", Name: "web", Publish: true},
		{Topic: "mail", Name: "mail", Accept: true},
	}
)

func publication(topic, payload string) frame.Publication {
	return frame.Publication{Topic: []byte(topic), Payload: []byte(payload)}
}

func TestAMessageIsAWordOrIsLeftOut(t *testing.T) {
	for _, c := range []struct {
		topic, payload string
		want           string // "" where it is left out
	}{
		{"blacklist/add", "198.51.100.7", "sshd 198.51.100.7 true"},
		{"blacklist/del", "198.51.100.7", "sshd 198.51.100.7 false"},
		{"blacklist6/add", "2001:db8::7", "sshd 2001:db8::7 true"},
		{"blacklist/add", "::ffff:198.51.100.7", "sshd 198.51.100.7 true"},
		{"mail/add", "198.51.100.7", "mail 198.51.100.7 true"},
		{"web/add", "198.51.100.7", ""}, // a set that is told and not accepted
		{"sshd/add", "198.51.100.7", ""},
		{"blacklist", "198.51.100.7", ""},
		{"blacklist/flush", "198.51.100.7", ""},
		{"a/blacklist/add", "198.51.100.7", ""},
		{"blacklist/add/x", "198.51.100.7", ""},
		{"/add", "198.51.100.7", ""},
		{"blacklist/add", "", ""},
		{"blacklist/add", "198.51.100.7\n", ""},
		{"blacklist/add", "198.51.100.0/24", ""},
		{"blacklist/add", "0.0.0.0", ""},
		{"blacklist/add", "127.0.0.1", ""},
		{"blacklist/add", "255.255.255.255", ""},
		{"blacklist/add", "224.0.0.1", ""},
		{"blacklist/add", "fe80::1", ""},
		{"blacklist/add", "fe80::1%eth0", ""},
		{"blacklist/add", "::", ""},
		{"blacklist/add", "host.example", ""},
		{"blacklist/add", strings.Repeat("1", maxPayload+1), ""},
	} {
		got := ""
		if w, name, ok := parse(sets, publication(c.topic, c.payload)); ok {
			got = strings.Join([]string{string(w.Topic), w.Addr.String(), strconv.FormatBool(w.Add)}, " ")
			if !strings.HasPrefix(c.topic, name+"/") {
				t.Errorf("%s: it is of the set %q", c.topic, name)
			}
		}
		if got != c.want {
			t.Errorf("%s %q: got %q, want %q", c.topic, c.payload, got, c.want)
		}
	}
	p := publication("blacklist/add", "198.51.100.7")
	p.Retain = true
	if _, _, ok := parse(sets, p); ok {
		t.Error("a retained message is taken, of which nobody knows how old it is")
	}
}

// A flood of messages that say nothing leaves a number behind, and no more.
func TestAFloodOfJunkLeavesANumber(t *testing.T) {
	t.Parallel()
	b := New(Options{Name: "home", Sets: sets, Timeout: time.Hour, Now: func() time.Time { return t0 }, Log: slog.New(slog.DiscardHandler)})
	junk := []frame.Publication{
		publication("blacklist/add", "junk"), publication("blacklist/add", "203.0.113.0/24"), publication("x/add", "198.51.100.7"),
		publication("blacklist/flush", "198.51.100.7"), publication("blacklist/del", strings.Repeat("x", 200_000)),
	}
	const lines = 250_000
	for i := range lines {
		if err := b.receive(t.Context(), nil, junk[i%len(junk)]); err != nil {
			t.Fatal(err)
		}
	}
	if s := b.Status(); s.Ignored != lines || s.Received != 0 || len(b.received) != 0 || len(b.echoes) != 0 {
		t.Errorf("%+v, %d wait", s, len(b.received))
	}
}

func FuzzMessage(f *testing.F) {
	f.Add("blacklist/add", []byte("198.51.100.7"))
	f.Add("blacklist6/del", []byte("2001:db8::7"))
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		w, name, ok := parse(sets, frame.Publication{Topic: []byte(topic), Payload: payload})
		if !ok {
			return
		}
		action := del
		if w.Add {
			action = add
		}
		if topic != name+"/"+action || !w.Addr.IsValid() || w.Addr.Zone() != "" || w.Addr.IsLoopback() || w.Topic != "sshd" && w.Topic != "mail" {
			t.Errorf("%q %q is %+v", topic, payload, w)
		}
	})
}

func TestOurOwnMessagesAreExpectedOnceEach(t *testing.T) {
	e, k := echoes{}, change{Element{"blacklist", netip.MustParseAddr("198.51.100.7")}, true}
	e.expect(k, t0)
	e.expect(k, t0)
	if e.take(change{k.Element, false}, t0) {
		t.Error("a deletion passes for an addition")
	}
	for i, want := range []bool{true, true, false} {
		if got := e.take(k, t0); got != want {
			t.Errorf("message %d is ours: %v", i, got)
		}
	}
	e.expect(k, t0)
	if e.take(k, t0.Add(echoTime+time.Second)) {
		t.Error("somebody else's later message passes for ours")
	}
	e.sweep(t0.Add(echoTime + time.Second))
	if len(e) != 0 {
		t.Errorf("%d are kept", len(e))
	}
}

func entry(topic ban.Topic, target string, until time.Time) export.Entry {
	return export.Entry{Topic: topic, Target: ban.MustTarget(target), Until: until}
}

// said gives the messages that are due, and has the broker acknowledge them.
func said(o *outbox, now time.Time) string {
	var list []string
	for _, m := range o.due(now) {
		sign := "-"
		if m.add {
			sign = "+"
		}
		list = append(list, sign+m.Set+" "+m.Addr.String())
		o.acknowledged(m, now)
	}
	return strings.Join(list, ", ")
}

func TestBansAreToldAgainBeforeTheSetsTimeout(t *testing.T) {
	o := newOutbox(sets, time.Hour, nil)
	want := func(at time.Duration, messages string) {
		t.Helper()
		if got := said(&o, t0.Add(at)); got != messages {
			t.Errorf("after %v: %q, want %q", at, got, messages)
		}
	}
	o.ban(entry("sshd", "198.51.100.7", t0.Add(3*time.Hour)))
	o.ban(entry("web", "198.51.100.7", t0.Add(time.Minute)))
	o.ban(entry("mail", "198.51.100.8", t0.Add(time.Hour))) // not told
	want(0, "+blacklist 198.51.100.7, +web 198.51.100.7")
	want(time.Second, "")
	want(10*time.Minute, "-web 198.51.100.7") // the ban is over
	want(44*time.Minute, "")
	want(46*time.Minute, "+blacklist 198.51.100.7")
	want(92*time.Minute, "+blacklist 198.51.100.7")
	o.lift(export.Key{Target: ban.MustTarget("198.51.100.7"), Topic: "sshd"})
	want(93*time.Minute, "-blacklist 198.51.100.7")
	want(4*time.Hour, "")
}

func TestSetsHoldSingleAddresses(t *testing.T) {
	o := newOutbox(sets, time.Hour, nil)
	end := t0.Add(time.Hour)
	for _, target := range []string{"198.51.100.0/27", "2001:db8::/64", "198.51.100.64/28"} {
		o.ban(entry("sshd", target, end))
	}
	o.ban(entry("web", "2001:db8::7", end)) // no set for it
	o.ban(entry("sshd", "198.51.100.70", end))
	if got := strings.Count(said(&o, t0), "+blacklist 198.51.100."); got != 16 {
		t.Errorf("%d addresses of a /28 are told", got)
	}
	if len(o.leftOut) != 3 {
		t.Errorf("left out: %v", o.leftOut)
	}
	o.ban(entry("sshd", "2001:db8::7", end))
	if got := said(&o, t0); got != "+blacklist6 2001:db8::7" {
		t.Errorf("said %q", got)
	}
	// An address that two bans want stays while one of them holds.
	o.lift(export.Key{Target: ban.MustTarget("198.51.100.64/28"), Topic: "sshd"})
	if got := said(&o, t0.Add(time.Second)); strings.Count(got, "-") != 15 || strings.Contains(got, "198.51.100.70") {
		t.Errorf("said %q", got)
	}
}

func TestASetTakesNoMoreThanItHolds(t *testing.T) {
	o := newOutbox(sets, time.Hour, nil)
	o.most = 300
	addr := netip.MustParseAddr("10.0.0.0")
	for range o.most + 1 {
		o.ban(entry("sshd", addr.String(), t0.Add(time.Hour)))
		addr = addr.Next()
	}
	if len(o.want) != o.most || len(o.leftOut) != 1 {
		t.Fatalf("%d are told and %d left out", len(o.want), len(o.leftOut))
	}
	for _, m := range o.due(t0) {
		o.acknowledged(m, t0)
	}
	o.lift(export.Key{Target: ban.MustTarget("10.0.0.0"), Topic: "sshd"})
	if said(&o, t0); len(o.published) != o.most-1 {
		t.Errorf("%d are told", len(o.published))
	}
	said(&o, t0.Add(5*time.Minute)) // there is room for the last one
	if len(o.published) != o.most || len(o.leftOut) != 0 {
		t.Errorf("%d are told and %d left out", len(o.published), len(o.leftOut))
	}
}

// Whatever bans begin and end, and whenever the node restarts or the connection is
// cut: while it is connected a set has an address exactly as long as a ban wants it.
func TestSetsFollowTheBans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const timeout = 10 * time.Minute
		now := t0
		o := newOutbox(sets, timeout, nil)
		set := map[Element]time.Time{} // vallumd's, with the end of each element
		bans := map[export.Key]time.Time{}
		step := func() {
			for _, m := range o.due(now) {
				if m.add {
					set[m.Element] = now.Add(timeout)
				} else {
					delete(set, m.Element)
				}
				o.acknowledged(m, now)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			e := entry(rapid.SampledFrom([]ban.Topic{"sshd", "web"}).Draw(t, "topic"),
				rapid.SampledFrom([]string{"198.51.100.1", "198.51.100.2", "198.51.100.0/30"}).Draw(t, "target"),
				now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "minutes"))*time.Minute))
			k := export.Key{Target: e.Target, Topic: e.Topic}
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				bans[k] = e.Until
				o.ban(e)
			case 2:
				delete(bans, k)
				o.lift(k)
			case 3:
				o = newOutbox(sets, timeout, slices.Collect(maps.Keys(o.published)))
				for k, until := range bans {
					o.ban(export.Entry{Target: k.Target, Topic: k.Topic, Until: until})
				}
			case 4:
				o.reconnected()
			}
			step()
			for range rapid.IntRange(0, 30).Draw(t, "ticks") {
				now = now.Add(o.every())
				step()
			}
			want := map[Element]bool{}
			for k, until := range bans {
				for _, x := range o.elements(k) {
					want[x] = want[x] || until.After(now)
				}
			}
			for x, wanted := range want {
				if has := set[x].After(now); has != wanted {
					t.Fatalf("%s in %s: %v, want %v", x.Addr, x.Set, has, wanted)
				}
			}
		}
	})
}

// A session that a broker kept goes on; one that reads other sets begins anew, by the same
// name.
func TestASessionGoesOnWhileItReadsTheSameSets(t *testing.T) {
	t.Parallel()
	begin := func(sets []Set, s Session) *Bridge {
		return New(Options{Name: "home", Sets: sets, Session: s, Timeout: time.Hour, Now: func() time.Time { return t0 }, Log: slog.New(slog.DiscardHandler)})
	}
	first := begin(sets, Session{})
	var kept Session
	if err := first.Save(func(_ map[Element]bool, s Session) error { kept = s; return nil }); err != nil {
		t.Fatal(err)
	}
	if kept.ID == "" || len(kept.Sets) == 0 || !kept.Last.Equal(t0) || !first.fresh {
		t.Errorf("at first %+v", kept)
	}
	if b := begin(sets, kept); b.fresh || b.session.ID != kept.ID {
		t.Errorf("after a restart %+v, fresh %v", b.session, b.fresh)
	}
	if b := begin(sets[:2], kept); !b.fresh || b.session.ID != kept.ID || slices.Equal(b.session.Sets, kept.Sets) {
		t.Errorf("with other sets %+v, fresh %v", b.session, b.fresh)
	}
}

// The broker hands messages over that the earlier run published itself: they are none of
// somebody else's, while a ban wants them and for a moment.
func TestMessagesOfTheEarlierRunAreOurs(t *testing.T) {
	t.Parallel()
	now := t0
	b := New(Options{Name: "home", Sets: sets, Timeout: time.Hour, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler)})
	b.out.ban(entry("sshd", "198.51.100.7", t0.Add(time.Hour)))
	b.resumed = now
	wanted, other := Element{"blacklist", netip.MustParseAddr("198.51.100.7")}, Element{"blacklist", netip.MustParseAddr("198.51.100.8")}
	for _, c := range []struct {
		m    change
		want bool
	}{{change{wanted, true}, true}, {change{wanted, false}, false}, {change{other, true}, false}} {
		if got := b.own(c.m); got != c.want {
			t.Errorf("%+v is ours: %v", c.m, got)
		}
	}
	now = now.Add(echoTime + time.Second)
	if b.own(change{wanted, true}) {
		t.Error("somebody else's later message passes for ours")
	}
}

func TestWhatWasNotSavedIsSavedLater(t *testing.T) {
	t.Parallel()
	b := New(Options{Name: "home", Sets: sets, Timeout: time.Hour, Log: slog.New(slog.DiscardHandler)})
	x, y := Element{"web", netip.MustParseAddr("198.51.100.7")}, Element{"web", netip.MustParseAddr("198.51.100.8")}
	full := errors.New("the disk is full")
	b.out.acknowledged(change{x, true}, t0)
	b.out.acknowledged(change{y, true}, t0)
	if err := b.Save(func(map[Element]bool, Session) error {
		b.out.acknowledged(change{x, false}, t0) // meanwhile
		return full
	}); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if err := b.Save(func(changed map[Element]bool, _ Session) error {
		if !maps.Equal(changed, map[Element]bool{x: false, y: true}) {
			t.Errorf("%v", changed)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
