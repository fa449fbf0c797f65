package firewall

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
)

func TestOneTopicOfTwoEndsFirst(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	start := time.Now()
	now := start
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return now.Sub(start) }
	n := newTest(t, o)
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, func(yield func(Ban) bool) {
		for _, p := range []string{"192.0.2.1", "198.51.100.0/24", "2001:db8::/64"} {
			for _, b := range append(bans("all", start.Add(time.Minute), p), bans("sshd", start.Add(time.Hour), p)...) {
				if !yield(b) {
					return
				}
			}
		}
		for _, b := range append(bans("all", start.Add(time.Minute), "203.0.113.16/28"), bans("sshd", start.Add(time.Hour), "203.0.113.0/24")...) {
			if !yield(b) {
				return
			}
		}
	}))
	inStep(t, n)
	if got := n.blocks(netip.MustParseAddr("192.0.2.1"), 80); !got {
		t.Error("not blocked on every port before the minute")
	}
	now = now.Add(61 * time.Second)
	_, err := n.Check(ctx)
	mustDo(t, err)
	inStep(t, n)
	for _, a := range []string{"192.0.2.1", "198.51.100.3", "2001:db8::7", "203.0.113.17"} {
		if n.blocks(netip.MustParseAddr(a), 80) || !n.blocks(netip.MustParseAddr(a), 22) {
			t.Errorf("%s: wrong ports after the minute", a)
		}
	}
}

func TestSegmentsAreDisjointAndComplete(t *testing.T) {
	// Against the plain definition: every address has the topics of all
	// prefixes around it.
	r := rand.New(rand.NewPCG(1, 2))
	topics := []ban.Topic{"a", "b", "c"}
	for range 300 {
		s := newState()
		type entry struct {
			p netip.Prefix
			t ban.Topic
			u second
		}
		var all []entry
		for range 1 + r.IntN(12) {
			bits := 24 + r.IntN(8)
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, byte(r.IntN(256))}), bits).Masked()
			e := entry{p, topics[r.IntN(3)], second(100 + r.IntN(3)*100)}
			all = slices.DeleteFunc(all, func(x entry) bool { return x.p == e.p && x.t == e.t })
			all = append(all, e)
			if _, err := s.add(e.p, e.t, "", e.u, 50); err != nil {
				t.Fatal(err)
			}
		}
		for _, now := range []second{50, 150, 250} {
			got, _, err := s.segments(true, now)
			mustDo(t, err)
			for i := range got {
				if got[i].to.Less(got[i].from) || i > 0 && !got[i-1].to.Less(got[i].from) {
					t.Fatalf("segments overlap: %v", got)
				}
			}
			for i := range 256 {
				a := netip.AddrFrom4([4]byte{255, 255, 255, byte(i)})
				var want []ban.Topic
				var until second
				for _, e := range all {
					if e.p.Contains(a) && e.u > now {
						want = append(want, e.t)
						until = max(until, e.u)
					}
				}
				slices.Sort(want)
				want = slices.Compact(want)
				v := s.covering(a, got)[1:]
				var have []ban.Topic
				var ends second
				if len(v) > 0 {
					have, ends = s.classes[v[0].class].topics, v[0].until
				}
				if !slices.Equal(have, want) || ends != until {
					t.Fatalf("%v at %d: %v until %d, want %v until %d\n%v", a, now, have, ends, want, until, all)
				}
			}
		}
	}
}

func FuzzKernelMessagesAreReadWithoutPanic(f *testing.F) {
	var seq uint32
	t := transaction{writer: writer{seq: &seq}}
	t.begin()
	want := build(Config{Scopes: []Scope{{Topic: "a", Ports: []uint16{1}, Protocols: []string{"tcp"}, Remember: time.Hour, MaxConnections: 2}}}, nil, true, true, features{mapGate: true}, false)
	if err := want.encode(&t, "banmesh", nil); err != nil {
		f.Fatal(err)
	}
	for m, rest, ok := nextMessage(t.b); ok; m, rest, ok = nextMessage(rest) {
		f.Add(m.body)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := binary.NativeEndian.AppendUint32(nil, uint32(headerSize+len(b)))
		whole = append(append(whole, make([]byte, 12)...), b...)
		m, _, ok := nextMessage(whole)
		if !ok || !bytes.Equal(m.body, b) {
			t.Fatal("the message was not cut as it was joined")
		}
		_ = m.asError()
		m.flags = 0x200
		_ = m.asError()
		readSet(m.attrs())
		readChain(m.attrs())
		readElement(m.attrs())
		readSocket(m.body)
		canonicalRead(find(m.attrs(), unix.NFTA_RULE_EXPRESSIONS))
	})
}

func TestPrefixesThatKeepComingAreWrittenTogether(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	start := time.Now()
	now := start
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return now.Sub(start) }
	n := newTest(t, o)
	c := simple()
	mustDo(t, n.Configure(ctx, c))
	wide := func(i int) Ban {
		return Ban{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 11), byte(i >> 3), byte(i << 5)}), 28), Topic: "sshd", Until: start.Add(time.Hour)}
	}
	mustDo(t, n.Replace(ctx, func(yield func(Ban) bool) {
		for i := range 30_000 {
			if !yield(wide(i)) {
				return
			}
		}
	}))
	inStep(t, n)
	for i := range 50 {
		mustDo(t, n.Apply(ctx, []Ban{wide(30_000 + i)}, []Key{wide(i).Key()}))
	}
	now = now.Add(wideRestMost)
	d, err := n.Check(ctx)
	if err != nil || d.Changed {
		t.Errorf("%+v, %v", d, err)
	}
	inStep(t, n)
}
