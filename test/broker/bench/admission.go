package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"banmesh/internal/wire"
	"banmesh/test/broker/load"
)

// admission measures how much of the processor time goes into deciding on
// let in: signatures, certificates, quotas. It is the cost that a broker that decides
// nothing needs less for a delivery, which is of use only where deliveries are
// few: with many receivers the difference is smaller than that between two runs
// by. The two run in turn, so that a machine that becomes slower is so for both.
// A signature alone is measured in this process.
func (b *bench) admission(ctx context.Context) error {
	signature, err := verification()
	if err != nil {
		return err
	}
	figure("signature_cpu", float64(signature)/float64(time.Microsecond), "us", "-")
	for _, n := range b.sizes {
		var shares, signatures []float64
		for range max(3, b.rounds) {
			cost := map[string]float64{}
			for _, s := range []server{b.servers[0], b.open} {
				err := with(s, func(p *process) error {
					r, err := load.Fanout{
						Address: p.address, Publishers: publishers, Subscribers: n, Size: payload, Window: window, Duration: b.duration, CPU: p.cpu,
					}.Run(ctx)
					cost[s.name] = float64(r.CPUPerDelivery())
					return err
				})
				if err != nil {
					return err
				}
			}
			shares = append(shares, 100*(cost["banmesh"]-cost["open"])/cost["banmesh"])
			signatures = append(signatures, 100*float64(signature)/(cost["banmesh"]*float64(n)))
		}
		figure(fmt.Sprintf("admission_share_of_cpu_%d", n), median(shares), "percent", "<=15")
		figure(fmt.Sprintf("signature_share_of_cpu_%d", n), median(signatures), "percent", "-")
	}
	return nil
}

// verification is the processor time that the signature of one publication of
// the load takes to check, alone.
func verification() (time.Duration, error) {
	_, body, err := load.NewAuthor(0).Next(payload, time.Now())
	if err != nil {
		return 0, err
	}
	h, err := wire.Peek(body)
	if err != nil {
		return 0, err
	}
	const times = 20_000
	cpu := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_THREAD, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := cpu()
	for range times {
		if !ed25519.Verify(h.Signer[:], body[ed25519.SignatureSize:], body[:ed25519.SignatureSize]) {
			return 0, errors.New("the load is not signed")
		}
	}
	return (cpu() - began) / times, nil
}
