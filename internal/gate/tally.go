package gate

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
	"time"

	"banmesh/internal/wallet"
)

const (
	// maxWallets bounds the wallets that are counted one by one: a caller with
	// new wallets without end must not make the gate grow. The one that was
	// seen longest ago makes room.
	maxWallets = 4096
	// logAgain is how long a wallet's refusals are only counted after one was
	// logged: a refused gateway comes back every few seconds.
	logAgain = time.Hour
	// warnAgain is how long the gate keeps quiet about its own trouble.
	warnAgain = time.Minute
)

// Counters count a gate's answers.
type Counters struct {
	Allowed uint64 `json:"allowed"`
	// Refused counts the calls of denied wallets, in a dry run too.
	Refused uint64 `json:"refused"`
	// Unread counts the calls that named no wallet; they are in Allowed or
	// UpstreamRefused when they were JSON.
	Unread uint64 `json:"unread"`
	// Stray counts requests that were not the orchestrator's.
	Stray uint64 `json:"stray"`
	// UpstreamRefused and UpstreamFailed count the chained webhook's answers.
	UpstreamRefused uint64 `json:"upstream_refused"`
	UpstreamFailed  uint64 `json:"upstream_failed"`
	// Wallets are the ones seen last, at most 4096, those refused most first.
	Wallets []WalletCount `json:"wallets"`
	// Forgotten counts wallets that made room for others.
	Forgotten uint64 `json:"forgotten"`
}

// WalletCount is how often one wallet asked.
type WalletCount struct {
	Wallet  string    `json:"wallet"` // EIP-55
	Allowed uint64    `json:"allowed"`
	Refused uint64    `json:"refused"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

// tally counts. It holds one lock for the time of a map access.
type tally struct {
	mu      sync.Mutex
	c       Counters
	wallets map[[20]byte]*list.Element
	// order holds the wallets, the one seen last in front.
	order  *list.List
	warned [warnings]time.Time
}

// warning is a trouble of the gate's own.
type warning int

const (
	warnUnread warning = iota
	warnUpstream
	warnings
)

type walletTally struct {
	id               [20]byte
	allowed, refused uint64
	first, last      time.Time
	logged           time.Time
}

func newTally() *tally {
	return &tally{wallets: make(map[[20]byte]*list.Element), order: list.New()}
}

// asked counts a wallet's call. first says that a refusal is due to be logged.
func (t *tally) asked(id [20]byte, denied bool, now time.Time) (first bool, refused uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.wallets[id]
	if ok {
		t.order.MoveToFront(e)
	} else {
		if t.order.Len() >= maxWallets {
			oldest := t.order.Back()
			delete(t.wallets, t.order.Remove(oldest).(*walletTally).id)
			t.c.Forgotten++
		}
		e = t.order.PushFront(&walletTally{id: id, first: now})
		t.wallets[id] = e
	}
	w := e.Value.(*walletTally)
	w.last = now
	if !denied {
		t.c.Allowed++
		w.allowed++
		return false, w.refused
	}
	t.c.Refused++
	w.refused++
	if !w.logged.IsZero() && now.Sub(w.logged) < logAgain {
		return false, w.refused
	}
	w.logged = now
	return true, w.refused
}

func (t *tally) stray()  { t.count(&t.c.Stray) }
func (t *tally) unread() { t.count(&t.c.Unread) }

func (t *tally) upstreamRefused() { t.count(&t.c.UpstreamRefused) }
func (t *tally) upstreamFailed()  { t.count(&t.c.UpstreamFailed) }

func (t *tally) count(n *uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*n++
}

// mayWarn says whether a trouble may be logged now.
func (t *tally) mayWarn(w warning, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.warned[w].IsZero() && now.Sub(t.warned[w]) < warnAgain {
		return false
	}
	t.warned[w] = now
	return true
}

func (t *tally) counters() Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.c
	c.Wallets = make([]WalletCount, 0, t.order.Len())
	for e := t.order.Front(); e != nil; e = e.Next() {
		w := e.Value.(*walletTally)
		c.Wallets = append(c.Wallets, WalletCount{wallet.Format(w.id), w.allowed, w.refused, w.first, w.last})
	}
	slices.SortStableFunc(c.Wallets, func(a, b WalletCount) int { return cmp.Compare(b.Refused, a.Refused) })
	return c
}
