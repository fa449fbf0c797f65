package agent

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// When memory that nothing uses is given back to the machine: taking over a
// feed of a million bans needs three times the memory of keeping it, and the
// runtime by itself gives back only memory far beyond its own goal.
const (
	releaseEvery = 30 * time.Second
	releaseLeast = 32 << 20 // bytes that are worth a collection
)

// releaseMemory looks now and then whether much more memory is held than after the
// last time, until ctx ends.
func releaseMemory(ctx context.Context) error {
	debug.FreeOSMemory() // the start needed much for a moment
	kept := held()
	tick := time.NewTicker(releaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if held() > kept+max(releaseLeast, kept/3) {
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
