package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banmesh/internal/cli"
	"banmesh/internal/control"
)

func newSelftestCommand() *cobra.Command {
	return &cobra.Command{
		Use: "selftest", Short: "Ban an address for real in a network that is made for it, and lift the ban",
		Example: "  sudo banmesh selftest",
		Long: `Make two network namespaces, run an agent with files of its own in one, let the other one connect, write five
failed logins of its address into a log, and see that its packets are dropped; then lift the ban and see
that they pass. Nothing of this machine's own agent, firewall and logs is touched, and nothing is left.
It needs root, and ip of iproute2.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return cli.Hint(errors.New("only root can make a network for the test"), "sudo banmesh selftest: it makes two network namespaces, bans one from the other, and takes them away again")
			}
			t := &selftest{out: c.OutOrStdout(), name: fmt.Sprintf("bm%d", os.Getpid())}
			defer t.close()
			return t.run(c.Context())
		},
	}
}

// selftestPatience bounds each step.
const selftestPatience = 20 * time.Second

// selftest is two namespaces, NAMEa with the agent and NAMEb with a client.
type selftest struct {
	out   io.Writer
	name  string
	dir   string
	agent *exec.Cmd
	done  chan error

	listener net.Listener
}

const (
	selftestServer = "192.0.2.1"
	selftestClient = "198.51.100.2"
	selftestPort   = "2222"
)

func (t *selftest) run(ctx context.Context) (err error) {
	if t.dir, err = os.MkdirTemp("", "banmesh-selftest-"); err != nil {
		return err
	}
	if err := t.network(ctx); err != nil {
		return cli.Hint(fmt.Errorf("making a network: %w", err), "the kernel or this container does not allow network namespaces; the agent may work all the same")
	}
	log := filepath.Join(t.dir, "log")
	if err := errors.Join(t.configure(log), t.listen()); err != nil {
		return err
	}
	began := time.Now()
	if err := t.start(ctx); err != nil {
		return err
	}
	t.ok("an agent runs in a network of its own", time.Since(began))
	client := control.NewClient(filepath.Join(t.dir, "agent.sock"))
	if err := t.connects(ctx, true); err != nil {
		return fmt.Errorf("before any ban: %w", err)
	}
	began = time.Now()
	f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for i := range 5 {
		fmt.Fprintf(f, "%s selftest: login failed from %s attempt %d\n", time.Now().Format(time.RFC3339), selftestClient, i+1)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := t.connects(ctx, false); err != nil {
		return fmt.Errorf("after five failed logins in %s: %w", log, err)
	}
	t.ok("five lines in a log, and the address's packets are dropped", time.Since(began))
	began = time.Now()
	var answer any
	if err := client.Post(ctx, "/v1/unban", map[string]any{"targets": []string{selftestClient}, "topic": "selftest"}, &answer); err != nil {
		return fmt.Errorf("lifting the ban: %w", err)
	}
	if err := t.connects(ctx, true); err != nil {
		return fmt.Errorf("after the ban was lifted: %w", err)
	}
	t.ok("the ban is lifted, and its packets pass", time.Since(began))
	return nil
}

func (t *selftest) ok(text string, took time.Duration) {
	fmt.Fprintf(t.out, "ok  %-60s %4d ms\n", text, took.Milliseconds())
}

func (t *selftest) network(ctx context.Context) error {
	a, b := t.name+"a", t.name+"b"
	for _, args := range []string{
		"netns add " + a, "netns add " + b,
		"link add " + a + " netns " + a + " type veth peer name " + b + " netns " + b,
		"-n " + a + " addr add " + selftestServer + "/32 dev " + a, "-n " + b + " addr add " + selftestClient + "/32 dev " + b,
		"-n " + a + " link set " + a + " up", "-n " + b + " link set " + b + " up", "-n " + a + " link set lo up",
		"-n " + a + " route add " + selftestClient + " dev " + a, "-n " + b + " route add " + selftestServer + " dev " + b,
	} {
		if text, err := exec.CommandContext(ctx, "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, strings.TrimSpace(string(text)))
		}
	}
	return nil
}

// configure writes a topic that reads the test's log.
func (t *selftest) configure(log string) error {
	if err := errors.Join(os.WriteFile(log, nil, 0o600), os.MkdirAll(filepath.Join(t.dir, "topics.d"), 0o700)); err != nil {
		return err
	}
	conf := "[embedded_broker]\nenabled = false\n[guests]\nenabled = false\n[topics.selftest]\ndetect = true\n[topics.sshd]\ndetect = false\n"
	topic := `name = "selftest"
title = "selftest"
target = "ip"
[detect]
files = ["` + log + `"]
maxretry = 5
findtime = "10m"
bantime = "10m"
[[detect.rule]]
class = "auth"
weak = false
regex = ['selftest: login failed from <ADDR> attempt \d+$']
[enforce]
ports = ["` + selftestPort + `"]
protocols = ["tcp"]
[[sample]]
line = "2026-11-28T10:00:00Z selftest: login failed from 192.0.2.7 attempt 1"
target = "192.0.2.7"
`
	return errors.Join(os.WriteFile(filepath.Join(t.dir, "agent.toml"), []byte(conf), 0o600), os.WriteFile(filepath.Join(t.dir, "topics.d", "selftest.toml"), []byte(topic), 0o600))
}

// start runs this program as the agent, and a listener that answers.
func (t *selftest) start(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	said, err := os.Create(filepath.Join(t.dir, "said"))
	if err != nil {
		return err
	}
	defer said.Close()
	t.agent = exec.CommandContext(ctx, "ip", "netns", "exec", t.name+"a", program, "run", "--config-dir", t.dir, "--state-dir", filepath.Join(t.dir, "state"), "--socket", filepath.Join(t.dir, "agent.sock"))
	t.agent.Stdout, t.agent.Stderr = said, said
	t.agent.Cancel = func() error { return t.agent.Process.Signal(os.Interrupt) }
	t.agent.WaitDelay = selftestPatience
	if err := t.agent.Start(); err != nil {
		return err
	}
	t.done = make(chan error, 1)
	go func() { t.done <- t.agent.Wait() }()
	client := control.NewClient(filepath.Join(t.dir, "agent.sock"))
	return t.until(ctx, "the agent answers", func() bool {
		return client.Get(ctx, "/v1/status", nil, &struct{}{}) == nil
	})
}

// connects waits until the client gets, or does not get, through to the
// server's port.
func (t *selftest) connects(ctx context.Context, want bool) error {
	aim := "its packets pass"
	if !want {
		aim = "its packets are dropped"
	}
	return t.until(ctx, aim, func() bool {
		got, err := t.passes(ctx)
		return err == nil && got == want
	})
}

// probeTime is when a connection that is not answered counts as dropped.
const probeTime = 400 * time.Millisecond

// passes says whether a connection from the client's namespace is answered.
func (t *selftest) passes(ctx context.Context) (yes bool, err error) {
	fault := inNamespace(t.name+"b", func() {
		d := net.Dialer{Timeout: probeTime, KeepAliveConfig: net.KeepAliveConfig{Enable: false}}
		var c net.Conn
		if c, err = d.DialContext(ctx, "tcp", net.JoinHostPort(selftestServer, selftestPort)); err == nil {
			yes = true
			_ = c.Close()
		} else if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
			err = nil
		}
	})
	return yes, errors.Join(fault, err)
}

// listen answers connections in the agent's namespace: only who finished a
// handshake can be found in a log.
func (t *selftest) listen() (err error) {
	fault := inNamespace(t.name+"a", func() { t.listener, err = net.Listen("tcp", net.JoinHostPort(selftestServer, selftestPort)) })
	if err = errors.Join(fault, err); err != nil {
		return err
	}
	go func() {
		for {
			c, err := t.listener.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	return nil
}

// inNamespace runs f on a thread that is in a network namespace, and ends with it.
func inNamespace(name string, f func()) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	return <-done
}

// until polls until ok holds, and fails after a while.
func (t *selftest) until(ctx context.Context, aim string, ok func() bool) error {
	for end := time.Now().Add(selftestPatience); ; {
		if ok() {
			return nil
		}
		select {
		case err := <-t.done:
			t.done <- err
			return fmt.Errorf("the agent of the test ended: %w\n%s", errors.Join(errors.New("see below"), err), t.said())
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("it did not come true in %s that %s\n%s", selftestPatience, aim, t.said())
		}
	}
}

// said is the end of the agent's output.
func (t *selftest) said() string {
	b, _ := os.ReadFile(filepath.Join(t.dir, "said"))
	return string(b[max(0, len(b)-2000):])
}

// close takes away all that the test made.
func (t *selftest) close() {
	if t.listener != nil {
		_ = t.listener.Close()
	}
	if t.agent != nil {
		_ = t.agent.Process.Signal(os.Interrupt)
		select {
		case <-t.done:
		case <-time.After(selftestPatience):
			_ = t.agent.Process.Kill()
			<-t.done
		}
	}
	for _, n := range []string{"a", "b"} {
		_ = exec.Command("ip", "netns", "del", t.name+n).Run()
	}
	_ = os.RemoveAll(t.dir)
}
