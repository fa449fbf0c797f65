package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"banmesh/internal/broker/frame"
	"banmesh/test/broker/load"
)

// The steady load beside which faults happen: small, so that the measured
// is the broker and not the generator's own hunger. With fewer subscribers it is
// more publications: all deliveries of one are slow together, and a percentile
// of a few hundred would be the bad luck of three.
const (
	steadySubscribers = 10
	steadyRate        = 2000 // deliveries a second
)

// A disturbance misbehaves until ctx ends, and reports on it. It runs in a
// process of its own, whose garbage is not collected at the cost of those who
// are measured.
type disturbance struct {
	name string
	run  func(ctx context.Context, address string) (string, error)
}

var disturbances = []disturbance{
	{"flood_10000_signed_per_second", flood}, {"garbage_1GB", garbage}, {"10000_connections", thousands}, {"slow_senders", slowSenders}, {"stalled_readers", stalledReaders},
}

// disturb is the other process: it runs one disturbance until its standard
// input ends.
func disturb(ctx context.Context, name, address string) error {
	ctx, stop := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	for _, d := range disturbances {
		if d.name == name {
			text, err := d.run(ctx, address)
			fmt.Println(text)
			return err
		}
	}
	return fmt.Errorf("no disturbance %q", name)
}

// start starts a disturbance in a process, and gives a function that ends it.
func (d disturbance) start(p *process) (end func() string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-disturb", d.name, "-address", p.address)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() string {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			return strings.TrimSpace(out.String()) + ": " + err.Error()
		}
		return strings.TrimSpace(out.String())
	}, nil
}

// faults measures how others fare while somebody misbehaves. The same
// disturbance of another broker on this machine says how much of it is the
// machine's, which the disturber, the disturbed and the load share.
func (b *bench) faults(ctx context.Context) error {
	s := b.servers[0]
	steady := func(p *process, d time.Duration) (load.Result, error) {
		return load.Fanout{
			Address: p.address, Publishers: 4, Subscribers: steadySubscribers, Size: payload, Window: 1000, Rate: steadyRate, Duration: d, CPU: p.cpu,
		}.Run(ctx)
	}
	beside := func(p, disturbed *process, d disturbance) (load.Result, error) {
		end, err := d.start(disturbed)
		if err != nil {
			return load.Result{}, err
		}
		time.Sleep(200 * time.Millisecond)
		r, err := steady(p, max(b.duration, 8*time.Second))
		fmt.Printf("note: %s: %s\n", d.name, end())
		return r, err
	}
	for _, d := range disturbances {
		if b.fault != "" && !strings.HasPrefix(d.name, b.fault) {
			continue
		}
		err := with(s, func(p *process) error {
			return with(s, func(other *process) error {
				idle, err := steady(p, b.duration)
				if err != nil {
					return err
				}
				machine, err := beside(p, other, d)
				if err != nil {
					return err
				}
				r, err := beside(p, p, d)
				if err != nil {
					return err
				}
				figure("p99_idle_before_"+d.name, milliseconds(idle.P99), "ms", "-")
				figure("p99_beside_"+d.name, milliseconds(r.P99), "ms", "-")
				ratio("p99_ratio_beside_"+d.name, milliseconds(r.P99), milliseconds(idle.P99), "<=2")
				ratio("p99_ratio_of_the_machine_beside_"+d.name, milliseconds(machine.P99), milliseconds(idle.P99), "-")
				figure("lost_beside_"+d.name, float64(r.Lost), "messages", "0")
				return nil
			})
		})
		if err != nil {
			fmt.Printf("note: %v\n", err)
		}
	}
	return nil
}

// flood publishes as fast as the broker lets it, by proof of a key.
func flood(ctx context.Context, address string) (string, error) {
	author := load.NewAuthor(999_999)
	c, err := author.DialKey(address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	var acked atomic.Int64
	go func() {
		for {
			if _, _, err := c.ReadPacket(); err != nil {
				return
			}
			acked.Add(1)
		}
	}()
	context.AfterFunc(ctx, func() { c.Close() })
	sent := 0
	began := time.Now()
	for ctx.Err() == nil {
		topic, body, err := author.NextTrust(time.Now())
		if err != nil {
			return "", err
		}
		m, at := frame.AppendPublish(nil, topic, body, 1, true)
		id := uint16(sent%65535 + 1)
		m[at], m[at+1] = byte(id>>8), byte(id)
		if _, err := c.Write(m); err != nil {
			break
		}
		if sent++; sent%10 == 0 { // 10,000 a second
			time.Sleep(time.Until(began.Add(time.Duration(sent) * 100 * time.Microsecond)))
		}
	}
	return fmt.Sprintf("%d sent, %d taken in %v", sent, acked.Load(), time.Since(began).Round(time.Millisecond)), nil
}

// garbage sends a gigabyte: large publications that no feed signed.
func garbage(ctx context.Context, address string) (string, error) {
	body := make([]byte, 120<<10)
	_, _ = rand.Read(body)
	m, _ := frame.AppendPublish(nil, "banmesh/1/bench/operators/x/garbage", body, 0, true)
	c, err := load.Dial(address, "garbage", 60)
	if err != nil {
		return "", err
	}
	defer c.Close()
	context.AfterFunc(ctx, func() { c.Close() })
	sent := 0
	for ctx.Err() == nil && sent < 1<<30 {
		if _, err := c.Write(m); err != nil {
			break
		}
		sent += len(m)
	}
	return fmt.Sprintf("%d MB sent", sent>>20), nil
}

// thousands makes 10,000 connections in 10 seconds.
func thousands(ctx context.Context, address string) (string, error) {
	var mu sync.Mutex
	var open []*load.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	var wait sync.WaitGroup
	var failed atomic.Int64
	began := time.Now()
	n := 0
	for ; n < 10_000-200 && ctx.Err() == nil; n++ {
		time.Sleep(time.Until(began.Add(time.Duration(n) * time.Millisecond)))
		id := fmt.Sprint("thousands-", n)
		wait.Go(func() {
			c, err := load.Dial(address, id, 600)
			if err != nil {
				failed.Add(1)
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
		})
	}
	wait.Wait()
	return fmt.Sprintf("%d connections in %v, %d failed", n, time.Since(began).Round(time.Millisecond), failed.Load()), nil
}

// slowSenders are 200 connections that send a byte of a packet now and then.
func slowSenders(ctx context.Context, address string) (string, error) {
	var open []*load.Conn
	for i := range 200 {
		c, err := load.Dial(address, fmt.Sprint("slow-", i), 60)
		if err != nil {
			return "", err
		}
		defer c.Close()
		open = append(open, c)
		if _, err := c.Write([]byte{frame.Publish << 4, 0xff, 0x7f}); err != nil {
			return "", err
		}
	}
	for ctx.Err() == nil {
		for _, c := range open {
			_, _ = c.Write([]byte{0})
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "200 connections, 100 bytes a second each", nil
}

// stalledReaders are 20 connections that subscribe to everything and read
// nothing.
func stalledReaders(ctx context.Context, address string) (string, error) {
	for i := range 20 {
		c, err := load.Dial(address, fmt.Sprint("stalled-", i), 60)
		if err != nil {
			return "", err
		}
		defer c.Close()
		if err := c.Subscribe(load.Filter, 1); err != nil {
			return "", err
		}
	}
	<-ctx.Done()
	return "20 connections", nil
}
