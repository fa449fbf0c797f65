package detect

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Pauses between log lines of a state that cannot be saved: the first failure is told at
// once, and each pause is twice the one before.
const (
	firstSavePause = time.Minute
	lastSavePause  = time.Hour
)

// A saveFault keeps how saving the state went, and tells it without filling the log: a full
// disk fails each second, and it is often the log that fills it. Its lock is not held
// while the disk is waited for.
type saveFault struct {
	mu       sync.Mutex
	saved    time.Time // the last time that it went well
	err      error     // of the last time
	failures int       // in a row
	next     time.Time // when a failure is told again
	pause    time.Duration
}

// note takes the outcome of one save to path.
func (f *saveFault) note(ctx context.Context, log *slog.Logger, now time.Time, path string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	if err == nil {
		if f.failures > 0 {
			log.InfoContext(ctx, "detection state saved again", slog.String("path", path), slog.Int("failures", f.failures))
		}
		f.saved, f.failures, f.pause, f.next = now, 0, 0, time.Time{}
		return
	}
	f.failures++
	if now.Before(f.next) {
		return
	}
	f.pause = min(max(2*f.pause, firstSavePause), lastSavePause)
	f.next = now.Add(f.pause)
	log.ErrorContext(ctx, "detection state not saved, trying again each second", slog.String("path", path), slog.Int("failures", f.failures), slog.Duration("told_again_after", f.pause), slog.Any("error", err))
}

// last gives when saving went well, and the error since.
func (f *saveFault) last() (saved time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.saved, f.err
}
