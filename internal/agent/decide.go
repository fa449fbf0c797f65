package agent

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/ledger"
)

// registerDecisions answers the commands by which a person overrules policy:
// exemptions, holds, and peers.
func (a *agent) registerDecisions(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/allow", control.Handle(func(*http.Request) (any, error) { return list(a.ledger.Exemptions()), nil }))
	mux.HandleFunc("POST /v1/allow", control.Handle(a.allow))
	mux.HandleFunc("POST /v1/allow/remove", control.Handle(a.allowRemove))
	mux.HandleFunc("GET /v1/hold", control.Handle(func(*http.Request) (any, error) { return list(a.ledger.Holds()), nil }))
	mux.HandleFunc("POST /v1/hold/approve", control.Handle(a.hold((*ledger.Ledger).Approve)))
	mux.HandleFunc("POST /v1/hold/reject", control.Handle(a.hold((*ledger.Ledger).Reject)))
	mux.HandleFunc("GET /v1/peers", control.Handle(func(*http.Request) (any, error) { return list(a.ledger.Peers()), nil }))
	mux.HandleFunc("POST /v1/peers/undo", control.Handle(a.undo))
	mux.HandleFunc("POST /v1/peers/release", control.Handle(a.release))
	mux.HandleFunc("GET /v1/never-ban", control.Handle(func(*http.Request) (any, error) { return list(a.guard.everything()), nil }))
	mux.HandleFunc("GET /v1/feeds", control.Handle(func(*http.Request) (any, error) { return list(a.sharing.session.Feeds()), nil }))
	a.registerSharing(mux)
}

// list makes an empty listing an empty array and not null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// maxExempt bounds an exemption that ends, in seconds: ten years.
const maxExempt = int64(10 * 365 * 24 * time.Hour / time.Second)

func (a *agent) allow(r *http.Request) (any, error) {
	var q control.AllowRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	if q.Target.IsZero() {
		return nil, &control.RefusedError{Code: control.CodeBad, Text: "no target is given"}
	}
	var until time.Time
	if q.For > 0 {
		until = a.now().Add(time.Duration(min(q.For, maxExempt)) * time.Second)
	}
	answer := control.UnbanAnswer{Lifted: a.lifted(q.Target, ""), Exempt: until}
	if _, err := a.ledger.Allow(q.Target, until, q.Comment); err != nil {
		return nil, refusal(err)
	}
	return answer, nil
}

func (a *agent) allowRemove(r *http.Request) (any, error) {
	var q control.AllowRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	// Both kinds: a person who removes an exemption means that none is left.
	err := a.ledger.RemoveExemption(q.Target, true)
	if err2 := a.ledger.RemoveExemption(q.Target, false); err != nil && err2 == nil {
		err = nil
	}
	if err == nil {
		err = a.dispute()
	}
	return struct{}{}, refusal(err)
}

func (a *agent) hold(f func(*ledger.Ledger, ban.Operator, ban.Topic) (int, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		q, o, err := a.peerRequest(r)
		if err != nil {
			return nil, err
		}
		n, err := f(a.ledger, o, q.Topic)
		return control.CountAnswer{Count: n}, refusal(err)
	}
}

func (a *agent) undo(r *http.Request) (any, error) {
	q, o, err := a.peerRequest(r)
	if err != nil {
		return nil, err
	}
	n, err := a.ledger.Undo(o, q.Why)
	return control.CountAnswer{Count: n}, refusal(err)
}

func (a *agent) release(r *http.Request) (any, error) {
	_, o, err := a.peerRequest(r)
	if err != nil {
		return nil, err
	}
	return struct{}{}, refusal(a.ledger.Release(o))
}

// peerRequest reads a request about an operator, by its name here or its
// identity.
func (a *agent) peerRequest(r *http.Request) (q control.PeerRequest, o ban.Operator, err error) {
	if err := control.Decode(r, &q); err != nil {
		return q, o, err
	}
	if o, ok := a.ledger.Policy().Operator(q.Peer); ok {
		return q, o, nil
	}
	o, err = ban.ParseOperator(q.Peer)
	if err != nil {
		return q, o, &control.RefusedError{Code: control.CodeMissing, Text: fmt.Sprintf("no operator %.64q is known", q.Peer), Hint: "see `agent peers list`"}
	}
	return q, o, nil
}

// refusal turns what the ledger will not do into an answer.
func refusal(err error) error {
	switch {
	case errors.Is(err, ledger.ErrUnknown):
		return &control.RefusedError{Code: control.CodeMissing, Text: err.Error()}
	case errors.Is(err, ledger.ErrTooMany), errors.Is(err, ledger.ErrNeverBan), errors.Is(err, ledger.ErrAllowed):
		return &control.RefusedError{Code: control.CodeRefused, Text: err.Error()}
	}
	return err
}
