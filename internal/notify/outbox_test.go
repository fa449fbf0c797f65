package notify

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.Local) // a Wednesday

func entry(on ...Kind) *Entry {
	return &Entry{Name: "phone", Type: Ntfy, On: on, Every: DefaultEvery, Urgent: []Kind{Fault}}
}

func hold(peer string) Notice {
	return Notice{Kind: Hold, At: noon, Peers: []string{peer}, Text: "claims wait"}
}

func TestThingsOfAKindComeTogetherAndAtMostOnceInFiveMinutes(t *testing.T) {
	t.Parallel()
	o, e := &outbox{}, entry(Hold)
	o.add(hold("alice"), noon)
	if k, again := o.due(e, noon); k != "" || again.Sub(noon) != gather {
		t.Fatalf("due is %q at %s", k, again)
	}
	o.add(hold("bob"), noon.Add(time.Second))
	at := noon.Add(gather)
	if k, _ := o.due(e, at); k != Hold {
		t.Fatalf("due is %q after %s", k, gather)
	}
	o.begin(Hold)
	if n := o.Pending[Hold].size(); n != 2 {
		t.Errorf("%d notices are sent together", n)
	}
	o.add(hold("carol"), at) // while the first two are being sent
	o.done(Hold, "ok", nil, 0, at)
	if k, again := o.due(e, at.Add(DefaultEvery-time.Second)); k != "" || !again.Equal(at.Add(DefaultEvery)) {
		t.Errorf("within five minutes %q is due, and again at %s", k, again)
	}
	if k, _ := o.due(e, at.Add(DefaultEvery)); k != Hold || o.waiting() != 1 {
		t.Errorf("after five minutes %q is due, %d wait", k, o.waiting())
	}
	o.add(Notice{Kind: Fault, At: at, Text: "x"}, at)
	if k, _ := o.due(e, at.Add(gather)); k != Fault {
		t.Errorf("another kind waits for the first: %q", k)
	}
}

func TestQuietHoursHoldBackAllButUrgentKinds(t *testing.T) {
	t.Parallel()
	o, e := &outbox{}, entry(Hold, Fault)
	e.Quiet, _ = ParseQuiet("22:00-07:00")
	night := time.Date(2026, 11, 25, 23, 0, 0, 0, time.Local)
	o.add(hold("alice"), night)
	if k, again := o.due(e, night.Add(time.Hour)); k != "" || !again.Equal(time.Date(2026, 11, 26, 7, 0, 0, 0, time.Local)) {
		t.Errorf("at night %q is due, and again at %s", k, again)
	}
	o.add(Notice{Kind: Fault, At: night, Text: "x"}, night)
	if k, _ := o.due(e, night.Add(time.Hour)); k != Fault {
		t.Errorf("at night %q is due, want the urgent one", k)
	}
	e.Urgent = nil
	if k, _ := o.due(e, night.Add(time.Hour)); k != "" {
		t.Errorf("at night %q is due, and nothing is urgent", k)
	}
}

