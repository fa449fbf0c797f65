// Command bench measures the federation protocol against real brokers: joining
// a feed of a million bans, coming back after missing 50,000 changes, joining
// the small feeds of a thousand operators, one ban
// on its way to a hundred readers, and the cost of simpler designs in the
// same run. Each figure is a line: figure NAME VALUE UNIT aim AIM.
//
//	bench -brokers mosquitto,banmesh,nats -broker bin/broker -agent bin/agent -nats path/to/nats-server
//
// Two measurements are of whole agents: the memory of one that enforces the
// large feed, and the way of a ban from `agent ban` at one to nftables at
// another, in a network namespace of their own (root).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/federation"
	"banmesh/internal/keys"
	"banmesh/internal/store"
)

const (
	network = "bench"
	topic   = ban.Topic("sshd")
)

func main() {
	names := flag.String("brokers", "mosquitto,banmesh,nats", "which brokers")
	ours := flag.String("broker", "bin/broker", "our broker's program")
	nats := flag.String("nats", "", "nats-server's program")
	n := flag.Int("n", 1_000_000, "bans of the large feed; 0 leaves out all that has to do with it")
	missed := flag.Int("missed", 50_000, "changes that a reader misses")
	readers := flag.Int("readers", 100, "readers of one ban; 0 leaves them out")
	dir := flag.String("dir", "", "directory for state (default: a temporary one)")
	agents := flag.String("agent", "bin/agent", "our agent's program")
	inside := flag.String("inside", "", "internal: measure from ban to kernel in this directory, in a network namespace")
	operators := flag.Int("operators", 1000, "operators of the many small feeds; 0 leaves them out")
	topics := flag.Int("topics", 10, "topics of each of them")
	small := flag.Int("bans", 40, "bans of each small feed")
	job := flag.String("stay", "", "internal: be a reader of many feeds, as this file says")
	reader := flag.String("reader", "", "internal: be a reader, as this JSON says")
	flag.Parse()
	if *reader != "" {
		exit(read(*reader))
	}
	if *job != "" {
		exit(stay(*job))
	}
	if *inside != "" {
		exit(fromBanToKernel(*inside, *ours, *agents, *readers))
	}
	if *dir == "" {
		d, err := os.MkdirTemp("", "federation-bench")
		if err != nil {
			exit(err)
		}
		defer os.RemoveAll(d)
		*dir = d
	}
	for name := range strings.SplitSeq(*names, ",") {
		if name == "" {
			continue
		}
		b, err := start(name, filepath.Join(*dir, name), *ours, *nats)
		if err != nil {
			exit(fmt.Errorf("%s: %w", name, err))
		}
		err = run(b, filepath.Join(*dir, name), *n, *missed, *readers, scale{*operators, *topics, *small})
		b.kill()
		if err != nil {
			exit(fmt.Errorf("%s: %w", name, err))
		}
	}
	if *n == 0 {
		return
	}
	for _, x := range []struct {
		name string
		n    int
	}{{"100k", 100_000}, {"1M", 1_000_000}} {
		where := filepath.Join(*dir, "memory-"+x.name)
		b, err := start("banmesh", where, *ours, "")
		if err == nil {
			err = memory(b, where, *agents, min(x.n, *n), x.name)
			b.kill()
		}
		if err != nil {
			exit(fmt.Errorf("an agent with %s claims: %w", x.name, err))
		}
	}
	if err := inNamespace("-inside", filepath.Join(*dir, "kernel"), "-broker", absolute(*ours), "-agent", absolute(*agents), "-readers", fmt.Sprint(*readers)); err != nil {
		exit(fmt.Errorf("from ban to kernel: %w", err))
	}
}

// absolute keeps a program's path good wherever it is run from.
func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

