package fail2banlog

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/export"
)

// The log has fail2ban's form, goes on after a rotation, and the totals count
// restored bans and new ones.
func TestTheLogHasFail2bansFormAndOutlivesRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fail2ban.log")
	synctest.Test(t, func(t *testing.T) {
		table := export.NewTable(time.Now)
		put := func(target string) {
			table.Apply([]export.Entry{{Target: ban.MustTarget(target), Topic: "sshd", Class: ban.ClassAuth, Until: time.Now().Add(time.Hour), Here: true}}, nil)
		}
		put("192.0.2.7")
		c := &Chronicle{Table: table, Path: path, Log: slog.New(slog.DiscardHandler), Now: time.Now, Restored: func(_ ban.Topic, t ban.Target) bool { return t == ban.MustTarget("192.0.2.9") }}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() { over <- c.Run(ctx) }()
		synctest.Wait()
		put("192.0.2.8")
		put("192.0.2.9")
		put("192.0.2.7") // goes on
		put("0x1111111111111111111111111111111111111111")
		synctest.Wait()
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		table.Apply(nil, []export.Key{{Target: ban.MustTarget("192.0.2.7"), Topic: "sshd"}})
		synctest.Wait()
		table.Apply(nil, []export.Key{{Target: ban.MustTarget("192.0.2.8"), Topic: "sshd"}})
		synctest.Wait()
		time.Sleep(2 * time.Hour)
		table.Expire()
		synctest.Wait()
		put("192.0.2.9") // long after the start
		synctest.Wait()
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
		if n := c.Total("sshd"); n != 4+1 {
			t.Errorf("%d bans", n)
		}
	})
	for name, want := range map[string]string{
		path + ".1": "Restore Ban 192.0.2.7|Ban 192.0.2.8|Restore Ban 192.0.2.9",
		path:        "Unban 192.0.2.7|Unban 192.0.2.8|Unban 192.0.2.9|Ban 192.0.2.9",
	} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(b)) {
			head, rest, ok := strings.Cut(strings.TrimSpace(line), "]: NOTICE  [sshd] ")
			if !ok || !strings.Contains(head, " fail2ban.actions        [") {
				t.Errorf("%q", line)
			}
			got = append(got, rest)
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%s: %q, want %s", filepath.Base(name), got, want)
		}
	}
}
