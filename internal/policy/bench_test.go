package policy

import (
	"testing"
	"time"
)

func BenchmarkJudge(b *testing.B) {
	p, err := Compile(source(Recommended("everyone", 5).topic(), "alice", "bob", "carol", "dave", "x"), nil)
	if err != nil {
		b.Fatal(err)
	}
	q := Question{Topic: "sshd", Target: target, Now: t0, Brief: true, Votes: []Vote{vote("alice", -time.Hour, 24*time.Hour), vote("bob", -2*time.Hour, 12*time.Hour)}}
	b.ReportAllocs()
	for b.Loop() {
		p.Judge(q)
	}
}
