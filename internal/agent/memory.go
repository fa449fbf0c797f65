package agent

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// When memory that nothing uses is given back to the machine: taking over a
// feed of a million bans needs three times what keeping it does, and the
// runtime by itself gives back only what is far beyond its own goal.
const (
	giveBackEvery = 30 * time.Second
	giveBackLeast = 32 << 20 // bytes that are worth a collection
)

// giveBack looks now and then whether much more memory is held than after the
// last time, until ctx ends.
func giveBack(ctx context.Context) error {
	debug.FreeOSMemory() // what the start needed for a moment
	kept := held()
	tick := time.NewTicker(giveBackEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if held() > kept+max(giveBackLeast, kept/3) {
				debug.FreeOSMemory()
				kept = held()
			}
			kept = min(kept, held())
		}
	}
}

// held gives the bytes that the runtime holds.
func held() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64() - sample[1].Value.Uint64()
}
