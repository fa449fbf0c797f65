package api

import (
	"fmt"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"banmesh/internal/ban"
)

func observed(t *testing.T, l *Latency) (count uint64, sum float64) {
	t.Helper()
	var m dto.Metric
	if err := l.histogram.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
}

func addressAt(n int) ban.Target {
	return ban.MustTarget(fmt.Sprintf("45.1.%d.%d", n/256, n%256))
}

func TestTheWayToTheKernelIsTimed(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := NewLineLatency(func() time.Time { return now })
	a, b := addressAt(1), addressAt(2)
	l.Begin("sshd", a, now)
	now = now.Add(2 * time.Second)
	l.Begin("sshd", a, now) // the first counts
	l.Begin("sshd", b, now.Add(time.Hour))
	l.End("sshd", a)
	l.End("sshd", a) // once
	l.End("sshd", b) // a clock that went back is no negative time
	l.End("nginx", a)
	if count, sum := observed(t, l); count != 2 || sum != 2 {
		t.Errorf("%d bans took %v s", count, sum)
	}
	l.Begin("sshd", a, now)
	l.Forget("sshd", a)
	l.End("sshd", a)
	if count, _ := observed(t, l); count != 2 {
		t.Error("one that became no ban is timed")
	}
}

func TestBansThatNeverComeKeepNoPlace(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := NewClaimLatency(func() time.Time { return now })
	for n := range maxTimed + 1 {
		l.Begin("sshd", addressAt(n), now)
	}
	l.End("sshd", addressAt(maxTimed))
	if count, _ := observed(t, l); count != 0 || len(l.begun) != maxTimed {
		t.Errorf("%d are timed at once", len(l.begun))
	}
	now = now.Add(timedFor)
	l.Begin("sshd", addressAt(maxTimed), now)
	l.End("sshd", addressAt(maxTimed))
	if count, _ := observed(t, l); count != 1 {
		t.Error("after their time others are not timed either")
	}
}
