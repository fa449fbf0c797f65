package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/export"
	"banmesh/internal/firewall"
	"banmesh/internal/procnet"
)

// A ban that its target does not feel is told of from the third offence on, with
// the reason that fits.
func TestABanThatDoesNotBiteIsToldWithItsReason(t *testing.T) {
	t.Parallel()
	const offender = "45.1.1.1"
	connection := func(local, remote string) func(*node) {
		return func(n *node) {
			n.sockets = append(n.sockets, procnet.Socket{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), State: procnet.Established})
		}
	}
	for name, c := range map[string]struct {
		config   string
		prepare  func(*node)
		met      bool // the kernel meets a packet after the first offence
		reason   string
		fix      string
		severity string // "" is no warning
	}{
		"a proxy whose connections are seen": {
			prepare: connection("192.0.2.1:22", "172.18.0.9:4000"),
			reason:  "connections come from 172.18.0.9", fix: "An application behind a proxy", severity: control.SeverityHigh,
		},
		"a content delivery network": {
			prepare: connection("192.0.2.1:22", "172.71.210.9:4000"),
			reason:  "connections come from 172.71.210.9", fix: "A web server behind a CDN", severity: control.SeverityHigh,
		},
		"somebody unknown sends the packets": {reason: "met no packet", fix: "docs/recipes.md", severity: control.SeverityHigh},
		"another port": {
			prepare: connection("192.0.2.1:2022", offender+":4000"),
			reason:  "at port 2022", fix: "add 2022 to ports in [topics.sshd]", severity: control.SeverityHigh,
		},
		"another port, and no connection lasts": {
			prepare: func(n *node) {
				n.sockets = []procnet.Socket{{Local: netip.MustParseAddrPort("0.0.0.0:2022"), State: procnet.Listening}, {Local: netip.MustParseAddrPort("127.0.0.1:631"), State: procnet.Listening}}
			},
			reason: "nothing on this machine listens at the topic's ports (22), and something does at 2022", fix: "ports = [2022] in [topics.sshd]", severity: control.SeverityHigh,
		},
		"its connection with another service": {
			prepare: connection("192.0.2.1:443", offender+":4000"),
			reason:  "met no packet", severity: control.SeverityHigh,
		},
		"enforcement off":           {config: "[firewall]\nmode = \"off\"\n", reason: "firewall.mode is off", severity: control.SeverityLow},
		"every topic observed":      {config: "[firewall]\nmode = \"observe\"\n", reason: "firewall.mode is observe", fix: `mode = "enforce" in [firewall]`, severity: control.SeverityLow},
		"the topic observed":        {config: "observe = true\n", reason: "the topic is observed, so its bans drop nothing", fix: "observe = false in [topics.sshd]", severity: control.SeverityLow},
		"lines that were in flight": {met: true, reason: "open before"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, shift := newLog(t), atomic.Int64{}
			n := &node{t: t, dir: t.TempDir()}
			n.sockets = []procnet.Socket{{Local: netip.MustParseAddrPort("0.0.0.0:22"), State: procnet.Listening}}
			n.now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
			if c.prepare != nil {
				c.prepare(n)
			}
			n.configure(detecting("sshd", l, "corroborate = \"off\"\n"+c.config))
			n.start()
			offends := func(times int) {
				for i := range times {
					l.saysAt(n.now(), "web sshd[7]: Failed password for root from %s port %d ssh2", offender, 4000+i)
				}
			}
			late := func(want int) (x control.AfterBan) {
				n.eventually(fmt.Sprintf("%d late offences", want), func() bool {
					list := n.explain(offender).AfterBan
					if len(list) == 1 {
						x = list[0]
					}
					return x.Offences == want
				})
				return x
			}
			offends(5)
			n.eventually("it is banned", func() bool { return len(n.a.table.Of(ban.MustTarget(offender))) == 1 })
			offends(2) // in flight
			shift.Store(int64(time.Minute))
			offends(1)
			late(1)
			if c.met && !n.fake.Packet(netip.MustParseAddr(offender), "tcp", 22, 40) {
				t.Fatal("the ban is not in force")
			}
			offends(1)
			late(2)
			if w, told := n.warns("ban-does-not-bite"); told {
				t.Errorf("two are told of: %+v", w)
			}
			offends(1)
			if x := late(3); x.Topic != "sshd" || !strings.Contains(x.Reason, c.reason) || !strings.Contains(x.Fix, c.fix) {
				t.Errorf("explain: %+v", x)
			}
			w, told := n.warns("ban-does-not-bite")
			if told != (c.severity != "") || w.Severity != c.severity || told && !(strings.Contains(w.Text, "sshd: 3 offences of "+offender) && strings.Contains(w.Text, c.reason)) {
				t.Errorf("warned %v: %+v", told, w)
			}
		})
	}
}

