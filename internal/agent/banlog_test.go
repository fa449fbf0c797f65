package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/ledger"
)

func TestManyBansOfPeersAreOneLine(t *testing.T) {
	some := func(n int, own bool) (list []ledger.Enforced) {
		for i := range n {
			list = append(list, ledger.Enforced{Target: ban.MustTarget(fmt.Sprintf("192.0.%d.%d", i/250, i%250)), Topic: "sshd", Own: own})
		}
		return list
	}
	for name, c := range map[string]struct {
		batches         []int // of peers', a second apart
		own             int   // in each batch
		alone, together int
		sum             string
	}{
		"a thousand at once":        {[]int{1_000}, 0, 0, 1, "bans=1000"},
		"a thousand, and one of us": {[]int{1_000}, 1, 1, 1, "bans=1000"},
		"a few":                     {[]int{3, 3}, 0, 6, 0, ""},
		"a drizzle of ten seconds":  {[]int{5, 5, 5, 5, 5, 5, 5, 5, 5, 5}, 0, 10, 1, "bans=40"},
		"two joins":                 {[]int{1_000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2_000}, 0, 0, 2, "bans=2000"},
		"our own":                   {[]int{0}, 30, 30, 0, ""},
	} {
		var out bytes.Buffer
		now := time.Unix(1_000_000_000, 0)
		b := banLog{log: slog.New(slog.NewTextHandler(&out, nil)), now: func() time.Time { return now }}
		for _, n := range c.batches {
			b.add(t.Context(), append(some(n, false), some(c.own, true)...), "nftables")
			b.tick(t.Context(), "nftables") // within the second
			now = now.Add(time.Second)
		}
		now = now.Add(time.Second)
		b.tick(t.Context(), "nftables")
		alone, together := strings.Count(out.String(), "msg=ban "), strings.Count(out.String(), `msg="bans of peers"`)
		if alone != c.alone || together != c.together || !strings.Contains(out.String(), c.sum) {
			t.Errorf("%s: %d lines and %d summaries, want %d and %d:\n%.600s", name, alone, together, c.alone, c.together, out.String())
		}
	}
}
