package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/federation"
)

// A scale is how many feeds of how many bans a reader joins.
type scale struct{ operators, topics, bans int }

func (s scale) feeds() int  { return s.operators * s.topics }
func (s scale) claims() int { return s.feeds() * s.bans }

func (s scale) names() (out []ban.Topic) {
	for i := range s.topics {
		out = append(out, ban.Topic(fmt.Sprintf("topic-%d", i)))
	}
	return out
}

// authorsAtOnce is how many operators publish side by side.
const authorsAtOnce = 40

// feeds measures a reader that joins many small feeds, and that comes back after
// its connection broke while nothing happened. Each ban was said by itself.
func feeds(b *broker, dir string, s scale) error {
	memory, err := os.MkdirTemp("/dev/shm", "bench")
	if err != nil {
		memory = dir // a thousand authors then share one disk
	} else {
		defer os.RemoveAll(memory)
	}
	operators, err := publishAll(b, memory, s)
	if err != nil {
		return err
	}
	p, err := newProxy(b.address)
	if err != nil {
		return err
	}
	defer p.close()
	r, err := startReader(readerJob{URL: p.url(), Dir: filepath.Join(memory, "reader"), Operators: operators, Topics: s.topics, Claims: s.claims(), Feeds: s.feeds()})
	if err != nil {
		return err
	}
	defer r.stop()
	first, err := r.result()
	if err != nil {
		return err
	}
	if err := p.quiet(); err != nil {
		return err
	}
	joined := p.down.Swap(0)
	name := fmt.Sprintf("feeds_%dx%dx%d", s.operators, s.topics, s.bans)
	figure(b, name+"_join_seconds", first.Seconds, "s", "<=10")
	figure(b, name+"_join_bytes_a_ban", float64(joined)/float64(s.claims()), "B", "<=20")
	figure(b, name+"_join_upload", float64(p.up.Swap(0))/1024, "KiB", "-")
	most, rest := p.filters()
	figure(b, name+"_filters", float64(rest), "filters", "<=1000")
	figure(b, name+"_filters_while_joining", float64(most), "filters", "-")
	figure(b, name+"_reader_memory", first.MiB, "MiB", "-")
	p.cut()
	if err := p.quiet(); err != nil {
		return err
	}
	figure(b, name+"_reconnect_bytes", float64(p.down.Load())/1000, "kB", "-")
	figure(b, name+"_reconnect_share", 100*float64(p.down.Load())/float64(joined), "%", "<1")
	return nil
}

// publishAll makes the feeds at the broker and gives their operators.
func publishAll(b *broker, dir string, s scale) (operators []string, err error) {
	operators = make([]string, s.operators)
	errs := make([]error, s.operators)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(authorsAtOnce, s.operators) {
		wg.Go(func() {
			for i := range next {
				operators[i], errs[i] = publishOne(b, dir, i, s)
			}
		})
	}
	for i := range s.operators {
		next <- i
	}
	close(next)
	wg.Wait()
	return operators, errors.Join(errs...)
}

// publishOne is an operator who says his bans one by one, two seconds apart by
// his clock, which is right at the end, and leaves.
func publishOne(b *broker, dir string, i int, s scale) (operator string, err error) {
	c := &clock{}
	name := fmt.Sprintf("o%d", i)
	c.offset.Store(int64(-time.Duration(s.bans) * 2 * time.Second))
	author, id, done, err := keyed(dir, name, []string{b.url}, c)
	if err != nil {
		return "", err
	}
	defer func() {
		done()
		os.RemoveAll(filepath.Join(dir, name))
	}()
	author.Publish(s.names())
	for n := range s.bans {
		c.offset.Add(int64(2 * time.Second))
		for t, topic := range s.names() {
			target, err := ban.ParseTarget(fmt.Sprintf("%d.%d.%d.%d", 1+i%200, i/200*16+t, n, (i*31+n*7+t)%256))
			if err != nil {
				return "", err
			}
			claim := ban.Claim{Target: target, End: c.now().Add(24 * time.Hour), Class: ban.ClassAuth, Hits: 5, Established: true, Basis: ban.BasisStrong}
			if err := author.Say(topic, []ban.Claim{claim}, nil); err != nil {
				return "", err
			}
		}
	}
	defer background(author)()
	return id.Operator().String(), settled(author, b)
}

// keyed is node for one whose clock is right when it logs in.
func keyed(dir, name string, urls []string, c *clock) (*federation.Session, identity, func(), error) {
	was := c.offset.Swap(0)
	s, id, done, err := node(dir, name, urls, c, func(context.Context, ban.Change) error { return nil })
	c.offset.Store(was)
	return s, id, done, err
}

// An identity is the part of a node's keys that the benchmark needs.
type identity interface{ Operator() ban.Operator }

// A readerProcess is a reader in a process of its own, which goes on until it
// is stopped.
type readerProcess struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Reader
}

func startReader(job readerJob) (*readerProcess, error) {
	b, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(job.Dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(job.Dir, "job.json") // too long for an argument
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(os.Args[0], "-stay", file)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &readerProcess{cmd, in, bufio.NewReader(out)}, nil
}

// result waits until the reader has everything.
func (r *readerProcess) result() (out readerResult, err error) {
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		return out, fmt.Errorf("the reader: %w", err)
	}
	return out, json.Unmarshal(line, &out)
}

func (r *readerProcess) stop() {
	_ = r.in.Close()
	_ = r.cmd.Wait()
}

// stay is the process of a reader that stays connected until its input ends.
func stay(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var job readerJob
	if err := json.Unmarshal(text, &job); err != nil {
		return err
	}
	s, _, done, err := node(job.Dir, "keys", []string{job.URL}, &clock{}, func(context.Context, ban.Change) error { return nil })
	if err != nil {
		return err
	}
	defer done()
	var list []federation.Following
	for _, text := range job.Operators {
		o, err := ban.ParseOperator(text)
		if err != nil {
			return err
		}
		for _, t := range (scale{topics: job.Topics}).names() {
			list = append(list, federation.Following{Topic: t, Operator: o})
		}
	}
	s.Follow(list)
	begin := time.Now()
	if err := s.Restore(context.Background()); err != nil {
		return err
	}
	defer background(s)()
	if err := hasAll(s, job); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(readerResult{time.Since(begin).Seconds(), float64(rss(os.Getpid())) / (1 << 20)}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// hasAll waits until every feed is synced, with all claims.
func hasAll(s *federation.Session, job readerJob) error {
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		feeds := s.Feeds()
		synced, claims := 0, 0
		for _, f := range feeds {
			if claims += f.Claims; f.Status == federation.StatusSynced && f.Batch >= f.Newest {
				synced++
			}
		}
		if synced == job.Feeds && claims == job.Claims {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("of %d feeds %d are known and %d synced, with %d of %d claims", job.Feeds, len(feeds), synced, claims, job.Claims)
		}
	}
}