// A date that is far from the clock is not believed, so nobody can tell whether its
// line is of before the ban.
func TestLateLinesOfAWrongClockAreToldAsSuch(t *testing.T) {
	t.Parallel()
	const offender = "45.1.1.1"
	for name, c := range map[string]struct {
		odd    time.Duration
		met    bool
		reason string
	}{
		"another time zone":           {-2 * time.Hour, false, "dates are 2h behind this machine's clock"},
		"a clock that is ahead":       {3 * time.Hour, true, "dates are 3h ahead of this machine's clock"},
		"and nothing met: or a proxy": {-2 * time.Hour, false, "if they are not, somebody else sends the packets"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, shift := newLog(t), atomic.Int64{}
			n := &node{t: t, dir: t.TempDir()}
			n.now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
			n.configure(detecting("sshd", l, "corroborate = \"off\"\n"))
			n.start()
			offend := func(odd time.Duration) {
				l.saysAt(n.now().Add(odd), "web sshd[7]: Failed password for root from %s port 4000 ssh2", offender)
			}
			for range 5 {
				offend(0)
			}
			n.eventually("it is banned", func() bool { return len(n.a.table.Of(ban.MustTarget(offender))) == 1 })
			shift.Store(int64(time.Minute))
			if c.met && !n.fake.Packet(netip.MustParseAddr(offender), "tcp", 22, 40) {
				t.Fatal("the ban is not in force")
			}
			// A wrong date counts from when the reader has caught up with its log.
			n.eventually("three late offences", func() bool {
				list := n.explain(offender).AfterBan
				if len(list) == 1 && list[0].Offences >= 3 {
					return true
				}
				offend(c.odd)
				return false
			})
			n.eventually("it is told", func() bool {
				w, told := n.warns("ban-does-not-bite")
				return told && w.Severity == control.SeverityLow && strings.Contains(w.Text, c.reason) && strings.Contains(w.Fix, "timezone in the topic")
			})
		})
	}
}

func TestLateOffencesAreCountedFromTheirBanOnBoundedAndLoggedOnce(t *testing.T) {
	t.Parallel()
	banned := time.Unix(1_000_000, 0)
	now := banned.Add(time.Minute)
	var log bytes.Buffer
	a := &afterBan{
		since:   func(ban.Topic, ban.Target) (time.Time, bool) { return banned, true },
		packets: func(context.Context, ban.Topic) (uint64, bool) { return 0, true },
		reason: func(_ context.Context, _ ban.Topic, _ ban.Target, unmet bool) biteReason {
			return biteReason{text: fmt.Sprint("unmet ", unmet), severity: control.SeverityHigh}
		},
		now: func() time.Time { return now }, log: slog.New(slog.NewTextHandler(&log, nil)),
		counts: map[heldKey]lateOffences{}, topics: map[ban.Topic]lateTopic{},
	}
	notice := func(target string, after time.Duration) {
		a.notice(t.Context(), detect.Notice{Topic: "sshd", Target: ban.MustTarget(target), At: banned.Add(after)})
	}
	notice("45.1.1.1", lateGrace)
	if len(a.counts) != 0 {
		t.Error("a line in flight counts")
	}
	for range 100 {
		notice("45.1.1.1", lateGrace+time.Nanosecond)
	}
	if got := strings.Count(log.String(), "\n"); got != 1 || !strings.Contains(log.String(), "offences=3") || !strings.Contains(log.String(), "unmet true") {
		t.Errorf("the log has %d lines: %s", got, log.String())
	}
	for i := range maxLate {
		notice(fmt.Sprintf("45.2.%d.%d", i/256, i%256), 10*time.Second+time.Duration(i))
	}
	if len(a.counts) != maxLate || len(a.about(t.Context(), ban.MustTarget("45.1.1.1"))) != 0 {
		t.Errorf("%d are kept", len(a.counts))
	}
	now = now.Add(lateFor + time.Minute)
	if len(a.warnings(t.Context())) != 0 || len(a.counts) != 0 {
		t.Error("they are told of for ever")
	}
}

