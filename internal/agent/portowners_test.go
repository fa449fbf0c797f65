package agent

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/settings"
)

// owned gives the owners of a node that detects livepeer.
func owned(t *testing.T, listen func() map[uint16][]uint32) *portOwners {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/agent.toml", []byte("[topics.livepeer]\ndetect = true\n[topics.sshd]\ndetect = false\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	return &portOwners{
		settings: func() *settings.Settings { return s }, now: time.Now, started: time.Now(), log: slog.New(slog.DiscardHandler),
		listen: func() (map[uint16][]uint32, error) { return listen(), nil },
		status: func() detect.Status { return detect.Status{} },
	}
}

func journalOf(jails []detect.Jail) []string {
	var list []string
	for _, m := range jails[0].Definition.Detect.Journal {
		if strings.HasPrefix(m, "_COMM=livepeer") {
			list = append(list, m)
		}
	}
	return list
}

// A program's name is free to all; the port is not.
func TestOnlyTheUserWhoListensIsBelievedByName(t *testing.T) {
	for claim, c := range map[string]struct {
		listen map[uint16][]uint32
		want   []string
	}{
		"nobody listens":         {nil, nil},
		"a user at another port": {map[uint16][]uint32{8936: {1000}}, nil},
		"a user at the port":     {map[uint16][]uint32{8935: {1000}}, []string{"_COMM=livepeer _UID=1000"}},
		"IPv4 and IPv6 of one":   {map[uint16][]uint32{8935: {1000, 1000}}, []string{"_COMM=livepeer _UID=1000"}},
	} {
		p := owned(t, func() map[uint16][]uint32 { return c.listen })
		before := p.settings().Jails()
		jails := p.jails(before)
		if got := journalOf(jails); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", claim, got, c.want)
		}
		if got := journalOf(before); len(got) != 1 || !strings.Contains(got[0], "port-owner") {
			t.Errorf("%s: the definition itself became %q", claim, got)
		}
	}
}

func TestDetectionBeginsAnewForANewOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var uids atomic.Pointer[[]uint32]
		uids.Store(&[]uint32{})
		p := owned(t, func() map[uint16][]uint32 { return map[uint16][]uint32{8935: *uids.Load()} })
		restarts := 0
		p.restart = func(context.Context) error {
			restarts++
			p.jails(p.settings().Jails())
			return nil
		}
		p.jails(p.settings().Jails())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.run(ctx) }()
		for _, step := range []struct {
			uids []uint32
			want int
		}{{nil, 0}, {[]uint32{1000}, 1}, {[]uint32{1000}, 1}, {nil, 1}, {[]uint32{1000}, 1}, {[]uint32{1001}, 2}} {
			uids.Store(&step.uids)
			time.Sleep(portOwnerLook) // of the bubble
			synctest.Wait()
			if restarts != step.want {
				t.Errorf("with %v at the port: %d restarts, want %d", step.uids, restarts, step.want)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAServiceWithoutALineIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listen := map[uint16][]uint32{8935: {1000}}
		p := owned(t, func() map[uint16][]uint32 { return listen })
		warned := func() bool {
			list := p.warnings()
			return len(list) == 1 && list[0].Code == "log-silent" && strings.Contains(list[0].Text, "user 1000")
		}
		if warned() {
			t.Error("at the start")
		}
		time.Sleep(silentFor)
		if !warned() {
			t.Errorf("after a while: %v", p.warnings())
		}
		listen = nil
		if warned() {
			t.Error("nobody listens")
		}
		listen = map[uint16][]uint32{8935: {1000}}
		p.status = func() detect.Status {
			l := detect.LogStatus{Topics: []ban.Topic{"livepeer"}}
			l.Count.Read = 1
			return detect.Status{Sources: []detect.SourceStatus{{Logs: []detect.LogStatus{l}}}}
		}
		if warned() {
			t.Error("a log had a line")
		}
	})
}

func TestTheKernelSaysWhoListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	all, err := listeners()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if err != nil || !slices.Contains(all[port], uint32(os.Geteuid())) {
		t.Errorf("port %d: %v, %v", port, all[port], err)
	}
}
