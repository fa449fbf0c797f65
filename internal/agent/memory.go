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

// giveBack looks now and then whether much memory lies idle, until ctx ends.
func giveBack(ctx context.Context) error {
	debug.FreeOSMemory() // what the start needed for a moment
	tick := time.NewTicker(giveBackEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if live, idle := heap(); idle > max(giveBackLeast, live/3) {
				debug.FreeOSMemory()
			}
		}
	}
}

// heap gives the bytes that were live at the last collection, and those that
// the process holds beyond.
func heap() (live, idle uint64) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	live = sample[0].Value.Uint64()
	held := sample[1].Value.Uint64() - sample[2].Value.Uint64()
	return live, held - min(held, live)
}
