package livepeer

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// pause is the most that an orchestrator of a [Load] waits between two calls: four
// of them ask some seven hundred times a second, a hundred times as often as a
// large node.
const pause = 10 * time.Millisecond

// Load is orchestrators that ask again and again.
type Load struct {
	stop    context.CancelFunc
	callers sync.WaitGroup

	mu                sync.Mutex
	asked             int
	longest           time.Duration
	admitted, refused map[string]int
	faults            []error
	more              chan struct{} // closed with the next call
}

// StartLoad begins with as many orchestrators that ask about each wallet in turn.
func StartLoad(ctx context.Context, url string, callers int, wallets ...string) *Load {
	l := &Load{admitted: map[string]int{}, refused: map[string]int{}, more: make(chan struct{})}
	ctx, l.stop = context.WithCancel(ctx)
	for i := range callers {
		l.callers.Go(func() {
			// go-livepeer's client has no time limit; this one turns a call that
			// hangs into an error.
			c := &http.Client{Timeout: 20 * time.Second, Transport: http.DefaultTransport.(*http.Transport).Clone()}
			defer c.CloseIdleConnections()
			for n := i; ctx.Err() == nil; n++ {
				l.once(Orchestrator{url, c}, wallets[n%len(wallets)])
				t := time.NewTimer(rand.N(pause))
				<-t.C
			}
		})
	}
	return l
}

func (l *Load) once(o Orchestrator, wallet string) {
	began := time.Now()
	_, err := o.Authenticate(wallet)
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	l.longest = max(l.longest, took)
	switch {
	case err == nil:
		l.admitted[wallet]++
	case strings.HasPrefix(err.Error(), "authentication failed: not served"):
		l.refused[wallet]++
	default:
		// The orchestrator takes this for a refusal, whoever asked.
		l.faults = append(l.faults, errors.Join(errors.New(wallet), err))
	}
	close(l.more)
	l.more = make(chan struct{})
}

// Wait waits for as many more answers; false says that they do not come.
func (l *Load) Wait(ctx context.Context, calls int) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	l.mu.Lock()
	until := l.asked + calls
	l.mu.Unlock()
	for {
		l.mu.Lock()
		enough, more := l.asked >= until, l.more
		l.mu.Unlock()
		if enough {
			return true
		}
		select {
		case <-more:
		case <-ctx.Done():
			return false
		}
	}
}

// Admitted and Refused count the answers to a wallet.
func (l *Load) Admitted(wallet string) int { return l.count(l.admitted, wallet) }

// Refused counts the refusals of a wallet by the list.
func (l *Load) Refused(wallet string) int { return l.count(l.refused, wallet) }

func (l *Load) count(of map[string]int, wallet string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return of[wallet]
}

// Longest gives the longest call since it was asked last.
func (l *Load) Longest() (d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, l.longest = l.longest, 0
	return d
}

// Lost counts the calls that had no answer.
func (l *Load) Lost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.faults)
}

// Stop ends it: how many calls there were, the longest since [Load.Longest], and
// those that had no answer.
func (l *Load) Stop() (asked int, longest time.Duration, faults []error) {
	l.stop()
	l.callers.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked, l.longest, l.faults
}
