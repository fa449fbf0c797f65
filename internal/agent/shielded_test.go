package agent

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/history"
	"banmesh/internal/neverban"
	"banmesh/internal/settings"
)

// An application that logs the proxy before it bans nobody for ever: the offences
// of an own address are counted, told, and named by their kind.
func TestOffencesOfAnOwnAddressAreCountedAndTold(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	n := &node{t: t, dir: t.TempDir()}
	n.network = neverban.Network{Addresses: []neverban.Address{{Prefix: netip.MustParsePrefix("172.18.0.5/16"), Interface: "eth0"}}}
	n.configure(detecting("sshd", l, "corroborate = \"off\"\n"))
	n.start()
	n.fails(l, 28, "172.18.0.5")
	var w control.Warning
	n.eventually("the warning counts all", func() bool {
		w, _ = n.warns("shielded")
		return strings.Contains(w.Text, "28 of the last 28")
	})
	if !strings.Contains(w.Text, "sshd") || !strings.Contains(w.Text, "your own 172.18.0.5") || !strings.Contains(w.Fix, "docs/recipes.md") {
		t.Errorf("%+v", w)
	}
	x := n.explain("172.18.0.5").Shielded
	if len(x) != 1 || x[0].Topic != "sshd" || x[0].Offences != 28 || !strings.HasPrefix(x[0].Entry, "own-address 172.18.0.5") || time.Since(x[0].Last) > time.Hour {
		t.Errorf("explain: %+v", x)
	}
	var s control.Status
	if err := n.client.Get(t.Context(), "/v1/status", nil, &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Shielded) != 1 || s.Shielded[0] != x[0] {
		t.Errorf("status: %+v", s.Shielded)
	}
	if len(n.explain("45.1.1.1").Shielded) != 0 {
		t.Error("who did nothing has offences")
	}
	// The log is mended: clients are named.
	for i := range 4 {
		n.fails(l, 1, fmt.Sprintf("45.1.1.%d", 1+i))
	}
	n.eventually("the warning ends", func() bool {
		_, still := n.warns("shielded")
		return !still
	})
}

func TestWhichOffencesOfShieldedAddressesAreWarnedOf(t *testing.T) {
	t.Parallel()
	conf := mustSettings(t, "[topics.sshd]\ndetect = true\n")
	now := time.Now()
	for name, c := range map[string]struct {
		source   neverban.Source
		offences int
		others   int
		age      time.Duration
		warned   bool
	}{
		"five of five":                 {neverban.SourceContainer, 5, 0, 0, true},
		"four are too few":             {neverban.SourceContainer, 4, 0, 0, false},
		"nine of ten":                  {neverban.SourceOwn, 9, 1, 0, true},
		"nine of eleven":               {neverban.SourceOwn, 9, 2, 0, false},
		"the last 32 count":            {neverban.SourceGateway, 32, 3, 0, true},
		"long ago":                     {neverban.SourceOwn, 9, 0, heldFor + time.Second, false},
		"an administrator's own typos": {neverban.SourceAdmin, 9, 0, 0, false},
	} {
		e := neverban.Entry{Prefix: netip.MustParsePrefix("172.18.0.0/16"), Source: c.source}
		s := newShielded(func() *settings.Settings { return conf }, func(ban.Target) (neverban.Entry, bool) { return e, true }, func() time.Time { return now }, func(history.Event) {})
		for range c.offences {
			s.notice(detect.Notice{Topic: "sshd", Target: ban.MustTarget("172.18.0.5"), At: now.Add(-c.age), Shielded: true})
		}
		for range c.others {
			s.notice(detect.Notice{Topic: "sshd", Target: ban.MustTarget("45.1.1.1"), At: now})
		}
		if got := len(s.warnings()) == 1; got != c.warned {
			t.Errorf("%s: warned %v", name, got)
		}
	}
}

func TestCountsOfShieldedAddressesAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newShielded(nil, func(ban.Target) (neverban.Entry, bool) { return neverban.Entry{Source: neverban.SourceVPN}, true }, time.Now, func(history.Event) {})
	for i := range maxShielded + 1 {
		s.notice(detect.Notice{Topic: "sshd", Target: ban.MustTarget(fmt.Sprintf("10.0.%d.%d", i/256, i%256)), At: now.Add(time.Duration(i) * time.Second), Shielded: true})
	}
	list := s.about(ban.Target{})
	if len(list) != maxShielded || len(s.about(ban.MustTarget("10.0.0.0"))) != 0 || list[0].Target != ban.MustTarget("10.0.1.0") {
		t.Errorf("%d are kept, the last one %v", len(list), list[0])
	}
	if len(s.recent["sshd"]) != shieldedRecent {
		t.Errorf("%d recent ones", len(s.recent["sshd"]))
	}
}

func mustSettings(t *testing.T, text string) *settings.Settings {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}