func TestQuietHoursAreThoseOfTheClockOnTheWall(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	at := func(s string) time.Time {
		x, err := time.ParseInLocation("2006-01-02 15:04", s, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, c := range []struct{ hours, at, end string }{
		{"22:00-07:00", "2026-11-25 21:59", ""},
		{"22:00-07:00", "2026-11-25 22:00", "2026-11-26 07:00"},
		{"22:00-07:00", "2026-11-26 06:59", "2026-11-26 07:00"},
		{"22:00-07:00", "2026-11-26 07:00", ""},
		{"12:00-13:00", "2026-11-25 12:30", "2026-11-25 13:00"},
		{"12:00-13:00", "2026-11-25 13:00", ""},
		{"22:00-07:00", "2026-10-24 23:00", "2026-10-25 07:00"}, // the hour comes twice
		{"22:00-02:30", "2026-03-28 23:00", "2026-03-29 03:30"}, // 02:30 is left out
		{"", "2026-11-25 03:00", ""},
	} {
		q, err := ParseQuiet(c.hours)
		if err != nil {
			t.Fatal(err)
		}
		var want time.Time
		if c.end != "" {
			want = at(c.end)
		}
		if got := q.End(at(c.at)); !got.Equal(want) {
			t.Errorf("%s at %s end %s, want %s", c.hours, c.at, got, c.end)
		}
	}
	for _, text := range []string{"22-7", "22:00-22:00", "24:00-07:00", "22:60-07:00", "22:00-07:00 ", "2:00-07:00"} {
		if _, err := ParseQuiet(text); err == nil {
			t.Errorf("%q are hours", text)
		}
	}
}

func TestAttemptsThatFailPauseLongerAndLongerAndLoseNothing(t *testing.T) {
	t.Parallel()
	o, e := &outbox{}, entry(Hold)
	o.add(hold("alice"), noon)
	id := o.Pending[Hold].ID
	at, last := noon.Add(gather), time.Duration(0)
	for i := range 20 {
		k, _ := o.due(e, at)
		if k != Hold {
			t.Fatalf("attempt %d: %q is due", i, k)
		}
		o.begin(k)
		o.add(hold("bob"), at)
		o.done(k, "", errors.New("no route"), 0, at)
		pause := o.Retry.Sub(at)
		if pause < last || pause > longestPause {
			t.Errorf("attempt %d: a pause of %s after one of %s", i, pause, last)
		}
		last, at = pause, o.Retry
	}
	if o.Pending[Hold].ID != id || len(o.Pending[Hold].Notices) != 1 || o.waiting() != 21 || o.Failing.IsZero() || o.Error != "no route" {
		t.Errorf("after the failures the outbox is %+v", o)
	}
	o.begin(Hold)
	o.done(Hold, "ok", nil, 0, at)
	if o.Error != "" || !o.Failing.IsZero() || o.waiting() != 20 {
		t.Errorf("after a success the outbox is %+v", o)
	}
	o.begin(Hold)
	o.done(Hold, "", &RefusedError{Answer: "429"}, 10*time.Minute, at)
	if got := o.Retry.Sub(at); got != 10*time.Minute {
		t.Errorf("a receiver that asks for ten minutes is asked again after %s", got)
	}
}

func TestAnOutboxIsBoundedAndCountsTheRest(t *testing.T) {
	t.Parallel()
	o := &outbox{}
	for i := range 100_000 {
		o.add(hold([]string{"alice", "bob"}[i%2]), noon)
	}
	p := o.Pending[Hold]
	if len(p.Notices) != maxKept || p.size() != 100_000 || p.By["alice"] != 50_000 {
		t.Errorf("%d are kept of %d, %v", len(p.Notices), p.size(), p.By)
	}
	m := p.message(Hold, entry(Hold), Page{}, noon)
	if last := m.Lines[len(m.Lines)-1]; last != "and 99990 more; in all by alice 50000, bob 50000" {
		t.Errorf("the last line is %q", last)
	}
	for i := range 100 {
		o.add(Notice{Kind: Ban, Peers: []string{string(rune('a'+i%26)) + string(rune('a'+i/26))}}, noon)
	}
	if n := len(o.Pending[Ban].By); n != maxPeers+1 {
		t.Errorf("%d operators are counted", n)
	}
}

// Whatever happens in whichever order, each notice is in exactly one message that
// arrives, or waits; also over restarts.
func TestEveryNoticeIsSentOnceOrWaits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o, e, now := &outbox{}, entry(Hold, Fault, Ban), noon
		added, sent := 0, 0
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				o.add(Notice{Kind: rapid.SampledFrom(e.On).Draw(t, "kind"), Text: "x"}, now)
				added++
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds")) * time.Second)
			},
			"send": func(t *rapid.T) {
				k, again := o.due(e, now)
				if k == "" {
					if o.waiting() > 0 && (again.IsZero() || !again.After(now)) {
						t.Fatalf("%d wait and nothing says when: %s at %s", o.waiting(), again, now)
					}
					return
				}
				o.begin(k)
				p := o.Pending[k]
				n := p.size() - p.Behind.size()
				if rapid.Bool().Draw(t, "fails") {
					o.done(k, "", errors.New("x"), 0, now)
					return
				}
				o.done(k, "ok", nil, 0, now)
				sent += n
			},
			"restart": func(t *rapid.T) {
				b, err := json.Marshal(o)
				if err != nil {
					t.Fatal(err)
				}
				o = &outbox{}
				if err := json.Unmarshal(b, o); err != nil {
					t.Fatal(err)
				}
				o.sound()
			},
			"": func(t *rapid.T) {
				if o.waiting()+sent != added {
					t.Fatalf("%d were added, %d sent, %d wait", added, sent, o.waiting())
				}
			},
		})
	})
}
