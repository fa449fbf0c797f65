package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"banmesh/internal/broker/frame"
)

// A Fanout is a load of publishers and subscribers that all hear everything.
type Fanout struct {
	Address     string
	Publishers  int
	Subscribers int
	Size        int // of a payload, in bytes
	// Window is how many publications of each publisher may be on their way
	// to some subscriber; no broker has to queue without end.
	Window int
	// Rate is deliveries a second; 0 means as fast as the window allows.
	Rate     float64
	Duration time.Duration
	// CPU gives the broker's processor time so far.
	CPU func() (time.Duration, error)
}

// A Result is the figures of a run.
type Result struct {
	Published, Delivered int64
	Lost                 int64
	Bytes                int64 // that subscribers read
	Elapsed              time.Duration
	CPU                  time.Duration
	P50, P99, Max        time.Duration
}

// PerSecond is deliveries a second.
func (r Result) PerSecond() float64 { return float64(r.Delivered) / r.Elapsed.Seconds() }

// CPUPerDelivery is the broker's processor time for one delivery.
func (r Result) CPUPerDelivery() time.Duration {
	return r.CPU / time.Duration(max(1, r.Delivered))
}

// settle is how long deliveries may still come after the last publication.
const settle = 20 * time.Second

// Run connects everybody, then publishes for the duration.
func (f Fanout) Run(ctx context.Context) (r Result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all []*Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	var delivered, bytes atomic.Int64
	tokens := make(chan struct{}, f.Publishers*f.Window)
	for range cap(tokens) {
		tokens <- struct{}{}
	}
	samples := make([][]time.Duration, f.Subscribers)
	var readers sync.WaitGroup
	for i := range f.Subscribers {
		c, err := Dial(f.Address, fmt.Sprintf("sub-%d", i), 600)
		if err != nil {
			return r, fmt.Errorf("subscriber %d: %w", i, err)
		}
		all = append(all, c)
		if err := c.Subscribe(Filter, 1); err != nil {
			return r, fmt.Errorf("subscriber %d: %w", i, err)
		}
		every := max(1, int64(f.Subscribers/50))
		readers.Go(func() {
			f.read(c, &bytes, func(n int64) {
				d := delivered.Add(n)
				for range d/int64(f.Subscribers) - (d-n)/int64(f.Subscribers) {
					select {
					case tokens <- struct{}{}:
					default:
					}
				}
			}, &samples[i], int64(i)%every == 0)
		})
	}
	var published atomic.Int64
	var publishers sync.WaitGroup
	failed := make(chan error, f.Publishers)
	cpu, err := f.CPU()
	if err != nil {
		return r, err
	}
	began := time.Now()
	end := began.Add(f.Duration)
	for i := range f.Publishers {
		c, err := Dial(f.Address, fmt.Sprintf("pub-%d", i), 600)
		if err != nil {
			return r, fmt.Errorf("publisher %d: %w", i, err)
		}
		all = append(all, c)
		readers.Go(func() { discard(c) })
		publishers.Go(func() {
			if err := f.publish(ctx, c, i, end, tokens, &published); err != nil {
				failed <- err
			}
		})
	}
	publishers.Wait()
	want := published.Load() * int64(f.Subscribers)
	for last, since := delivered.Load(), time.Now(); last < want && time.Since(since) < settle; {
		time.Sleep(2 * time.Millisecond)
		if d := delivered.Load(); d != last {
			last, since = d, time.Now()
		}
	}
	r.Elapsed = time.Since(began)
	after, err := f.CPU()
	r.CPU = after - cpu
	r.Published, r.Delivered = published.Load(), delivered.Load()
	r.Lost, r.Bytes = want-r.Delivered, bytes.Load()
	for _, c := range all {
		c.Close()
	}
	readers.Wait()
	times := slices.Concat(samples...)
	slices.Sort(times)
	if n := len(times); n > 0 {
		r.P50, r.P99, r.Max = times[n/2], times[n*99/100], times[n-1]
	}
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
	}
	return r, err
}

// publish publishes until end.
func (f Fanout) publish(ctx context.Context, c *Conn, n int, end time.Time, tokens <-chan struct{}, published *atomic.Int64) error {
	author := NewAuthor(n)
	var each time.Duration
	if f.Rate > 0 {
		each = time.Duration(float64(time.Second) * float64(f.Subscribers) * float64(f.Publishers) / f.Rate)
	}
	next := time.Now().Add(each * time.Duration(n) / time.Duration(f.Publishers))
	timeout := time.NewTimer(time.Until(end))
	defer timeout.Stop()
	for id := uint16(1); time.Now().Before(end); id++ {
		if id == 0 {
			id = 1
		}
		select {
		case <-tokens:
		case <-timeout.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		if each > 0 {
			if d := time.Until(next); d > 0 {
				time.Sleep(d)
			}
			next = next.Add(each)
		}
		topic, payload, err := author.Next(f.Size, time.Now())
		if err != nil {
			return err
		}
		b, at := frame.AppendPublish(nil, topic, payload, 1, true)
		b[at], b[at+1] = byte(id>>8), byte(id)
		if _, err := c.Write(b); err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
		published.Add(1)
	}
	return nil
}

// read counts and acknowledges publications, with one write for those that came in
// one read.
func (f Fanout) read(c *Conn, bytes *atomic.Int64, count func(int64), samples *[]time.Duration, sample bool) {
	in := make([]byte, 0, 32<<10)
	var acks []byte
	for {
		n, err := c.Conn.Read(in[len(in):cap(in)])
		if err != nil {
			return
		}
		in = in[:len(in)+n]
		bytes.Add(int64(n))
		acks = acks[:0]
		seen := int64(0)
		now := time.Now()
		rest := in
		for {
			h, ok, err := frame.ParseHeader(rest, cap(in))
			if err != nil {
				return
			}
			if !ok || len(rest) < h.Size+h.Remaining {
				break
			}
			if h.Type == frame.Publish {
				p, err := frame.ParsePublish(h, rest[h.Size:h.Size+h.Remaining])
				if err != nil {
					return
				}
				if !p.Retain { // retained ones are of an earlier load
					seen++
				}
				if p.QoS == 1 {
					acks = frame.AppendPuback(acks, p.ID)
				}
				if sample && !p.Retain {
					if at, ok := Sent(p.Payload); ok {
						*samples = append(*samples, now.Sub(at))
					}
				}
			}
			rest = rest[h.Size+h.Remaining:]
		}
		in = append(in[:0], rest...)
		if len(acks) > 0 {
			if _, err := c.Write(acks); err != nil {
				return
			}
		}
		if seen > 0 {
			count(seen)
		}
	}
}

func discard(c *Conn) {
	b := make([]byte, 4<<10)
	for {
		if _, err := c.Conn.Read(b); err != nil {
			return
		}
	}
}
