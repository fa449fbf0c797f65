package agent

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestIdleMemoryIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- releaseMemory(ctx) }()
		synctest.Wait()
		waste := make([][]byte, 0, 64)
		for range 64 {
			b := make([]byte, 2<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			waste = append(waste, b)
		}
		runtime.KeepAlive(waste)
		before := held()
		if before < 64<<20 {
			t.Fatalf("only %d bytes are held", before)
		}
		time.Sleep(releaseEvery + time.Second) // in a bubble: at once
		synctest.Wait()
		if after := held(); after > before/2 {
			t.Errorf("%d bytes of %d are still held", after, before)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