// fromBanToKernel runs inside a network namespace of its own.
func fromBanToKernel(dir, ours, program string, readers int) error {
	b, err := start("banmesh", filepath.Join(dir, "broker"), ours, "")
	if err != nil {
		return err
	}
	defer b.kill()
	return kernel(b, dir, program, readers)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func figure(b *broker, name string, value float64, unit, aim string) {
	fmt.Printf("figure %s_%s %.4g %s aim %s\n", name, b.name, value, unit, aim)
}

func run(b *broker, dir string, n, missed, readers int, many scale) error {
	if n > 0 {
		if err := large(b, dir, n, missed); err != nil {
			return err
		}
	}
	if many.feeds() > 0 {
		if err := feeds(b, dir, many); err != nil {
			return fmt.Errorf("many feeds: %w", err)
		}
	}
	if readers > 0 {
		if err := latency(b, dir, readers); err != nil {
			return err
		}
	}
	return others(b)
}

// A clock can be set, for an author whose past is made up.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

// node opens a session with an identity and a store of its own.
func node(dir, name string, urls []string, c *clock, apply func(context.Context, ban.Change) error) (*federation.Session, *keys.Identity, func(), error) {
	id, err := keys.Open(filepath.Join(dir, name), name, time.Now().Add(-24*time.Hour))
	if err != nil {
		return nil, nil, nil, err
	}
	st, err := store.Open(filepath.Join(dir, name, "agent.db"))
	if err != nil {
		return nil, nil, nil, err
	}
	o := federation.Options{Network: network, Identity: id, Store: st, Now: c.now, Apply: apply}
	for _, u := range urls {
		b := federation.Broker{URL: u}
		if c.offset.Load() != 0 {
			b.User, b.Password = account, account
		}
		o.Brokers = append(o.Brokers, b)
	}
	s, err := federation.New(o)
	if err != nil {
		return nil, nil, nil, err
	}
	return s, id, func() { st.Close() }, nil
}

// claims makes n claims that look like a list of real offenders: mostly single
// IPv4 addresses in some networks, a tenth IPv6 /64s, ends up to ten days off.
func claims(n int, now time.Time) []ban.Claim {
	out := make([]ban.Claim, 0, n)
	seed := uint32(1)
	next := func() uint32 { seed ^= seed << 13; seed ^= seed >> 17; seed ^= seed << 5; return seed }
	seen := map[ban.Target]bool{}
	for len(out) < n {
		out = appendClaim(out, next, seen, now)
	}
	return out
}

func appendClaim(out []ban.Claim, next func() uint32, seen map[ban.Target]bool, now time.Time) []ban.Claim {
	r := next()
	network := next() % 8000
	text := fmt.Sprintf("%d.%d.%d.%d", 1+network%220, network/220*7%256, r>>8&255, r&255)
	if r%10 == 0 {
		text = fmt.Sprintf("2a%02x:%x:%x:%x::/64", network%64, network, r>>16, r&0xffff)
	}
	t, err := ban.ParseTarget(text)
	if err != nil || seen[t] {
		return out
	}
	seen[t] = true
	classes := []ban.Class{ban.ClassAuth, ban.ClassAuth, ban.ClassInvalidUser, ban.ClassScan, ban.ClassExploit}
	// A ban falls when the threshold is reached, so most have the same count.
	hits := []uint8{5, 5, 5, 3}
	return append(out, ban.Claim{
		Target: t, End: now.Add(time.Duration(600+next()%13800) * time.Minute), Class: classes[next()%5], Hits: hits[next()%4], Established: true, Basis: ban.BasisStrong,
	})
}

// large measures a join, the cost of one more ban, and a return.
func large(b *broker, dir string, n, missed int) error {
	c := &clock{}
	c.offset.Store(int64(-8 * time.Hour))
	author, id, done, err := node(dir, "author", []string{b.url}, c, func(context.Context, ban.Change) error { return nil })
	if err != nil {
		return err
	}
	defer done()
	all := claims(n+missed, c.now())
	if err := author.SaySnapshot(topic, all[:n]); err != nil {
		return err
	}
	author.Publish([]ban.Topic{topic})
	before := b.rss()
	// The author's clock is hours behind, so that deltas missed later can be
	// spread over hours; its messages are good for three.
	stop := background(author)
	if err := settled(author, b); err != nil {
		return err
	}
	stop()
	p, err := newProxy(b.address)
	if err != nil {
		return err
	}
	defer p.close()
	job := readerJob{URL: p.url(), Dir: filepath.Join(dir, "reader"), Operator: id.Operator().String(), Claims: n}
	first, err := spawn(job)
	if err != nil {
		return err
	}
	figure(b, "join_seconds", first.Seconds, "s", "<2")
	figure(b, "join_bytes_a_ban", float64(p.down.Swap(0))/float64(n), "B", "<=6")
	figure(b, "join_upload", float64(p.up.Swap(0))/1024, "KiB", "-")
	figure(b, "broker_memory", float64(b.rss()-before)/(1<<20), "MiB", "<64")
	figure(b, "reader_memory", first.MiB, "MiB", "<=150")

	// What the reader misses: batches of 20, four fifths new and one fifth
	// withdrawn, four seconds apart.
	batches := missed / 20
	step := int64(6 * time.Hour / time.Duration(max(1, batches)))
	gone := 0
	for i := range batches {
		c.offset.Add(max(step, int64(2*time.Second)))
		add := all[n+i*16 : n+(i+1)*16]
		var remove []ban.Withdrawal
		for range 4 {
			remove = append(remove, ban.Withdrawal{Target: all[gone*19%n].Target})
			gone++
		}
		if err := author.Say(topic, add, remove); err != nil {
			return err
		}
	}
	stop = background(author)
	if err := settled(author, b); err != nil {
		return err
	}
	// Bytes of one ban: the author's messages for ten of them, two seconds
	// apart by its clock.
	stop()
	job.Claims = 0
	for _, f := range author.Feeds() {
		job.Claims = f.Claims
	}
	second, err := spawn(job)
	if err != nil {
		return err
	}
	figure(b, fmt.Sprintf("return_after_%d", missed), float64(p.down.Swap(0))/1000, "kB", "<=300")
	figure(b, "return_seconds", second.Seconds, "s", "-")
	done()
	return single(b, dir, c)
}

// single measures the cost to publish one ban alone in the large feed.
func single(b *broker, dir string, c *clock) error {
	p, err := newProxy(b.address)
	if err != nil {
		return err
	}
	defer p.close()
	author, _, done, err := node(dir, "author", []string{p.url()}, c, func(context.Context, ban.Change) error { return nil })
	if err != nil {
		return err
	}
	defer done()
	author.Publish([]ban.Topic{topic})
	stop := background(author)
	defer stop()
	if err := settled(author, b); err != nil {
		return err
	}
	p.up.Store(0)
	const bans = 48 // two seals of the ring: their cost is shared
	for i := range bans {
		c.offset.Add(int64(2 * time.Second))
		t, err := ban.ParseTarget(fmt.Sprintf("203.0.113.%d", i))
		if err != nil {
			return err
		}
		if err := author.Say(topic, []ban.Claim{{Target: t, End: c.now().Add(time.Hour), Class: ban.ClassAuth, Hits: 5, Basis: ban.BasisStrong}}, nil); err != nil {
			return err
		}
	}
	if err := settled(author, b); err != nil {
		return err
	}
	figure(b, "one_more_ban", float64(p.up.Load())/bans, "B", "<1000")
	return nil
}

// background runs a session until stop is called.
func background(s *federation.Session) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		<-done
	}
}

