package detect_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/detect/filter"
	"banmesh/internal/detect/source"
	"banmesh/internal/span"
	"banmesh/topics"
)

// The line on which fail2ban 1.0.2's domino-smtp filter never returns, while
// its whole server stands still: each further "A " doubles the time.
var frozen = "smtp: " + strings.Repeat("A ", 62) + "[192.0.2.66] authentication failure using internet passwore"

func TestALineThatFreezesFail2banCostsMilliseconds(t *testing.T) {
	config, _ := places(t)
	read, err := f2bconf.ReadFilter(config, "domino-smtp", "file", nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := filter.Compile(detect.FilterOf(read))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{16, 62, 5000} {
		line := []byte("smtp: " + strings.Repeat("A ", n) + "[192.0.2.66] authentication failure using internet passwore")
		started := time.Now()
		if m := f.NewState(time.Now).Process(line, "", time.Now(), nil); len(m) != 0 {
			t.Errorf("%d: %+v", n, m)
		}
		took := time.Since(started)
		fmt.Printf("figure freeze-line-%d %.3g ms aim <100\n", n, took.Seconds()*1000)
		if took > 2*time.Second {
			t.Errorf("%d tokens took %v", n, took)
		}
	}
}

func TestAnOffenderIsBannedWhileAnotherLogHoldsTheFreezingLine(t *testing.T) {
	config, _ := places(t)
	dir := t.TempDir()
	domino, auth := filepath.Join(dir, "domino.log"), filepath.Join(dir, "auth.log")
	stamp := time.Now().Format("2006-01-02 15:04:05")
	put := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(domino, strings.Repeat(stamp+"   "+frozen+"\n", 50))
	put(auth, strings.Repeat(time.Now().Format(time.Stamp)+" web1 sshd[1]: Failed password for root from 192.0.2.7 port 1 ssh2\n", 5))
	jail := func(name, log string) detect.Jail {
		return detect.Jail{Definition: &topics.Definition{Name: ban.Topic(name), Target: "ip", Detect: &topics.Detect{
			Files: []string{log}, Fail2ban: name, MaxRetry: 5, FindTime: span.Of(10 * time.Minute), BanTime: span.Of(time.Hour),
		}}}
	}
	banned := make(chan detect.Decision, 10)
	d, err := detect.New(detect.Options{
		Jails: []detect.Jail{jail("domino-smtp", domino), jail("sshd", auth)}, Fail2banDir: config,
		Source: source.Options{Start: source.StartBeginning},
		Ban:    func(_ context.Context, v detect.Decision) error { banned <- v; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	select {
	case v := <-banned:
		if v.Topic != "sshd" || v.Target != ban.MustTarget("192.0.2.7") {
			t.Errorf("decision = %+v", v)
		}
	case <-time.After(20 * time.Second):
		t.Error("nobody was banned")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
