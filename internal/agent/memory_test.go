package agent

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// It runs alone: the runtime counts the memory of the whole process, so that a test
// beside it, which still needs its own, would be counted too.
func TestIdleMemoryIsGivenBack(t *testing.T) {
	const wasted = 128 << 20
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- releaseMemory(ctx) }()
		synctest.Wait()
		waste := make([][]byte, 0, wasted/(2<<20))
		for range cap(waste) {
			b := make([]byte, 2<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			waste = append(waste, b)
		}
		runtime.KeepAlive(waste)
		before := held()
		if before < wasted {
			t.Fatalf("only %d bytes are held", before)
		}
		time.Sleep(releaseEvery + time.Second) // in a bubble: at once
		synctest.Wait()
		if after := held(); after > before-wasted/2 {
			t.Errorf("%d bytes of %d are still held: not even half of the %d that nobody needs were given back", after, before, wasted)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
