// Package gate is the auth webhook that a Livepeer orchestrator asks before it
// takes a session of a wallet: it refuses the wallets that are denied and lets
// every other through.
//
// An orchestrator earns nothing while its webhook refuses or hangs: it treats
// every answer but 200 with a JSON body as a refusal and sets no time limit of
// its own. So the gate answers from memory, within a deadline, and allows
// whenever it does not know:
//
//	denied wallet                               403, short text
//	any other wallet                            200 {}
//	the lookup is not back within the deadline  200 {}, counted as unanswered
//	a body that names no wallet                 200 {}, counted as unread
//	dry run, denied wallet                      200 {}, counted and logged as refused
//	chained webhook refuses                     its status and body
//	chained webhook fails or is late            502, as the orchestrator would have taken
//	                                            it without the gate; 200 {} if so configured
//	another path, method or an oversized body   404, 405, 413: not the orchestrator
package gate

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wallet"
)

const (
	// DefaultDeadline bounds the lookup, which takes microseconds. A gateway
	// gives an orchestrator 500 ms to answer its discovery; less than 200 ms
	// would admit denied wallets whenever the machine is too busy to run us.
	DefaultDeadline = 200 * time.Millisecond
	// DefaultUpstreamTimeout bounds the chained webhook: a gateway's refresh of
	// a session gives up after 2.5 s.
	DefaultUpstreamTimeout = 2 * time.Second
	// maxBody bounds a request: go-livepeer's has 51 bytes. The fields
	// that later versions may add fit too.
	maxBody = 64 << 10
	// maxLookups bounds the lookups that wait for an answer; beyond it the gate
	// allows at once instead of piling up goroutines.
	maxLookups = 256
)

// A Denial is why a wallet is denied.
type Denial struct {
	Topic ban.Topic
	Class ban.Class
	Until time.Time
}

// Wallets knows the denied wallets.
type Wallets interface {
	// Denied answers from memory, at once. It may be called from several
	// goroutines.
	Denied(w [20]byte) (d Denial, denied bool)
}

// Options configure a [Gate].
type Options struct {
	Wallets Wallets
	Log     *slog.Logger
	// Path is the secret path of the URL, without a slash: see [LoadPath].
	Path string
	// Deadline bounds the lookup; 0 means [DefaultDeadline].
	Deadline time.Duration
	// DryRun logs refusals and refuses nothing.
	DryRun bool
	// Upstream is the webhook that the operator used before, or nil: requests that
	// the gate allows are asked there too.
	Upstream *url.URL
	// UpstreamTimeout bounds it; 0 means [DefaultUpstreamTimeout].
	UpstreamTimeout time.Duration
	// UpstreamAllow says that a chained webhook that fails or is late counts
	// as one that allows.
	UpstreamAllow bool
}

// A Gate answers the orchestrator.
type Gate struct {
	o       Options
	http    *http.Client
	tally   *tally
	slots   chan struct{}
	lookups sync.WaitGroup
}

// New checks the options and gives a gate that serves nothing yet.
func New(o Options) (*Gate, error) {
	if !validPath(o.Path) {
		return nil, fmt.Errorf("the gate's path: %w", errPath)
	}
	if o.Upstream != nil && (o.Upstream.Scheme != "http" && o.Upstream.Scheme != "https" || o.Upstream.Host == "") {
		return nil, fmt.Errorf("the chained webhook %s: not an http or https URL", o.Upstream.Redacted())
	}
	if o.Deadline == 0 {
		o.Deadline = DefaultDeadline
	}
	if o.UpstreamTimeout == 0 {
		o.UpstreamTimeout = DefaultUpstreamTimeout
	}
	return &Gate{
		o:     o,
		http:  upstreamClient(o.UpstreamTimeout),
		tally: newTally(),
		slots: make(chan struct{}, maxLookups),
	}, nil
}

// ServeHTTP answers one call of the webhook.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/"+g.o.Path:
		g.tally.stray()
		http.Error(w, "not found", http.StatusNotFound)
		return
	case r.Method != http.MethodPost:
		g.tally.stray()
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		g.tally.stray()
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		}
		return // the caller went away, or sends no more
	}
	g.decide(w, r, body)
}

// decide answers a body.
func (g *Gate) decide(w http.ResponseWriter, r *http.Request, body []byte) {
	id, err := readID(body)
	switch {
	case errors.Is(err, errNoID):
		// Another kind of call, of a node that is not an orchestrator: it is
		// for the chained webhook, if there is one.
		g.tally.unread()
		if g.o.Upstream != nil {
			g.forward(w, r, body)
			return
		}
		w.WriteHeader(http.StatusOK)
		return
	case err != nil:
		g.tally.unread()
		if g.tally.mayWarn(warnUnread, time.Now()) {
			g.o.Log.Warn("the orchestrator's webhook call names no wallet: allowing it", "error", err)
		}
		g.allow(w, r, body)
		return
	}
	d, denied, answered := g.lookup(id)
	if !answered {
		g.tally.late()
		if g.tally.mayWarn(warnLate, time.Now()) {
			g.o.Log.Warn("a wallet could not be looked up in time: allowing it", "wallet", wallet.Format(id), "deadline", g.o.Deadline)
		}
	}
	if first, count := g.tally.asked(id, denied, time.Now()); denied && first {
		g.o.Log.Info("wallet refused", "wallet", wallet.Format(id), "topic", string(d.Topic), "class", d.Class.String(),
			"until", d.Until, "refused", count, "dry_run", g.o.DryRun)
	}
	if denied && !g.o.DryRun {
		// The text reaches the denied party word for word.
		http.Error(w, "not served by this orchestrator", http.StatusForbidden)
		return
	}
	g.allow(w, r, body)
}

// allow lets a call through, unless a chained webhook objects.
func (g *Gate) allow(w http.ResponseWriter, r *http.Request, body []byte) {
	if g.o.Upstream != nil {
		g.forward(w, r, body)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}") // an empty body would be a refusal
}

// lookup asks the wallets and waits no longer than the deadline. answered is
// false when it is not known in time.
func (g *Gate) lookup(id [20]byte) (d Denial, denied, answered bool) {
	if id == ([20]byte{}) {
		return Denial{}, false, true // an off-chain orchestrator's every caller
	}
	select {
	case g.slots <- struct{}{}:
	default:
		return Denial{}, false, false
	}
	type result struct {
		d      Denial
		denied bool
	}
	answer := make(chan result, 1)
	g.lookups.Go(func() {
		defer func() { <-g.slots }()
		d, denied := g.o.Wallets.Denied(id)
		answer <- result{d, denied}
	})
	late := time.NewTimer(g.o.Deadline)
	defer late.Stop()
	select {
	case a := <-answer:
		return a.d, a.denied, true
	case <-late.C:
	}
	// The whole process may have stood still, with the answer already there.
	select {
	case a := <-answer:
		return a.d, a.denied, true
	default:
		return Denial{}, false, false
	}
}

// Counters gives the counts since the start.
func (g *Gate) Counters() Counters {
	c := g.tally.counters()
	c.DryRun = g.o.DryRun
	return c
}
