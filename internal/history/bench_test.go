package history

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// BenchmarkHistory is `make bench-history`: a million events of 90 days, and the
// questions that commands and the page ask.
func BenchmarkHistory(b *testing.B) {
	const events = 1_000_000
	begin := time.Now().Add(-89 * 24 * time.Hour)
	now := begin
	s := open(b, b.TempDir(), Options{Now: func() time.Time { return now }})
	started := time.Now()
	batch := make([]Event, 0, 1000)
	for i := range events {
		now = begin.Add(time.Duration(i) * 89 * 24 * time.Hour / events)
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(18 + i>>17&1), byte(i >> 9), byte(i >> 1)}), 32)
		t, err := ban.ParseTarget(p.String())
		if err != nil {
			b.Fatal(err)
		}
		batch = append(batch, Event{
			At: now, Kind: []Kind{Ban, End}[i&1], Topic: []ban.Topic{"sshd", "web", "mail"}[i%3], Target: t, By: "detection", Peers: []string{[]string{"alice", "bob"}[i>>3&1]},
			Why: "this node's own offences", Until: now.Add(time.Hour), Count: 5, First: now.Add(-time.Minute), Source: "/var/log/auth.log",
			Sample: fmt.Sprintf("Failed password for root from %s port %d ssh2", p.Addr(), 1024+i%60000), Port: uint16(1024 + i%60000),
		})
		if len(batch) == cap(batch) {
			if err := s.Append(batch); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	b.Logf("%d events appended in %s; %+v", events, time.Since(started).Round(time.Millisecond), s.Stats())
	one, err := ban.ParseTarget("198.18.77.7")
	if err != nil {
		b.Fatal(err)
	}
	for _, q := range []struct {
		name string
		q    Query
	}{
		{"newest", Query{}},
		{"target", Query{Target: one}},
		{"day", Query{Since: now.Add(-24 * time.Hour), Limit: MaxLimit}},
		{"topic", Query{Topic: "mail"}},
		{"peer", Query{Peer: "bob"}},
		{"nobody", Query{Peer: "nobody"}},
		{"cursor", Query{After: s.Stats().Next - 500_000}},
	} {
		b.Run(q.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Find(q.q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("append", func(b *testing.B) {
		for b.Loop() {
			if err := s.Append([]Event{{At: now, Kind: Ban, Topic: "sshd", Target: one}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
