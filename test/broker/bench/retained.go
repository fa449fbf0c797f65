package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"banmesh/internal/broker/frame"
	"banmesh/test/broker/load"
)

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// fill retains count signed messages of a payload's size and waits for the
// acknowledgements.
func fill(p *process, count, size int) error {
	c, err := load.Dial(p.address, "filler", 600)
	if err != nil {
		return err
	}
	defer c.Close()
	acked := make(chan error, 1)
	go func() {
		for range count {
			first, _, err := c.ReadPacket()
			if err == nil && first != frame.Puback<<4 {
				err = fmt.Errorf("got %x", first)
			}
			if err != nil {
				acked <- err
				return
			}
		}
		acked <- nil
	}()
	for i := range count {
		topic, payload, err := load.NewAuthor(1000+i).Next(size, time.Now())
		if err != nil {
			return err
		}
		b, at := frame.AppendPublish(nil, topic, payload, 1, true)
		id := uint16(i%65535 + 1)
		b[at], b[at+1] = byte(id>>8), byte(id)
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	return <-acked
}

// collect subscribes and reads until count publications came.
func collect(p *process, id string, count int) error {
	c, err := load.Dial(p.address, id, 600)
	if err != nil {
		return err
	}
	defer c.Close()
	filter := load.Filter
	body := append([]byte{0, 1, byte(len(filter) >> 8), byte(len(filter))}, filter...)
	body = append(body, 1)
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write(append([]byte{frame.Subscribe<<4 | 2, byte(len(body))}, body...)); err != nil {
		return err
	}
	var acks []byte
	for got := 0; got < count; {
		first, body, err := c.ReadPacket()
		if err != nil {
			return fmt.Errorf("after %d of %d: %w", got, count, err)
		}
		if first>>4 != frame.Publish {
			continue
		}
		got++
		at := 2 + int(body[0])<<8 + int(body[1])
		acks = frame.AppendPuback(acks, uint16(body[at])<<8|uint16(body[at+1]))
		if c.R.Buffered() == 0 || len(acks) > 1000 {
			if _, err := c.Write(acks); err != nil {
				return err
			}
			acks = acks[:0]
		}
	}
	return nil
}

// chunks are as many as 100,000 bans take: facts say 5.8 bytes a ban in messages of
// 64 KiB, of which a definition of 30 KiB is the largest that stands for one
// in this load, so there are twice as many of half the size.
const (
	chunks    = 20
	chunkSize = 30 << 10
)

func (b *bench) join(context.Context) error {
	for _, s := range b.servers {
		err := with(s, func(p *process) error {
			if err := fill(p, chunks, chunkSize); err != nil {
				return err
			}
			var times []float64
			for i := range 9 {
				began := time.Now()
				if err := collect(p, fmt.Sprint("joiner-", i), chunks); err != nil {
					return err
				}
				times = append(times, milliseconds(time.Since(began)))
			}
			figure(s.name+"_join_100k_bans", median(times), "ms", "<=50")
			began := time.Now()
			errs := make(chan error, 100)
			for i := range 100 {
				go func() { errs <- collect(p, fmt.Sprint("thousands-", i), chunks) }()
			}
			var err error
			for range 100 {
				if e := <-errs; e != nil {
					err = e
				}
			}
			figure(s.name+"_join_100_agents", milliseconds(time.Since(began)), "ms", "<=500")
			return err
		})
		if err != nil {
			fmt.Printf("note: %v\n", err)
		}
	}
	return nil
}

// stalled is fan-out with one subscriber that never reads.
func (b *bench) stalled(ctx context.Context) error {
	for _, s := range b.servers {
		err := with(s, func(p *process) error {
			c, err := load.Dial(p.address, "stalled", 600)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Subscribe(load.Filter, 1); err != nil {
				return err
			}
			r, err := load.Fanout{
				Address: p.address, Publishers: publishers, Subscribers: 200, Size: payload, Window: window, Duration: b.duration, CPU: p.cpu,
			}.Run(ctx)
			figure(s.name+"_deliveries_beside_stalled", r.PerSecond(), "per_second", "-")
			figure(s.name+"_lost_beside_stalled", float64(r.Lost), "messages", "0")
			return err
		})
		if err != nil {
			fmt.Printf("note: %v\n", err)
		}
	}
	return nil
}

// restart measures from the start of the process until a client has everything
// of 10,000 retained feeds, after a kill.
func (b *bench) restart(context.Context) error {
	const feeds = 10_000
	s := b.servers[0]
	return with(s, func(p *process) error {
		began := time.Now()
		if err := fill(p, feeds, payload); err != nil {
			return err
		}
		figure("banmesh_retain_10000_feeds", feeds/time.Since(began).Seconds(), "per_second", "-")
		if err := p.kill(); err != nil {
			return err
		}
		began = time.Now()
		again, err := s.start(p.dir)
		if err != nil {
			return err
		}
		figure("banmesh_restart_10000_feeds", milliseconds(time.Since(began)), "ms", "<1000")
		began = time.Now()
		err = collect(again, "late", feeds)
		figure("banmesh_join_10000_feeds", milliseconds(time.Since(began)), "ms", "-")
		*p = *again
		return err
	})
}
