package api

import (
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/firewall"
	"banmesh/internal/ledger"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
	"banmesh/internal/span"
	"banmesh/internal/wire"
)

// The conversions below stand between the types of the parts and those of the
// socket, so that a field that is renamed in a part does not compile here
// instead of changing the JSON that scripts read.

// each converts a list; the result is never nil, so that an empty listing is an
// empty array and not null.
func each[A, B any](list []A, f func(A) B) []B {
	out := make([]B, 0, len(list))
	for _, a := range list {
		out = append(out, f(a))
	}
	return out
}

func exemptions(list []ledger.Exemption) []control.Exemption {
	return each(list, func(e ledger.Exemption) control.Exemption { return control.Exemption(e) })
}

func neverBan(list []neverban.Entry) []control.NeverBan {
	return each(list, func(e neverban.Entry) control.NeverBan {
		return control.NeverBan{Prefix: e.Prefix, Source: string(e.Source), Reason: e.Reason, Until: e.Until}
	})
}

func holds(list []ledger.Hold) []control.Hold {
	return each(list, func(h ledger.Hold) control.Hold {
		return control.Hold{
			Feed: h.Feed, Topic: h.Topic, Operator: h.Operator, Name: h.Name, Why: holdWords[h.Why], Since: h.Since, Opens: h.Opens,
			Claims: h.Claims, Live: h.Live, Sample: h.Sample,
		}
	})
}

// holdWords say to people why claims wait.
var holdWords = map[ledger.HoldReason]string{
	ledger.HoldGuard: control.HoldGuard, ledger.HoldBudget: control.HoldBudget,
	ledger.HoldRejected: control.HoldRejected, ledger.HoldCapacity: control.HoldCapacity,
}

// quarantine says to people why an operator is quarantined.
func quarantine(q *ledger.Quarantine) *control.Quarantine {
	if q == nil {
		return nil
	}
	why := map[ledger.QuarantineReason]string{
		ledger.QuarantineByHand:   "undone by hand",
		ledger.QuarantineStrikes:  "it claimed again and again what must never be banned",
		ledger.QuarantineDisputes: "it disputes more targets than anybody may",
		ledger.QuarantineFeeds:    "it has more feeds than anybody may",
		ledger.QuarantineTargets:  "its claims do not fit into the ledger",
		ledger.QuarantineGuests:   "it claims guests of this node far more often than your other operators do",
		ledger.QuarantineTopics:   "it claims in more topics than the ledger has room for",
	}[q.Reason]
	if q.Comment != "" {
		why = q.Comment
	}
	return &control.Quarantine{Since: q.Since, Why: why, Feed: q.Feed}
}

func peers(list []ledger.Peer, feeds []federation.FeedStatus, refused, share func(name string) uint64) []control.Peer {
	trouble := troubles(feeds)
	return each(list, func(p ledger.Peer) control.Peer {
		out := control.Peer{
			Operator: p.Operator, Name: p.Name, Feeds: p.Feeds, Claims: p.Claims, Banning: p.Banning, Alone: p.Alone,
			Corroborated: p.Corroborated, Waiting: p.Waiting, Disputed: p.Disputed, Met: p.Met, Overruled: p.Overruled,
			Strikes: p.Strikes, Total: p.Total, Quarantine: quarantine(p.Quarantine), Probation: p.Probation,
			Dropped: p.Dropped, Withdrawn: p.Withdrawn, Measured: p.Record.Claims, Guests: p.Record.Guests, Refused: refused(p.Name), RefusedShare: share(p.Name), Trouble: trouble[p.Operator],
		}
		for _, s := range p.Recent {
			out.Recent = append(out.Recent, control.Strike(s))
		}
		return out
	})
}

// grave are the statuses of a feed that its operator's line in a listing shows,
// the gravest first.
var grave = []string{federation.StatusQuarantined, federation.StatusStolen, federation.StatusEquivocating, federation.StatusContested}

// troubles gives the gravest status of each operator's feeds, of those that are grave.
func troubles(feeds []federation.FeedStatus) map[ban.Operator]string {
	worst := map[ban.Operator]int{}
	for _, f := range feeds {
		if i := slices.Index(grave, f.Status); i >= 0 && !f.Own {
			if was, ok := worst[f.Feed.Operator]; !ok || i < was {
				worst[f.Feed.Operator] = i
			}
		}
	}
	out := map[ban.Operator]string{}
	for o, i := range worst {
		out[o] = grave[i]
	}
	return out
}

func feeds(list []federation.FeedStatus) []control.Feed {
	return each(list, func(f federation.FeedStatus) control.Feed {
		return control.Feed{
			Topic: f.Topic, Operator: f.Operator, Node: f.Node, Name: f.Name, Own: f.Own, Status: f.Status, Epoch: f.Epoch,
			Batch: f.Batch, Newest: f.Newest, Claims: f.Claims, Bytes: f.Bytes, Issued: f.Issued, FreshUntil: f.FreshUntil,
			Missing: f.Missing, Replays: f.Replays, Mismatches: f.Mismatches, Disputes: f.Disputes, Restarted: f.Restarted,
			Fingerprint: f.Fingerprint,
		}
	})
}

func trustList(l federation.TrustList) control.TrustList {
	return control.TrustList{
		Operator: l.Operator, Number: l.Number, Issued: l.Issued,
		Trusted: each(l.Trusted, func(t wire.Trusted) control.Trusted { return control.Trusted(t) }),
	}
}