// sshd ends the logins of before a ban two minutes later: nobody is warned of
// them where the bans have met packets, also if none came since.
func TestLinesOfAnOffenderWhoGaveUpAreNoBanThatDoesNotBite(t *testing.T) {
	t.Parallel()
	banned := time.Unix(1_000_000, 0)
	for name, c := range map[string]struct {
		met    uint64
		after  time.Duration
		warned bool
	}{
		"it met some, and lines end":      {7, lateEnd, false},
		"it met some, and lines go on":    {7, lateEnd + time.Second, true},
		"it never met any, and lines end": {0, lateEnd, true},
	} {
		a := &afterBan{
			since:   func(ban.Topic, ban.Target) (time.Time, bool) { return banned, true },
			packets: func(context.Context, ban.Topic) (uint64, bool) { return c.met, true },
			reason: func(_ context.Context, _ ban.Topic, _ ban.Target, unmet bool) (r biteReason) {
				if unmet {
					r.text = "unmet"
				}
				return r
			},
			now: func() time.Time { return banned.Add(c.after) }, log: slog.New(slog.DiscardHandler),
			counts: map[heldKey]lateOffences{}, topics: map[ban.Topic]lateTopic{},
		}
		for range lateLeast {
			a.notice(t.Context(), detect.Notice{Topic: "sshd", Target: ban.MustTarget("45.1.1.1"), At: banned.Add(c.after)})
		}
		if got := len(a.warnings(t.Context())) == 1; got != c.warned {
			t.Errorf("%s: warned %v", name, got)
		}
	}
}

func TestWhenABanWasWrittenIsKeptForTheNewestAndBoundedForOthers(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000_000, 0)
	w := written{floor: start}
	key := func(i int) export.Key {
		return export.Key{Target: ban.MustTarget(fmt.Sprintf("45.1.%d.%d", i/256, i%256)), Topic: "sshd"}
	}
	for i := range maxWritten + 1 {
		w.add(start.Add(time.Duration(i+1)*time.Second), []export.Key{key(i)}, nil)
	}
	if got := w.since(key(0)); !got.Equal(start.Add(time.Second)) {
		t.Errorf("one that made room: %v", got)
	}
	if got := w.since(key(1)); !got.Equal(start.Add(2 * time.Second)) {
		t.Errorf("the oldest that is kept: %v", got)
	}
	if len(w.times) != maxWritten || len(w.order) != maxWritten {
		t.Errorf("%d and %d are kept", len(w.times), len(w.order))
	}
	w.add(start, nil, []export.Key{key(1)})
	if got := w.since(key(1)); !got.Equal(start.Add(time.Second)) {
		t.Errorf("one that was lifted: %v", got)
	}
}

// While a write fails nobody can tell whether a ban bites, and after it lines
// are in flight anew.
func TestAFaultOfTheFirewallIsNoBanThatDoesNotBite(t *testing.T) {
	t.Parallel()
	n := newNode(t, "[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.sshd]\ndetect = false\n")
	target := ban.MustTarget("45.1.1.1")
	n.post("/v1/bans", control.BanRequest{Target: target, Topic: "sshd"}, nil)
	stops := func() (at time.Time, ok bool) { return n.a.enforcer.stops("sshd", target) }
	n.eventually("the ban stops it", func() bool { _, ok := stops(); return ok })
	n.fake.Fail(errors.New("no space"))
	n.eventually("nobody can tell", func() bool { _, ok := stops(); return !ok })
	again := time.Now()
	n.fake.Fail(nil)
	n.eventually("it stops again from then on", func() bool { at, ok := stops(); return ok && !at.Before(again) })
}

func TestABanIsToldNotToBiteWhereEnforcementWasSwitchedOff(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet)
	e := &enforcer{o: n.a.enforcer.o, fw: n.fake, drift: firewall.Drift{Off: true}}
	got := e.unbitten("sshd", ban.MustTarget("45.1.1.1"), true, nil)
	if got.text != "enforcement was switched off by hand" || got.fix != "agent firewall resume" || got.severity != control.SeverityHigh {
		t.Errorf("%+v", got)
	}
}
