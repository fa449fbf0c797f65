package livepeer

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
)

// TestAllKindsOfLogsAreReadWithoutAFlag: a system unit, a plain file and a
// container, on one machine with a journal, each with an offender of its own.
// Only the places are the test's. A user's own unit is believed by nobody who
// does not name the user.
func TestAllKindsOfLogsAreReadWithoutAFlag(t *testing.T) {
	t.Parallel()
	const journalRemote = "/lib/systemd/systemd-journal-remote"
	if _, err := os.Stat(journalRemote); err != nil {
		t.Skip("systemd-journal-remote is not installed")
	}
	dir := t.TempDir()
	now := time.Now().Add(-time.Minute)
	line := func(i int, peer string) string {
		return fmt.Sprintf("%s http: TLS handshake error from %s:%d: tls: first record does not look like a TLS handshake",
			now.Add(time.Duration(i)*time.Second).Format("2006/01/02 15:04:05"), peer, 4000+i)
	}
	offenders := map[string]string{
		"_SYSTEMD_UNIT=livepeer.service": "203.0.113.1", "_SYSTEMD_USER_UNIT=livepeer.service": "2001:db8:2::7",
		"file": "203.0.113.3", "container": "203.0.113.4",
		// Docker's journald driver, and a user's program of the same name.
		"CONTAINER_NAME=livepeer-orchestrator\n_COMM=dockerd\n_UID=0": "203.0.113.5", "_COMM=livepeer\n_UID=1000": "203.0.113.6",
	}
	var entries, file, container strings.Builder
	for i := range 3 {
		for field, peer := range offenders {
			switch field {
			case "file":
				fmt.Fprintln(&file, line(i, "203.0.113.3"))
			case "container":
				b, err := json.Marshal(map[string]string{"log": line(i, peer) + "\n", "stream": "stderr", "time": now.UTC().Format(time.RFC3339Nano)})
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&container, "%s\n", b)
			default:
				if strings.Contains(peer, ":") {
					peer = "[" + peer + "]"
				}
				fmt.Fprintf(&entries, "__REALTIME_TIMESTAMP=%d\n_HOSTNAME=node1\nSYSLOG_IDENTIFIER=livepeer\n_PID=9\n%s\nMESSAGE=%s\n\n", now.UnixMicro()+int64(i), field, line(i, peer))
			}
		}
	}
	journal := filepath.Join(dir, "journal")
	if err := os.Mkdir(journal, 0o755); err != nil {
		t.Fatal(err)
	}
	remote := exec.CommandContext(t.Context(), journalRemote, "-o", filepath.Join(journal, "system.journal"), "-")
	remote.Stdin = strings.NewReader(entries.String())
	if out, err := remote.CombinedOutput(); err != nil {
		t.Fatalf("writing a journal: %v\n%s", err, out)
	}
	for name, text := range map[string]string{"livepeer.log": file.String(), "abc-json.log": container.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := topic(t, "", "livepeer")
	d.Detect.Files, d.Detect.Docker = []string{filepath.Join(dir, "livepeer.log")}, []string{filepath.Join(dir, "*-json.log")}
	var mu sync.Mutex
	var got []string
	detector, err := detect.New(detect.Options{
		Jails: []detect.Jail{{Definition: d}}, JournalDirs: []string{journal},
		Source: source.Options{Once: true, Start: source.StartBeginning},
		Ban: func(_ context.Context, v detect.Decision) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, v.Target.String())
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := detector.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if want := []string{"203.0.113.1", "203.0.113.3", "203.0.113.4", "203.0.113.5"}; !slices.Equal(got, want) {
		t.Errorf("banned %q, want %q", got, want)
	}
}
