package broker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banmesh/test/broker/load"
)

// serviceUser is a user of nobody's, as systemd makes for DynamicUser=.
const serviceUser = 61999

// asService starts a broker as the service user and gives a function that stops
// it with a signal.
func asService(t *testing.T, port int, arg []string) (stop func()) {
	t.Helper()
	cmd := exec.Command(arg[0], arg[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: serviceUser, Gid: serviceUser}}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	running := true
	stop = func() {
		if !running {
			return
		}
		running = false
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the broker ends with %v", err)
		}
	}
	t.Cleanup(stop)
	eventually(t, "it serves", func() bool {
		c, err := load.Dial(fmt.Sprintf("127.0.0.1:%d", port), "probe", 60)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return stop
}

// The commands of docs/broker.md restore a backup for a service that runs as a
// user of its own; systemctl is played by this test.
func TestARestoreAsDocumented(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, as a restore does")
	}
	// Not below t.TempDir(), which other users may not pass.
	top, err := os.MkdirTemp("", "banmesh-restore-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	state := filepath.Join(top, "state")
	for _, dir := range []string{top, state} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	port := freePort(t)
	built, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	path, config := filepath.Join(top, "broker"), filepath.Join(top, "broker.toml")
	toml := fmt.Sprintf("network = \"bench\"\nstate_dir = %q\nanonymous = \"full\"\n[[listeners]]\nkind = \"tcp\"\naddress = \"127.0.0.1:%d\"\n", state, port)
	for name, b := range map[string][]byte{path: text, config: []byte(toml)} {
		if err := os.WriteFile(name, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(state, "s")
	if err := os.Chown(state, serviceUser, serviceUser); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	arg := []string{path, "run", "--config", config, "--socket", socket}
	stop := asService(t, port, arg)
	if err := newPublisher(20).run(t, address, 20); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(top, "banmesh-retained.db")
	if out, err := exec.Command(path, "--socket", socket, "backup", backup).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	page, err := os.ReadFile("../../docs/broker.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Backup and restore\n")
	section, _, _ = strings.Cut(section, "\n## ")
	ran := 0
	for line := range strings.Lines(section) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "# ")
		if !ok {
			continue
		}
		ran++
		switch command {
		case "systemctl stop banmesh-broker":
			stop()
			if err := os.WriteFile(filepath.Join(state, "retained.db"), []byte("wrecked"), 0o600); err != nil {
				t.Fatal(err)
			}
		case "systemctl start banmesh-broker":
			asService(t, port, arg)
		default:
			command = strings.NewReplacer("/var/lib/private/banmesh-broker", state, "/var/backups", top).Replace(command)
			if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
		}
	}
	if ran != 7 {
		t.Fatalf("%d commands are documented", ran)
	}
	if got := retained(t, address, 20); len(got) != 20 {
		t.Errorf("%d messages after the restore", len(got))
	}
}

// A broker is replaced under fifty agents while bans come: each agent hears
// every ban, those that came during the drain and while nobody served included.
func TestAnUpgradeLeavesNoGapInBans(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	arg := command(t, port, t.TempDir())
	config := arg[3]
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "[limits]\ndrain_time = \"1s\"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() *exec.Cmd {
		cmd := exec.Command(arg[0], arg[1:]...)
		cmd.Stderr = t.Output()
		if err := cmd.Start(); err != nil {
			t.Error(err)
		}
		return cmd
	}
	running := start()
	t.Cleanup(func() {
		_ = running.Process.Kill()
		_ = running.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := load.Upgrade{
		Address: fmt.Sprintf("127.0.0.1:%d", port), Agents: 50, Bans: 60, Every: 10 * time.Millisecond,
		Replace: func() error {
			if err := running.Process.Signal(syscall.SIGTERM); err != nil {
				return err
			}
			err := running.Wait()
			running = start()
			return err
		},
	}.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r.Missing != 0 || len(r.Away) != 50 {
		t.Errorf("%d bans were never heard; %d of 50 agents were away", r.Missing, len(r.Away))
	}
}
