// Package gate is the auth webhook that a Livepeer orchestrator asks before it
// takes a session of a wallet: it refuses the wallets that are denied and lets
// every other through. It runs in a process of its own, which reads one file
// that the agent writes and asks nobody.
//
// An orchestrator earns nothing while its webhook refuses or hangs: it treats
// every answer but 200 with a JSON body as a refusal and sets no time limit of
// its own. So the gate answers from memory and allows whenever it does not know:
//
//	denied wallet, however old the list    403, a line of text
//	any other wallet                       200 {}
//	no list, or a damaged one              200 {}
//	a body that names no wallet            200 {}, counted as unread
//	dry run, denied wallet                 200 {}, counted and logged as refused
//	chained webhook refuses                its status and body
//	chained webhook fails or is late       502, as the orchestrator would have taken
//	                                       it without the gate; 200 {} if so configured
//	another path, method or a body beyond  404, 405, 413: not the orchestrator
//	the limit
//	GET of the path                        200 and the gate's [Status] as JSON
package gate

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"banmesh/internal/wallet"
)

const (
	// DefaultMessage is the text that a denied gateway reads.
	DefaultMessage = "not served by this orchestrator"
	// upstreamTimeout bounds the chained webhook: a gateway's refresh of a
	// session gives up after 2.5 s.
	upstreamTimeout = 2 * time.Second
	// maxBody bounds a request: go-livepeer's has 51 bytes. The fields
	// that later versions may add fit too.
	maxBody = 64 << 10
)

// ErrNone says that there is no list.
var ErrNone = errors.New("there is no list")

// A Gate answers the orchestrator from the list that it was given last.
type Gate struct {
	log     *slog.Logger
	http    *http.Client
	tally   *tally
	state   atomic.Pointer[state]
	started time.Time
	// kept says that systemd holds the socket, so that calls outlive the process.
	inherited bool
	upstream  time.Duration // [upstreamTimeout], less in tests
}

// state is everything that an answer depends on. It is replaced whole.
type state struct {
	list      *List // never nil
	fault     error // why there is none
	confirmed time.Time
}

// New gives a gate without a list, which allows everybody.
func New(log *slog.Logger) *Gate {
	g := &Gate{log: log, http: upstreamClient(), tally: newTally(), started: time.Now(), upstream: upstreamTimeout}
	g.state.Store(&state{list: &List{}, fault: ErrNone})
	return g
}

// Take puts a list in force.
func (g *Gate) Take(l *List) { g.state.Store(&state{list: l, confirmed: time.Now()}) }

// An Answer is the answer to one call.
type Answer struct {
	Status int
	Type   string // of the body
	Body   []byte
}

func text(status int, line string) Answer {
	return Answer{status, "text/plain; charset=utf-8", []byte(line + "\n")}
}

// allowed is the answer that lets a call through; an empty body would refuse.
func allowed() Answer { return Answer{http.StatusOK, "application/json", []byte("{}")} }

// Answer decides one call. It waits for nobody but the chained webhook.
func (g *Gate) Answer(ctx context.Context, method, path string, body []byte) Answer {
	s := g.state.Load()
	switch {
	case s.fault == nil && path != "/"+s.list.Path:
		// Without a list the path is not known, and everybody is let through.
		g.tally.stray()
		return text(http.StatusNotFound, "not found")
	case method == http.MethodHead:
		return Answer{Status: http.StatusOK}
	case method == http.MethodGet:
		return g.answerStatus()
	case method != http.MethodPost:
		g.tally.stray()
		return text(http.StatusMethodNotAllowed, "only POST")
	case len(body) > maxBody:
		g.tally.stray()
		return text(http.StatusRequestEntityTooLarge, "too large")
	}
	return g.decide(ctx, s.list, body)
}

// decide answers a body.
func (g *Gate) decide(ctx context.Context, l *List, body []byte) Answer {
	id, err := readID(body)
	switch {
	case errors.Is(err, errNoID):
		// Another kind of call, of a node that is not an orchestrator: it is
		// for the chained webhook, if there is one.
		g.tally.unread()
		if l.chain != nil {
			return g.forward(ctx, l, body)
		}
		return Answer{Status: http.StatusOK}
	case err != nil:
		g.tally.unread()
		if g.tally.mayWarn(warnUnread, time.Now()) {
			g.log.Warn("the orchestrator's webhook call names no wallet: allowing it", "error", err)
		}
		return g.allow(ctx, l, body)
	}
	now := time.Now()
	d, denied := l.Denied(id, now)
	if first, count := g.tally.asked(id, denied, now); denied && first {
		g.log.Info("wallet refused", "wallet", wallet.Format(id), "topic", d.Topic, "class", d.Class,
			"until", d.Until, "refused", count, "dry_run", l.DryRun)
	}
	if denied && !l.DryRun {
		return text(http.StatusForbidden, l.refusal(d))
	}
	return g.allow(ctx, l, body)
}

// refusal is the text that reaches the denied party word for word.
func (l *List) refusal(d Denial) string {
	line := l.Message
	if line == "" {
		line = DefaultMessage
	}
	if d.Contact != "" {
		line += "; to object: " + d.Contact
	}
	return line
}

// allow lets a call through, unless a chained webhook objects.
func (g *Gate) allow(ctx context.Context, l *List, body []byte) Answer {
	if l.chain != nil {
		return g.forward(ctx, l, body)
	}
	return allowed()
}

// A Status is the gate's own account of itself.
type Status struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Inherited says that systemd holds the socket, so that a restart refuses nobody.
	Inherited bool `json:"inherited"`
	// Fault is why there is no list and everybody is allowed; "" with a list.
	Fault string `json:"fault"`
	// Listed counts the list's wallets, Sum is its checksum.
	Listed int    `json:"listed"`
	Sum    string `json:"sum"`
	// Written is when the agent made the list, Confirmed when it last said that
	// the list still holds.
	Written   time.Time `json:"written"`
	Confirmed time.Time `json:"confirmed"`
	DryRun    bool      `json:"dry_run"`
	Counters
}

// Status gives the gate's state.
func (g *Gate) Status() Status {
	s := g.state.Load()
	out := Status{
		PID: os.Getpid(), Started: g.started, Inherited: g.inherited, Confirmed: s.confirmed,
		DryRun: s.list.DryRun, Counters: g.tally.counters(),
	}
	if s.fault != nil {
		out.Fault = s.fault.Error()
		return out
	}
	out.Listed, out.Sum, out.Written = s.list.Len(), s.list.Sum(), s.list.Written
	return out
}

func (g *Gate) answerStatus() Answer {
	b, err := json.Marshal(g.Status())
	if err != nil {
		return text(http.StatusInternalServerError, err.Error())
	}
	return Answer{http.StatusOK, "application/json", b}
}
