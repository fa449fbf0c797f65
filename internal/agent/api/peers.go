package api

import (
	"fmt"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/policy"
)

// peerWarnings gives the conditions of peers: who is quarantined, whose claims
// wait, and whose are not even kept.
func (s *Server) peerWarnings() (list []control.Warning) {
	name := s.o.Settings().NameOf
	for _, b := range s.o.Ledger.Peers.Brakes() {
		if b.Waiting == 0 {
			continue
		}
		who := name(b.Operator)
		text := fmt.Sprintf("%d claims of %s in %s wait", b.Waiting, who, b.Topic)
		if b.Brake.Since.IsZero() {
			text += " " + fullBudget(b.Budget)
		} else {
			text += fmt.Sprintf(": %d came this hour beyond the %d that its own turnover allows (%.0f an hour are usual)", b.Brake.Over, b.Brake.Allowed, b.Brake.Usual)
		}
		list = append(list, PeerHeld.Warn(text, fmt.Sprintf("agent hold list; agent hold approve %s --topic %s --for 6h", who, b.Topic)))
	}
	for _, p := range s.o.Ledger.Peers.Troubles() {
		who := name(p.Operator)
		if p.Quarantine != nil {
			list = append(list, PeerQuarantined.Warn(fmt.Sprintf("%s is quarantined: %s", who, quarantine(p.Quarantine).Why), fmt.Sprintf("agent peers show %s; agent undo %s --release", who, who)))
		}
		if p.Dropped > 0 {
			list = append(list, PeerTooMuch.Warn(fmt.Sprintf("%d claims of %s are more than is kept of a peer", p.Dropped, who), ""))
		}
	}
	return append(list, s.disputedClaims()...)
}

// mostDisputed is how many of this node's disputed claims a warning names.
const mostDisputed = 3

// disputedClaims says which of this node's own claims others dispute, in one
// warning an operator.
func (s *Server) disputedClaims() (list []control.Warning) {
	of, names := map[ban.Operator][]string{}, s.o.Settings().NameOf
	var order []ban.Operator
	first := map[ban.Operator]ban.Target{}
	for _, d := range s.o.Ledger.Peers.DisputedOwn() {
		if of[d.Operator] == nil {
			order, first[d.Operator] = append(order, d.Operator), d.Target
		}
		of[d.Operator] = append(of[d.Operator], fmt.Sprintf("%s in %s", d.Target, d.Topic))
	}
	for _, o := range order {
		claims := of[o]
		text := fmt.Sprintf("%s disputes %d of this node's own claims: %s", names(o), len(claims), strings.Join(claims[:min(len(claims), mostDisputed)], ", "))
		list = append(list, ClaimDisputed.Warn(text, fmt.Sprintf("agent explain %s; agent withdraw %s --reason mistake if %s is right", first[o], first[o], names(o))))
	}
	return list
}

// fullBudget says which of an operator's budgets has no room, with its numbers.
func fullBudget(b policy.BudgetState) string {
	switch {
	case b.Live >= b.LiveMost:
		return fmt.Sprintf("for room among its live bans: %d of %d are in force", b.Live, b.LiveMost)
	case b.DecidedToday >= b.DecidedMost:
		return fmt.Sprintf("for tomorrow: %d of the %d that its people may decide in a day are in force", b.DecidedToday, b.DecidedMost)
	}
	return fmt.Sprintf("for room: its bans cover %d addresses of %d", b.Addresses, b.AddressMost)
}
