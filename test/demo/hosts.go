package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A network is a router and the hosts behind it, each a network namespace of
// its own; nothing of it reaches the machine's own network.
type network struct {
	prefix string
	dir    string
	mu     sync.Mutex
	procs  []*process
}

// A process is something that runs on a host until the network ends.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
}

// output keeps a process's output, for when something goes wrong.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.b.Len() > 1<<20 {
		return len(p), nil
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// hosts of the demo: name, its address, its router's address.
var hosts = []struct{ name, address, router, length string }{
	{"a", "198.51.100.2", "198.51.100.1", "26"},
	{"b", "198.51.100.66", "198.51.100.65", "26"},
	{"c", "198.51.100.130", "198.51.100.129", "26"},
	{"x", "203.0.113.66", "203.0.113.1", "24"},
}

func newNetwork(dir string) (*network, error) {
	n := &network{prefix: fmt.Sprintf("bm%d", os.Getpid()), dir: dir}
	steps := [][]string{{"netns", "add", n.ns("r")}, {"-n", n.ns("r"), "link", "set", "lo", "up"}}
	for i, h := range hosts {
		outer, inner := fmt.Sprintf("%sr%d", n.prefix, i), fmt.Sprintf("%sh%d", n.prefix, i)
		steps = append(
			steps,
			[]string{"netns", "add", n.ns(h.name)},
			[]string{"link", "add", outer, "netns", n.ns("r"), "type", "veth", "peer", "name", inner, "netns", n.ns(h.name)},
			[]string{"-n", n.ns("r"), "addr", "add", h.router + "/" + h.length, "dev", outer},
			[]string{"-n", n.ns("r"), "link", "set", outer, "up"},
			[]string{"-n", n.ns(h.name), "link", "set", "lo", "up"},
			[]string{"-n", n.ns(h.name), "addr", "add", h.address + "/" + h.length, "dev", inner},
			[]string{"-n", n.ns(h.name), "link", "set", inner, "up"},
			[]string{"-n", n.ns(h.name), "route", "add", "default", "via", h.router},
		)
	}
	for _, s := range steps {
		if out, err := exec.Command("ip", s...).CombinedOutput(); err != nil {
			n.close()
			return nil, fmt.Errorf("ip %s: %w: %s", strings.Join(s, " "), err, out)
		}
	}
	// /proc/sys/net is that of the namespace of the process that opens it.
	if _, err := n.run(context.Background(), "r", "sysctl", "-qw", "net.ipv4.ip_forward=1"); err != nil {
		n.close()
		return nil, fmt.Errorf("making the router forward: %w", err)
	}
	return n, nil
}

func (n *network) ns(host string) string { return n.prefix + host }

// start runs a program on a host in a process group of its own.
func (n *network) start(host, name string, argv ...string) (*process, error) {
	p := &process{name: name, out: &output{}, done: make(chan struct{})}
	p.cmd = exec.Command("ip", append([]string{"netns", "exec", n.ns(host)}, argv...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended shows in its output
	}()
	n.mu.Lock()
	n.procs = append(n.procs, p)
	n.mu.Unlock()
	return p, nil
}

// stop ends a process and waits for it.
func (p *process) stop(sig syscall.Signal) {
	_ = syscall.Kill(-p.cmd.Process.Pid, sig) // gone already is as good
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// run runs a program on a host to its end and gives its output.
func (n *network) run(ctx context.Context, host string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.ns(host)}, argv...)...)
	cmd.WaitDelay = 2 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s on %s: %w: %s", filepath.Base(argv[0]), host, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// inside runs f on a thread that is in a host's network namespace.
func (n *network) inside(host string, f func() error) error {
	failed := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine and takes the
		// namespace with it.
		runtime.LockOSThread()
		fd, err := os.Open("/run/netns/" + n.ns(host))
		if err == nil {
			err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET)
			fd.Close()
		}
		if err != nil {
			failed <- fmt.Errorf("entering %s: %w", host, err)
			return
		}
		failed <- f()
	}()
	return <-failed
}

// close ends every process and removes every namespace, in reverse order.
func (n *network) close() error {
	n.mu.Lock()
	procs := n.procs
	n.procs = nil
	n.mu.Unlock()
	for i := len(procs) - 1; i >= 0; i-- {
		procs[i].stop(syscall.SIGTERM)
	}
	var errs []error
	for _, h := range append([]struct{ name, address, router, length string }{{name: "r"}}, hosts...) {
		if _, err := os.Stat("/run/netns/" + n.ns(h.name)); err != nil {
			continue
		}
		if out, err := exec.Command("ip", "netns", "del", n.ns(h.name)).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("removing a namespace: %w: %s", err, out))
		}
	}
	return errors.Join(errs...)
}

// tell prints every process's output.
func (n *network) tell(w io.Writer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.procs {
		fmt.Fprintf(w, "---- %s ----\n%s\n", p.name, p.out)
	}
}
