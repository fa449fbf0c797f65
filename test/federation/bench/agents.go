package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/keys"
)

// A process is a running agent.
type process struct {
	client *control.Client
	cmd    *exec.Cmd
	log    string
}

// limits let one author claim a million targets, which defaults hold back.
const limits = "[topics.sshd.limits]\nper_hour = 16000000\nlive = 10000000\naddresses = 1000000000\n"

// agent runs a node on a broker. Its policy believes the author.
func agent(program, dir, broker, firewall, topic string, author *keys.Identity) (*process, error) {
	text := fmt.Sprintf("network = %q\n[[brokers]]\nurl = %q\n[firewall]\nmode = %q\n[topics.sshd]\ndetect = false\n%s\n", network, broker, firewall, topic)
	if author != nil {
		text += fmt.Sprintf("[operators.author]\nid = %q\n", author.Operator())
	}
	if err := os.MkdirAll(filepath.Join(dir, "config"), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "config", "agent.toml"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	socket := filepath.Join(dir, "s")
	p := &process{client: control.NewClient(socket), log: log.Name()}
	p.cmd = exec.Command(program, "--config-dir", filepath.Join(dir, "config"), "--state-dir", filepath.Join(dir, "state"), "--socket", socket, "run")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var s control.Status
		if err := p.client.Get(context.Background(), "/v1/status", nil, &s); err == nil {
			return p, nil
		}
		if time.Now().After(deadline) {
			p.stop()
			text, _ := os.ReadFile(p.log)
			return nil, fmt.Errorf("the agent does not answer: %s", text)
		}
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// claims gives how many claims of others the agent has in its feeds.
func (p *process) claims() (n int, synced bool) {
	var list []control.Feed
	if p.client.Get(context.Background(), "/v1/feeds", nil, &list) != nil {
		return 0, false
	}
	for _, f := range list {
		if !f.Own {
			n, synced = n+f.Claims, f.Status == federation.StatusSynced
		}
	}
	return n, synced
}

// offendersOf makes n claims of addresses that nothing protects; every tenth is
// an IPv6 /64.
func offendersOf(n int, now time.Time) []ban.Claim {
	firsts := []byte{45, 46, 51, 62, 77, 78, 79, 80, 81, 82, 83, 84, 85, 87, 88, 89, 91, 93, 94, 95}
	out := make([]ban.Claim, 0, n)
	for i := range n {
		text := fmt.Sprintf("%d.%d.%d.%d", firsts[i%len(firsts)], i/len(firsts)>>8&255, i/len(firsts)&255, 1+i%7*31)
		if i%10 == 0 {
			text = fmt.Sprintf("2a02:%x:%x::/64", i>>16+256, i&0xffff)
		}
		out = append(out, ban.Claim{
			Target: ban.MustTarget(text), End: now.Add(time.Duration(600+i%13800) * time.Minute), Class: ban.ClassAuth, Hits: uint8(3 + i%5), Established: true, Basis: ban.BasisStrong,
		})
	}
	return out
}

// memory measures a whole agent that has joined a feed of n claims, all of
// them bans: session, ledger, policy and the exported table.
func memory(b *broker, dir, program string, n int, name string) error {
	author, id, done, err := node(dir, "author", []string{b.url}, &clock{}, func(context.Context, ban.Change) error { return nil })
	if err != nil {
		return err
	}
	defer done()
	if err := author.SaySnapshot(topic, offendersOf(n, time.Now())); err != nil {
		return err
	}
	author.Publish([]ban.Topic{topic})
	stop := background(author)
	defer stop()
	if err := settled(author, b); err != nil {
		return err
	}
	p, err := agent(program, filepath.Join(dir, "agent"), b.url, "off", "subscribe = true\nban = \"any of author\"\n"+limits, id)
	if err != nil {
		return err
	}
	defer p.stop()
	begin := time.Now()
	for {
		var s control.Status
		if err := p.client.Get(context.Background(), "/v1/status", nil, &s); err != nil {
			return err
		}
		if got, synced := p.claims(); synced && got == n && s.Bans == n {
			break
		}
		if time.Since(begin) > 3*time.Minute {
			got, synced := p.claims()
			return fmt.Errorf("the agent has %d claims, synced %v, and %d bans of %d", got, synced, s.Bans, n)
		}
		time.Sleep(50 * time.Millisecond)
	}
	figure(b, "agent_join_"+name, time.Since(begin).Seconds(), "s", "-")
	figure(b, "agent_memory_after_join_"+name, float64(rss(p.cmd.Process.Pid))/(1<<20), "MiB", "-")
	// Memory that the join needed for a moment is given back within half a minute.
	least := p.kept()
	figure(b, "agent_heap_"+name, float64(anonymous(p.cmd.Process.Pid))/(1<<20), "MiB", "-")
	aim := "-"
	if n == 1_000_000 {
		aim = "<=150"
	}
	figure(b, "agent_memory_"+name, float64(least)/(1<<20), "MiB", aim)
	p.stop()
	// Restarted, it has them from its own disk.
	if p, err = agent(program, filepath.Join(dir, "agent"), b.url, "off", "subscribe = true\nban = \"any of author\"\n"+limits, id); err != nil {
		return err
	}
	defer p.stop()
	figure(b, "agent_memory_restarted_"+name, float64(p.kept())/(1<<20), "MiB", "-")
	return nil
}

// kept is the least that the process holds within 40 seconds.
func (p *process) kept() int {
	least := rss(p.cmd.Process.Pid)
	for range 40 {
		time.Sleep(time.Second)
		least = min(least, rss(p.cmd.Process.Pid))
	}
	return least
}

// anonymous is the part of the resident memory that is not a mapped file: the
// store's pages are the page cache's, which the kernel takes back at need.
func anonymous(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// kernel measures a ban from the request at one agent to the other's kernel,
// while a hundred more readers listen. It runs in a network namespace that is
// nobody else's.
func kernel(b *broker, dir, program string, readers int) error {
	a, err := agent(program, filepath.Join(dir, "a"), b.url, "off", "publish = true", nil)
	if err != nil {
		return err
	}
	defer a.stop()
	id, err := keys.Load(filepath.Join(dir, "a", "state"))
	if err != nil {
		return err
	}
	z, err := agent(program, filepath.Join(dir, "b"), b.url, "enforce", "subscribe = true\nban = \"any of author\"\n"+limits, id)
	if err != nil {
		return err
	}
	defer z.stop()
	memory, err := os.MkdirTemp("/dev/shm", "bench")
	if err != nil {
		memory = dir // a hundred readers then share the agents' disk
	} else {
		defer os.RemoveAll(memory)
	}
	var stops []func()
	defer func() {
		var wg sync.WaitGroup
		for _, stop := range stops {
			wg.Go(stop)
		}
		wg.Wait()
	}()
	var sessions []*federation.Session
	for i := range readers {
		s, _, done, err := node(memory, fmt.Sprintf("k%d", i), []string{b.url}, &clock{}, func(context.Context, ban.Change) error { return nil })
		if err != nil {
			return err
		}
		s.Follow([]federation.Following{{Topic: topic, Operator: id.Operator()}})
		stop := background(s)
		stops = append(stops, func() { stop(); done() })
		sessions = append(sessions, s)
	}
	if err := a.ban("203.0.113.1"); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		n, _ := z.claims()
		for _, s := range sessions {
			for _, f := range s.Feeds() {
				n += f.Claims
			}
		}
		if n == readers+1 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d readers have the first ban", n, readers+1)
		}
	}
	monitor := exec.Command("nft", "monitor", "elements")
	// One that outlives us makes every ban of the machine dearer.
	monitor.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := monitor.StdoutPipe()
	if err != nil {
		return err
	}
	if err := monitor.Start(); err != nil {
		return err
	}
	defer func() { _ = monitor.Process.Kill(); _ = monitor.Wait() }()
	type event struct {
		line string
		at   time.Time
	}
	events := make(chan event, 256)
	go func() {
		defer close(events)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			events <- event{scan.Text(), time.Now()}
		}
	}()
	disk, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return err
	}
	defer disk.Close()
	var took, synced []time.Duration
	for i := range 60 {
		time.Sleep(1100 * time.Millisecond) // the first ban after a quiet time goes at once
		d, err := syncs(disk)
		if err != nil {
			return err
		}
		synced = append(synced, d)
		target := fmt.Sprintf("198.51.100.%d", 100+i)
		begin := time.Now()
		if err := a.ban(target); err != nil {
			return err
		}
		for seen := false; !seen; {
			select {
			case e, ok := <-events:
				if !ok {
					return errors.New("nft monitor has ended")
				}
				if seen = strings.Contains(e.line, target); seen {
					took = append(took, e.at.Sub(begin))
				}
			case <-time.After(20 * time.Second):
				return errors.New("a ban did not reach the kernel")
			}
		}
	}
	slices.Sort(took)
	slices.Sort(synced)
	figure(b, "one_sync_p50", synced[len(synced)/2].Seconds()*1000, "ms", "-")
	figure(b, "one_sync_p99", synced[len(synced)*99/100].Seconds()*1000, "ms", "-")
	figure(b, fmt.Sprintf("ban_to_kernel_among_%d_p50", readers), took[len(took)/2].Seconds()*1000, "ms", "-")
	figure(b, fmt.Sprintf("ban_to_kernel_among_%d_p99", readers), took[len(took)*99/100].Seconds()*1000, "ms", "<50")
	return nil
}

// syncs makes a page durable and says how long that took. A ban waits for six of
// these, one after the other: two each for the claim and the feed at the one
// agent, and for the feed's mark at the other.
func syncs(f *os.File) (time.Duration, error) {
	if _, err := f.Write(make([]byte, os.Getpagesize())); err != nil {
		return 0, err
	}
	begin := time.Now()
	err := syscall.Fdatasync(int(f.Fd()))
	return time.Since(begin), err
}

// ban asks as `agent ban` does.
func (p *process) ban(target string) error {
	q := control.BanRequest{Target: ban.MustTarget(target), Topic: topic, For: 3600}
	return p.client.Post(context.Background(), "/v1/bans", q, nil)
}

// inNamespace runs this program again in a network namespace of its own.
func inNamespace(args ...string) error {
	cmd := exec.Command("unshare", append([]string{"-rn", "--", "sh", "-c", `ip link set lo up && exec "$0" "$@"`, os.Args[0]}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
