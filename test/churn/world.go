package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
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
	written  int   // addresses in the log
	handed   int   // addresses of the program
	unsure   int   // of them, those whose command failed: an agent was down
	done     map[string]int
	diary    []string // the accident of each second
	resume   []resumed
	early    []size // after the first third
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

func newWorld(ctx context.Context, bin, dir string, random *rand.Rand) (w *world, err error) {
	if bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	w = &world{bin: bin, dir: dir, random: random, log: filepath.Join(dir, "auth.log"), done: map[string]int{}}
	if err := os.WriteFile(w.log, nil, 0o644); err != nil {
		return nil, err
	}
	if w.disk, err = newDisk(ctx, dir); err != nil {
		return nil, err
	}
	w.broker = &process{
		name: "broker", bin: filepath.Join(bin, "broker"), dir: dir, state: filepath.Join(dir, "broker"),
		args: []string{"run", "--listen", brokerAddress, "--state-dir", filepath.Join(dir, "broker")},
	}
	if err := w.broker.start(ctx); err != nil {
		return nil, err
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
	for _, p := range append([]*process{w.broker}, w.nodes...) {
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
	text := fmt.Sprintf("[[brokers]]\nurl = \"tcp://%s\"\n[firewall]\ntable = \"churn%d\"\n[topics.sshd]\njournal = []\n", brokerAddress, i)
	if i == 0 {
		text += fmt.Sprintf("detect = true\npublish = true\nfiles = [%q]\nmaxretry = 1\nbantime = \"12h\"\ncorroborate = \"off\"\n", w.log)
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
	c := exec.CommandContext(ctx, p.bin, args...)
	c.Env, c.Stdin = p.environment(), strings.NewReader(input)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%s: agent %s: %w: %s", p.name, strings.Join(args, " "), err, errs.String())
	}
	return out.Bytes(), nil
}

// addressOf gives the n-th address of the log or of the program: one a /64, by which IPv6
// counts.
func addressOf(program bool, n int) netip.Addr {
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 0, byte(n >> 16), byte(n >> 8), byte(n)}
	if program {
		b[4] = 1
	}
	return netip.AddrFrom16(b)
}

// load writes a second's offences, and hands over a second's bans.
func (w *world) load(ctx context.Context) error {
	var lines, list strings.Builder
	now := time.Now().Format(time.RFC3339)
	for range fromLog {
		fmt.Fprintf(&lines, "%s web sshd[7]: Failed password for root from %s port 4000 ssh2\n", now, addressOf(false, w.written))
		w.written++
	}
	f, err := os.OpenFile(w.log, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(lines.String()); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if time.Now().After(w.disk.until) {
		if err := w.disk.thaw(); err != nil {
			return err
		}
	}
	still := w.resume[:0]
	for _, r := range w.resume {
		if time.Now().Before(r.at) {
			still = append(still, r)
			continue
		}
		_ = r.p.signal(syscall.SIGCONT) // it may have been killed meanwhile
	}
	w.resume = still
	for range fromProgram {
		fmt.Fprintf(&list, "%s/64\n", addressOf(true, w.handed))
		w.handed++
	}
	within, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := w.nodes[0].do(within, list.String(), "ban", "--from-file", "-", "--by", "scanner", "--hits", "5", "--class", "scan", "--for", "12h"); err != nil {
		w.unsure += fromProgram
	}
	return ctx.Err()
}

// kept is how many generations of the log there are: more than rotations in the time
// that an agent is killed, paused and catches up. One that is deleted before it was
// read is lost to everybody.
const kept = 60

// rotate renames the log away, or copies and truncates it, as logrotate does: older
// generations are renamed, each gets a file of its own. Nobody writes meanwhile, as what
// is written between copy and truncation is lost to everybody.
func (w *world) rotate(copying bool) error {
	for n := kept; n > 0; n-- {
		from := fmt.Sprintf("%s.%d", w.log, n)
		if err := os.Rename(from, fmt.Sprintf("%s.%d", w.log, n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	first := w.log + ".1"
	if !copying {
		if err := os.Rename(w.log, first); err != nil {
			return err
		}
		return os.WriteFile(w.log, nil, 0o644)
	}
	in, err := os.Open(w.log)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(first, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), os.Truncate(w.log, 0))
}

func (w *world) close() {
	if err := w.disk.thaw(); err != nil {
		fmt.Fprintln(os.Stderr, "churn: error:", err)
	}
	for _, p := range append([]*process{w.broker}, w.nodes...) {
		if p != nil && p.cmd != nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	}
	if err := w.disk.close(); err != nil {
		fmt.Fprintln(os.Stderr, "churn: error:", err)
	}
}
