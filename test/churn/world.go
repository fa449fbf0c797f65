package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A world is a broker, an author and its subscribers.
type world struct {
	bin, dir string
	random   *rand.Rand
	broker   *process
	nodes    []*process // the author first
	log      string
	disk     *disk // of the nodes' states
	banTime  time.Duration
	written  int // addresses in the log
	handed   program
	seen     seen
	done     map[string]int
	diary    []string // the accident of each second
	resume   []resumed
	measured []sizes // of the half in which nobody is killed
}

// A process is an agent or the broker, with a directory of its own.
type process struct {
	name, bin, dir string
	state          string // its directory
	args           []string
	cmd            *exec.Cmd
	log            *os.File
}

type resumed struct {
	p  *process
	at time.Time
}

const brokerAddress = "127.0.0.1:18830"

func newWorld(ctx context.Context, bin, dir string, random *rand.Rand, banTime time.Duration) (w *world, err error) {
	w = &world{dir: dir, random: random, banTime: banTime, log: filepath.Join(dir, "auth.log"), done: map[string]int{}}
	w.seen.begin()
	if w.bin, err = filepath.Abs(bin); err != nil {
		return w, err
	}
	bin = w.bin
	if err := os.WriteFile(w.log, nil, 0o644); err != nil {
		return w, err
	}
	if w.disk, err = newDisk(ctx, dir); err != nil {
		return w, err
	}
	w.broker = &process{
		name: "broker", bin: filepath.Join(bin, "broker"), dir: dir, state: filepath.Join(dir, "broker"),
		args: []string{"run", "--listen", brokerAddress, "--state-dir", filepath.Join(dir, "broker"), "--socket", filepath.Join(dir, "broker.sock")},
	}
	if err := w.broker.start(ctx); err != nil {
		return w, err
	}
	for i := range 1 + subscribers {
		p := &process{name: fmt.Sprintf("node%d", i), bin: filepath.Join(bin, "agent"), dir: filepath.Join(dir, fmt.Sprintf("node%d", i)), state: filepath.Join(w.disk.path, fmt.Sprintf("node%d", i)), args: []string{"run"}}
		w.nodes = append(w.nodes, p)
		if err := w.configure(p, i); err != nil {
			return w, err
		}
		if err := p.start(ctx); err != nil {
			return w, err
		}
	}
	for _, p := range w.all() {
		if err := p.answers(ctx); err != nil {
			return w, err
		}
	}
	operator, err := w.nodes[0].operator(ctx)
	if err != nil {
		return w, err
	}
	for _, p := range w.nodes[1:] {
		for _, args := range [][]string{{"peers", "trust", "author", operator}, {"topics", "subscribe", "sshd"}} {
			if _, err := p.do(ctx, "", args...); err != nil {
				return w, err
			}
		}
	}
	return w, nil
}

func (w *world) configure(p *process, i int) error {
	text := fmt.Sprintf("[[brokers]]\nurl = \"tcp://%s\"\n[firewall]\ntable = %q\n[topics.sshd]\njournal = []\n", brokerAddress, tableOf(i))
	if i == 0 {
		text += fmt.Sprintf("detect = true\npublish = true\nfiles = [%q]\nmaxretry = 1\nbantime = \"%ds\"\ncorroborate = \"off\"\n", w.log, int(w.banTime.Seconds()))
	} else {
		text += "detect = false\nfiles = []\n[topics.sshd.limits]\nper_hour = 1000000\nlive = 1000000\naddresses = 2147483647\n"
	}
	if err := os.MkdirAll(filepath.Join(p.dir, "config"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.dir, "config", "agent.toml"), []byte(text), 0o644)
}

func (p *process) environment() []string {
	return append(os.Environ(), "BANMESH_CONFIG_DIR="+p.dir+"/config", "BANMESH_STATE_DIR="+p.state, "BANMESH_SOCKET="+p.dir+"/agent.sock")
}

func (p *process) start(ctx context.Context) (err error) {
	if p.log == nil {
		if err := os.MkdirAll(p.dir, 0o755); err != nil {
			return err
		}
		if p.log, err = os.Create(filepath.Join(p.dir, p.name+".log")); err != nil {
			return err
		}
	}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), p.bin, p.args...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.environment(), p.log, p.log
	return p.cmd.Start()
}

func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// restart kills a process and starts it again at once.
func (w *world) restart(ctx context.Context, p *process) error {
	if err := w.disk.thaw(); err != nil {
		return err
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	return p.start(ctx)
}

// answers waits until a process does.
func (p *process) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for p.name != "broker" {
		if _, err := p.do(ctx, "", "status", "--json"); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			b, _ := os.ReadFile(p.log.Name())
			return fmt.Errorf("%s does not answer: %s", p.name, b[max(0, len(b)-2000):])
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// do runs a command of the agent.
func (p *process) do(ctx context.Context, input string, args ...string) ([]byte, error) {
	wait, err := p.begin(ctx, input, args...)
	if err != nil {
		return nil, err
	}
	return wait()
}

// begin starts a command of the agent. It is called by the thread of the namespaces, wait
// by any; the error has all that the command says of its fault.
func (p *process) begin(ctx context.Context, input string, args ...string) (wait func() ([]byte, error), err error) {
	c := exec.CommandContext(ctx, p.bin, args...)
	c.Env, c.Stdin = p.environment(), strings.NewReader(input)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Start(); err != nil {
		return nil, err
	}
	return func() ([]byte, error) {
		if err := c.Wait(); err != nil {
			return nil, fmt.Errorf("%s: agent %s: %w: %s", p.name, strings.Join(args, " "), err, errs.String())
		}
		return out.Bytes(), nil
	}, nil
}

func (w *world) close() {
	if w.disk == nil {
		return
	}
	if err := w.disk.thaw(); err != nil {
		fmt.Fprintln(os.Stderr, "churn: error:", err)
	}
	for _, p := range w.all() {
		if p != nil && p.cmd != nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	}
	if err := w.disk.close(); err != nil {
		fmt.Fprintln(os.Stderr, "churn: error:", err)
	}
}