// settled waits until the author has handed everything to the broker.
func settled(s *federation.Session, b *broker) error {
	var last uint64
	quiet := 0
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		st, n := s.Brokers()[0], s.Counts().Published
		if st.Connected && st.Queued == 0 && n > 0 && n == last {
			if quiet++; quiet >= 20 {
				return nil
			}
			continue
		}
		quiet, last = 0, n
	}
	return fmt.Errorf("the author did not get rid of its messages: %+v", s.Brokers())
}

// A readerJob is an order to a reader's process.
type readerJob struct {
	URL, Dir, Operator string
	Claims             int
	Operators          []string // of many feeds, each in Topics topics
	Topics, Feeds      int
}

// A readerResult is its finding.
type readerResult struct{ Seconds, MiB float64 }

func spawn(job readerJob) (r readerResult, err error) {
	b, err := json.Marshal(job)
	if err != nil {
		return r, err
	}
	cmd := exec.Command(os.Args[0], "-reader", string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("the reader: %w", err)
	}
	return r, json.Unmarshal(out, &r)
}

// read is a reader's process: it counts claims and keeps no ledger, so its
// memory is the session's.
func read(text string) error {
	var job readerJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return err
	}
	o, err := ban.ParseOperator(job.Operator)
	if err != nil {
		return err
	}
	s, _, done, err := node(job.Dir, "keys", []string{job.URL}, &clock{}, func(context.Context, ban.Change) error { return nil })
	if err != nil {
		return err
	}
	defer done()
	s.Follow([]federation.Following{{Topic: topic, Operator: o}})
	begin := time.Now()
	if err := s.Restore(context.Background()); err != nil {
		return err
	}
	stop := background(s)
	defer stop()
	for deadline := begin.Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if f := s.Feeds(); len(f) == 1 && f[0].Claims == job.Claims && (f[0].Status == federation.StatusSynced || f[0].Status == federation.StatusStale) && f[0].Batch >= f[0].Newest {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("want %d claims: %+v", job.Claims, s.Feeds())
		}
	}
	took := time.Since(begin)
	return json.NewEncoder(os.Stdout).Encode(readerResult{took.Seconds(), float64(rss(os.Getpid())) / (1 << 20)})
}

