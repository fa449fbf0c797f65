package api

import (
	"cmp"
	"errors"
	"net/http"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
	"banmesh/internal/ledger"
)

// maxExempt bounds an exemption that ends, in seconds: ten years.
const maxExempt = int64(10 * 365 * 24 * time.Hour / time.Second)

// allow shields a target from every ban.
func (s *Server) allow(r *http.Request) (any, error) {
	var q control.AllowRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	if q.Target.IsZero() {
		return nil, control.Refuse(control.CodeBad, "", "no target is given")
	}
	var until time.Time
	if q.For > 0 {
		until = s.o.Now().Add(time.Duration(min(q.For, maxExempt)) * time.Second)
	}
	answer := control.UnbanAnswer{Lifted: s.lifted(q.Target, ""), Exempt: until}
	if n := len(answer.Lifted); !q.Yes && n > 1+control.Handful {
		return nil, control.Refuse(control.CodeAsk, "", "this lifts %d bans", n)
	}
	if _, err := s.o.Ledger.Exemptions.Allow(q.Target, until, q.Comment); err != nil {
		return nil, refusal(err)
	}
	answer.Kernel = s.o.Firewall.Carry(r.Context())
	s.note(r.Context(), history.Event{Kind: history.Allow, Target: q.Target, Why: cmp.Or(q.Comment, "allowed by hand"), Until: until, Count: len(answer.Lifted)})
	return answer, nil
}

// allowRemove ends an exemption.
func (s *Server) allowRemove(r *http.Request) (any, error) {
	var q control.AllowRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	// Both kinds: a person who removes an exemption means that none is left.
	err := s.o.Ledger.Exemptions.Remove(q.Target, true)
	if err2 := s.o.Ledger.Exemptions.Remove(q.Target, false); err != nil && err2 == nil {
		err = nil
	}
	if err == nil {
		err = s.o.Sharing.Dispute()
	}
	if err != nil {
		return nil, refusal(err)
	}
	kernel := s.o.Firewall.Carry(r.Context())
	s.note(r.Context(), history.Event{Kind: history.Allow, Target: q.Target, Why: "the exemption was removed"})
	answer := control.AllowRemoveAnswer{Banned: s.lifted(q.Target, ""), Kernel: kernel}
	return answer, nil
}

// approve lets the claims of a peer count that wait, and with a time those
// that it makes until then.
func (s *Server) approve(r *http.Request) (any, error) {
	q, o, err := s.peerRequest(r)
	if err != nil {
		return nil, err
	}
	if most := int64(ledger.MaxApproval / time.Second); q.For < 0 || q.For > most {
		return nil, control.Refuse(control.CodeBad, "", "an approval lasts at most %d days", most/(24*60*60))
	}
	n, err := s.o.Ledger.Peers.Approve(o, q.Topic, time.Duration(q.For)*time.Second)
	s.notePeer(r, err, history.Event{Kind: history.Hold, Topic: q.Topic, Why: "a person approved claims that waited", Count: n}, o)
	return s.counted(r, n, err)
}

// reject sees to it that the claims of a peer that wait never count.
func (s *Server) reject(r *http.Request) (any, error) {
	q, o, err := s.peerRequest(r)
	if err != nil {
		return nil, err
	}
	n, err := s.o.Ledger.Peers.Reject(o, q.Topic)
	s.notePeer(r, err, history.Event{Kind: history.Hold, Topic: q.Topic, Why: "a person rejected claims that waited", Count: n}, o)
	return s.counted(r, n, err)
}

// undo drops everything that a peer caused.
func (s *Server) undo(r *http.Request) (any, error) {
	q, o, err := s.peerRequest(r)
	if err != nil {
		return nil, err
	}
	if n := s.o.Ledger.EffectOfUndo(o).End; !q.Yes && n > control.Handful {
		return nil, control.Refuse(control.CodeAsk, "", "this lifts %d bans that rest on %s", n, s.o.Settings().NameOf(o))
	}
	n, err := s.o.Ledger.Peers.Undo(o, q.Why)
	s.notePeer(r, err, history.Event{Kind: history.Quarantine, Why: cmp.Or(q.Why, "undone by hand"), Count: n}, o)
	return s.counted(r, n, err)
}

// release ends a peer's quarantine, and those of its feeds.
func (s *Server) release(r *http.Request) (any, error) {
	_, o, err := s.peerRequest(r)
	if err != nil {
		return nil, err
	}
	feeds, err := s.o.Sharing.Release(o)
	if err != nil {
		return nil, err
	}
	err = s.o.Ledger.Peers.Release(o)
	if feeds > 0 && errors.Is(err, ledger.ErrUnknown) {
		err = nil
	}
	s.notePeer(r, err, history.Event{Kind: history.Quarantine, Why: "the quarantine was ended by hand", Count: feeds}, o)
	if err != nil {
		return nil, refusal(err)
	}
	return s.counted(r, feeds, nil)
}

// counted answers a decision about a peer when the kernel follows it.
func (s *Server) counted(r *http.Request, n int, err error) (any, error) {
	if err != nil {
		return nil, refusal(err)
	}
	return control.CountAnswer{Count: n, Kernel: s.o.Firewall.Carry(r.Context())}, nil
}

// notePeer notes a decision about an operator, where it was carried out.
func (s *Server) notePeer(r *http.Request, err error, e history.Event, o ban.Operator) {
	if err == nil {
		e.Peers = []string{s.o.Settings().NameOf(o)}
		s.note(r.Context(), e)
	}
}

// peerRequest reads a request about an operator, by its name here or its
// identity.
func (s *Server) peerRequest(r *http.Request) (q control.PeerRequest, o ban.Operator, err error) {
	if err := control.Decode(r, &q); err != nil {
		return q, o, err
	}
	o, err = s.operator(q.Peer)
	return q, o, err
}

// refusal turns the ledger's refusals into answers.
func refusal(err error) error {
	switch {
	case errors.Is(err, ledger.ErrUnknown):
		return control.Refuse(control.CodeMissing, "", "%v", err)
	case errors.Is(err, ledger.ErrTooMany), errors.Is(err, ledger.ErrNeverBan), errors.Is(err, ledger.ErrAllowed), errors.Is(err, ledger.ErrUnbanned):
		return control.Refuse(control.CodeRefused, "", "%v", err)
	}
	return err
}