// Explanation converts the ledger's answer about a target; name gives an
// operator's name here.
func Explanation(e ledger.Explanation, name func(ban.Operator) string) control.Explanation {
	return control.Explanation{Target: e.Target, Shield: e.Shield, Standings: each(e.Standings, func(s ledger.Standing) control.Standing {
		out := control.Standing{
			Topic: s.Topic, Target: s.Target, Action: s.Action.String(), Why: s.Why.String(), Sentence: s.Why.Sentence(), Rule: s.Rule,
			Since: s.Since, Until: s.Until, Lifts: lifts(s, name),
		}
		if s.Why == policy.ReasonLocal {
			out.By = append(out.By, thisNode)
		}
		for _, by := range s.By {
			out.By = append(out.By, name(by))
		}
		for _, c := range s.Claims {
			out.Claims = append(out.Claims, claimed(c, name))
		}
		for _, d := range s.Disputes {
			out.Disputes = append(out.Disputes, control.Disputed{Name: name(d.Operator), Operator: d.Operator.String(), End: d.End})
		}
		return out
	})}
}

// Observe marks the bans of topics that are observed.
func Observe(x *control.Explanation, s *settings.Settings) {
	for i := range x.Standings {
		t, ok := s.Find(x.Standings[i].Topic)
		x.Standings[i].Observed = ok && t.Observe && x.Standings[i].Action == control.ActionBan
	}
}

// thisNode is the name of our own claims.
const thisNode = "this node"

func claimed(c ledger.Claimed, name func(ban.Operator) string) control.Claimed {
	out := control.Claimed{
		Name: thisNode, Source: string(c.Source), On: c.Target, Since: c.Since, End: c.End, Class: c.Class, Hits: c.Hits,
		Established: c.Established, Basis: c.Basis, Counts: c.Counts(),
	}
	if !c.Own {
		out.Name, out.Operator, out.Node = name(c.Feed.Operator), c.Feed.Operator.String(), c.Feed.Node.String()
	}
	if c.WhyNot == policy.ReasonOwnOperator {
		out.Name = "own node " + out.Node
	}
	if c.Evidence != (ledger.Evidence{}) {
		evidence := control.Evidence(c.Evidence)
		out.Evidence = &evidence
	}
	if c.WhyNot != policy.ReasonNone {
		out.WhyNot, out.Doubt = c.WhyNot.String(), c.WhyNot.Sentence()
	}
	return out
}

// lifts gives the ways to end a verdict, as commands where there is one.
func lifts(s ledger.Standing, name func(ban.Operator) string) (list []string) {
	until := s.Until.UTC().Format(time.RFC3339)
	switch s.Action {
	case policy.Ban:
		list = append(list, fmt.Sprintf("agent unban %s", s.Target), "it ends by itself at "+until)
	case policy.Watch:
		list = append(list, fmt.Sprintf("agent allow add %s", s.Target), "the watch ends by itself at "+until)
	}
	if s.Why == policy.ReasonImported {
		list = append(list, fmt.Sprintf("agent withdraw %s --by %s", s.Target, s.Rule))
	}
	if s.Why == policy.ReasonHeld {
		list = append(list, "agent hold approve, or agent hold reject")
	}
	if s.Why == policy.ReasonQuorum {
		for _, o := range s.By {
			list = append(list, fmt.Sprintf("%s withdraws its claim, or agent undo %s", name(o), name(o)))
		}
	}
	return list
}

// HeldOf gives the kernel's treatment of an address as the socket tells it.
func HeldOf(h firewall.Held) *control.Held {
	return &control.Held{Banned: h.Banned, Map: h.Map, Left: span.Of(h.Left.Round(time.Second)), Never: h.Never}
}

// Met puts the traffic that the bans of its topics met into an explanation.
func Met(x *control.Explanation, counters map[ban.Topic]firewall.Counter) {
	for _, s := range x.Standings {
		if c, ok := counters[s.Topic]; ok {
			if x.Met == nil {
				x.Met = map[ban.Topic]control.Traffic{}
			}
			x.Met[s.Topic] = control.Traffic(c)
		}
	}
}

// origin gives those on whose word a ban rests: "here", or names of operators.
func origin(s ledger.Standing, name func(ban.Operator) string) []string {
	names := []string{}
	if s.Why == policy.ReasonLocal {
		names = append(names, Here)
	}
	if s.Why == policy.ReasonOwnOperator {
		names = append(names, OwnNodes)
	}
	for _, o := range s.By {
		names = append(names, name(o))
	}
	return names
}

// Origins that are no other operator.
const (
	Here     = "here"      // this node's own bans
	OwnNodes = "own nodes" // bans of the other nodes of this node's operator
)

func banOf(s ledger.Standing, name func(ban.Operator) string) control.Ban {
	b := control.Ban{Target: s.Target, Topic: s.Topic, Until: s.Until, Origin: origin(s, name), Rule: s.Rule}
	for i, c := range s.Claims {
		if i == 0 || int(c.Hits) > b.Hits {
			b.Hits = int(c.Hits)
		}
		if i == 0 || c.Own {
			b.Class, b.Basis = c.Class, c.Basis
		}
	}
	return b
}