// latency measures one ban from Say to Apply at many readers in one process.
func latency(b *broker, dir string, readers int) error {
	memory, err := os.MkdirTemp("/dev/shm", "bench")
	if err != nil {
		memory = dir // a hundred readers then share one disk
	} else {
		defer os.RemoveAll(memory)
	}
	c := &clock{}
	author, id, done, err := node(memory, "latency", []string{b.url}, c, func(context.Context, ban.Change) error { return nil })
	if err != nil {
		return err
	}
	defer done()
	author.Publish([]ban.Topic{topic})
	if err := author.SaySnapshot(topic, claims(100, time.Now())); err != nil {
		return err
	}
	defer background(author)()
	arrived := make(chan time.Time, readers)
	var want atomic.Pointer[ban.Target]
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
		s, _, done, err := node(memory, fmt.Sprintf("r%d", i), []string{b.url}, c, func(_ context.Context, ch ban.Change) error {
			for _, x := range ch.Claims {
				if t := want.Load(); t != nil && x.Target == *t {
					arrived <- time.Now()
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		defer done()
		s.Follow([]federation.Following{{Topic: topic, Operator: id.Operator()}})
		stops = append(stops, background(s))
		sessions = append(sessions, s)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		synced := 0
		for _, s := range sessions {
			if f := s.Feeds(); len(f) == 1 && f[0].Status == federation.StatusSynced {
				synced++
			}
		}
		if synced == readers {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d readers are synced", synced, readers)
		}
	}
	var took []time.Duration
	for i := range 30 {
		time.Sleep(1100 * time.Millisecond) // the first ban after a quiet time goes at once
		t, err := ban.ParseTarget(fmt.Sprintf("198.51.100.%d", i))
		if err != nil {
			return err
		}
		want.Store(&t)
		begin := time.Now()
		if err := author.Say(topic, []ban.Claim{{Target: t, End: begin.Add(time.Hour), Class: ban.ClassAuth, Hits: 5, Basis: ban.BasisStrong}}, nil); err != nil {
			return err
		}
		for range readers {
			select {
			case at := <-arrived:
				took = append(took, at.Sub(begin))
			case <-time.After(20 * time.Second):
				return errors.New("a ban did not reach every reader")
			}
		}
	}
	slices.Sort(took)
	figure(b, fmt.Sprintf("ban_to_%d_readers_p50", readers), took[len(took)/2].Seconds()*1000, "ms", "-")
	figure(b, fmt.Sprintf("ban_to_%d_readers_p99", readers), took[len(took)*99/100].Seconds()*1000, "ms", "<50")
	return nil
}
