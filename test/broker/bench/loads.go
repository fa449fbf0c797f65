package main

import (
	"context"
	"fmt"
	"time"

	"banmesh/test/broker/load"
)

// A kind is how publications come: so many on their way at once, or so many a
// second. A community is the first or the last; the third is the corner in
// which brokers differ most.
type kind struct {
	name               string
	publishers, window int
	rate               float64 // publications a second; 0 as fast as the window lets them
}

var kinds = []kind{
	{"one_at_a_time", 1, 1, 0}, {"10_in_flight", 10, 1, 0}, {"200_in_flight", 10, 20, 0}, {"10_a_second", 10, 1000, 10},
}

// An outcome is the medians of the rounds of one load on one server.
type outcome struct{ rates, costs, bytes, p50s, p99s []float64 }

// loads measures every kind of load at every size, the servers in turn in each
// round, so that a machine that becomes slower is so for all.
func (b *bench) loads(ctx context.Context) error {
	for _, n := range b.sizes {
		for _, k := range kinds {
			got := map[string]*outcome{}
			for _, s := range b.servers {
				got[s.name] = &outcome{}
			}
			for range b.rounds {
				for _, s := range b.servers {
					if err := with(s, func(p *process) error { return b.load(ctx, p, s, k, n, got[s.name]) }); err != nil {
						fmt.Printf("note: %v\n", err)
					}
				}
			}
			b.report(k, n, got)
		}
	}
	return nil
}

// load runs one load on one server.
func (b *bench) load(ctx context.Context, p *process, s server, k kind, n int, o *outcome) error {
	f := load.Fanout{
		Address: p.address, Publishers: k.publishers, Subscribers: n, Size: payload, Window: k.window, Duration: b.duration, CPU: p.cpu,
	}
	if k.rate > 0 {
		f.Rate, f.Duration = k.rate*float64(n), 3*b.duration
	}
	r, err := f.Run(ctx)
	o.rates = append(o.rates, r.PerSecond())
	o.costs = append(o.costs, float64(r.CPUPerDelivery())/float64(time.Microsecond))
	o.bytes = append(o.bytes, float64(r.Bytes)/float64(max(1, r.Delivered)))
	o.p50s = append(o.p50s, milliseconds(r.P50))
	o.p99s = append(o.p99s, milliseconds(r.P99))
	if r.Lost != 0 {
		fmt.Printf("note: %s, %s to %d subscribers: %d of %d deliveries did not come\n", s.name, k.name, n, r.Lost, r.Delivered+r.Lost)
	}
	return err
}

func (b *bench) report(k kind, n int, got map[string]*outcome) {
	mid := map[string][5]float64{}
	for _, s := range b.servers {
		o := got[s.name]
		m := [5]float64{median(o.rates), median(o.costs), median(o.bytes), median(o.p50s), median(o.p99s)}
		mid[s.name] = m
		at := fmt.Sprintf("%s_%d", k.name, n)
		if k.rate == 0 {
			figure(s.name+"_deliveries_"+at, m[0], "per_second", "-")
		}
		figure(s.name+"_cpu_per_delivery_"+at, m[1], "us", "-")
		figure(s.name+"_bytes_per_delivery_"+at, m[2], "B", "-")
		figure(s.name+"_p50_"+at, m[3], "ms", "-")
		figure(s.name+"_p99_"+at, m[4], "ms", "-")
	}
	for _, other := range b.servers[1:] {
		if k.rate == 0 {
			ratio(fmt.Sprintf("throughput_to_%s_%s_%d", other.name, k.name, n), mid["banmesh"][0], mid[other.name][0], ">=1.0")
		} else {
			ratio(fmt.Sprintf("p99_to_%s_%s_%d", other.name, k.name, n), mid["banmesh"][4], mid[other.name][4], "<=0.8")
		}
		ratio(fmt.Sprintf("cpu_to_%s_%s_%d", other.name, k.name, n), mid["banmesh"][1], mid[other.name][1], "<=1.0")
	}
}
