package api

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
)

// maxByHand is the longest ban: feeds carry no longer one.
const maxByHand = 90 * 24 * time.Hour

// ban bans a target by hand.
func (s *Server) ban(r *http.Request) (any, error) {
	var q control.BanRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	b, err := localBan(s.o.Settings(), q, s.o.Now())
	if err != nil {
		return nil, err
	}
	if err := s.o.Ledger.Own.Ban(b); err != nil {
		return nil, refusedBan(q.Target, err)
	}
	s.o.Log.InfoContext(r.Context(), "banned by hand", slog.String("target", q.Target.String()), slog.String("topic", string(q.Topic)))
	answer := control.Ban{Target: q.Target, Topic: q.Topic, Until: b.Claim.End, Origin: []string{Here}, Class: b.Claim.Class, Basis: b.Claim.Basis}
	if x, ok := s.o.Ledger.Standing(q.Topic, q.Target); ok && x.Action == policy.Ban {
		answer = banOf(x, s.o.Settings().NameOf)
	}
	answer.Cut = tooLong(q)
	if answer.Kernel = s.o.Firewall.Carry(r.Context()); answer.Kernel == "" {
		answer.Kernel = s.o.Firewall.Unenforced(r.Context(), q.Topic, q.Target)
	}
	return answer, nil
}

// banAll bans many targets in one durable step. Those that cannot be banned are
// named; the others are.
func (s *Server) banAll(r *http.Request) (any, error) {
	var q control.BanAllRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	if len(q.Bans) > control.MaxBulk {
		return nil, control.Refuse(control.CodeBad, "", "%d bans in one request, at most %d", len(q.Bans), control.MaxBulk)
	}
	checked, now := s.o.Settings(), s.o.Now()
	var answer control.BanAllAnswer
	refuse := func(q control.BanRequest, err error) {
		answer.Refused = append(answer.Refused, control.Refusal{Target: q.Target, Topic: q.Topic, ErrorAnswer: control.AnswerOf(err)})
	}
	var bans []ledger.Local
	var from []control.BanRequest
	for _, q := range q.Bans {
		b, err := localBan(checked, q, now)
		if err != nil {
			refuse(q, err)
			continue
		}
		if tooLong(q) {
			answer.Cut++
		}
		bans, from = append(bans, b), append(from, q)
	}
	refused, err := s.o.Ledger.Own.BanAll(bans)
	if err != nil {
		return nil, err
	}
	for _, x := range refused {
		refuse(from[x.Index], refusedBan(from[x.Index].Target, x.Err))
	}
	answer.Banned = len(bans) - len(refused)
	if answer.Banned > 0 {
		answer.Kernel = s.o.Firewall.Carry(r.Context())
	}
	s.o.Log.InfoContext(r.Context(), "banned by a list", slog.Int("banned", answer.Banned), slog.Int("refused", len(answer.Refused)))
	return answer, nil
}

// localBan checks a request against the topics in force.
func localBan(s *settings.Settings, q control.BanRequest, now time.Time) (b ledger.Local, err error) {
	t, ok := s.Find(q.Topic)
	switch {
	case q.Target.IsZero():
		return b, control.Refuse(control.CodeBad, "", "no target is given")
	case !ok:
		return b, noTopic(q.Topic)
	case (t.Definition.Target == "wallet") != (q.Target.Kind() == ban.KindWallet):
		hint := "name a topic of addresses with --topic"
		if q.Target.Kind() == ban.KindWallet {
			hint = "`agent denylist add` denies wallets, in a topic of wallets"
		}
		return b, control.Refuse(control.CodeRefused, hint, "topic %s bans targets of another kind (%s)", q.Topic, t.Definition.Target)
	}
	lasts := s.BanTime(q.Topic)
	if q.For > 0 {
		lasts = time.Duration(min(q.For, int64(maxByHand/time.Second))) * time.Second
	}
	b = ledger.Local{
		Topic: q.Topic, Source: ledger.SourceHand,
		Claim:    ban.Claim{Target: q.Target, End: now.Add(lasts), Class: ban.ClassManual, Basis: ban.BasisDecided, Hits: uint8(min(q.Hits, ban.MaxHits))},
		Evidence: ledger.Evidence{By: "a person"},
	}
	if q.Class != nil {
		b.Claim.Class = *q.Class
	}
	if q.By == "" {
		return b, nil
	}
	if b.Source, err = ledger.ParseSource(q.By); err != nil {
		return b, control.Refuse(control.CodeBad, "", "%.64q is not who can ban: %v", q.By, ledger.ErrSource)
	}
	if b.Source == ledger.SourceDetection || b.Source == ledger.SourceSighting {
		return b, control.Refuse(control.CodeBad, "name the program that bans", "%q is this agent's own", q.By)
	}
	b.Evidence.By = q.By
	b.Claim.Basis = b.Source.Basis()
	return b, nil
}

// tooLong says that a ban lasts less than was asked for.
func tooLong(q control.BanRequest) bool { return q.For > int64(maxByHand/time.Second) }

func noTopic(topic ban.Topic) error {
	return control.Refuse(control.CodeMissing, "see `agent topics list`", "no topic %q is defined", topic)
}

// refusedBan says why the ledger does not ban a target, and the way out.
func refusedBan(target ban.Target, err error) error {
	switch {
	case errors.Is(err, ledger.ErrNeverBan):
		return control.Refuse(control.CodeRefused, "what is private can be banned with may_ban in agent.toml; what is found on this machine cannot", "%v", err)
	case errors.Is(err, ledger.ErrAllowed):
		return control.Refuse(control.CodeRefused, fmt.Sprintf("`agent allow remove %s` first", target), "%v", err)
	case errors.Is(err, ledger.ErrUnbanned):
		return control.Refuse(control.CodeRefused, fmt.Sprintf("`agent ban %s` bans it all the same", target), "%v", err)
	case errors.Is(err, ledger.ErrEnded), errors.Is(err, ban.ErrTarget), errors.Is(err, ban.ErrTopic):
		return control.Refuse(control.CodeRefused, "", "%v", err)
	}
	return refusal(err)
}

// withdraw ends claims of this node, and forbids nobody to make them.
func (s *Server) withdraw(r *http.Request) (any, error) {
	var q control.WithdrawRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	switch {
	case len(q.Targets) > control.MaxBulk:
		return nil, control.Refuse(control.CodeBad, "", "%d targets in one request, at most %d", len(q.Targets), control.MaxBulk)
	case q.All == (len(q.Targets) > 0):
		return nil, control.Refuse(control.CodeBad, "", "name targets, or all")
	case slices.ContainsFunc(q.Targets, ban.Target.IsZero):
		return nil, control.Refuse(control.CodeBad, "", "no target is given")
	}
	if q.Topic != "" {
		if _, ok := s.o.Settings().Find(q.Topic); !ok {
			return nil, noTopic(q.Topic)
		}
	}
	i, notOne := ban.ParseImport(q.By)
	imported := notOne == nil
	if q.All && !q.Yes {
		n := 0
		for range s.o.Ledger.Bans(ledger.Filter{Topic: q.Topic, Own: true}) {
			n++
		}
		if imported {
			for range s.o.Ledger.Bans(ledger.Filter{Topic: q.Topic, Operator: i.Operator()}) {
				n++
			}
		}
		if n > control.Handful {
			return nil, control.Refuse(control.CodeAsk, "", "this may end up to %d bans of this node", n)
		}
	}
	list, err := s.o.Ledger.Own.Withdraw(ledger.Selection{Targets: q.Targets, Topic: q.Topic, Source: ledger.Source(q.By)}, q.Reason)
	if err != nil {
		return nil, err
	}
	if imported {
		// A list that this node imports says nothing for us, but here it is over all the same.
		disowned, err := s.o.Ledger.Peers.Disown(i, q.Topic, q.Targets)
		if err != nil {
			return nil, err
		}
		list = append(list, disowned...)
	}
	s.o.Log.InfoContext(r.Context(), "own claims withdrawn", slog.Int("claims", len(list)), slog.String("reason", q.Reason.String()))
	s.note(r.Context(), several(len(list), func(i int) history.Event {
		b := &list[i]
		return history.Event{Kind: history.Withdraw, Topic: b.Topic, Target: b.Claim.Target, By: cmp.Or(q.By, aPerson), Why: "this node's claim of " + string(b.Source) + ", reason: " + q.Reason.String(), Until: b.Claim.End}
	})...)
	kernel := s.o.Firewall.Carry(r.Context())
	return control.WithdrawAnswer{Kernel: kernel, Withdrawn: each(list, func(b ledger.Local) control.OwnClaim {
		return control.OwnClaim{
			Target: b.Claim.Target, Topic: b.Topic, By: string(b.Source), End: b.Claim.End, Class: b.Claim.Class, Basis: b.Claim.Basis,
			Banned: s.o.Ledger.Action(b.Topic, b.Claim.Target) == policy.Ban,
		}
	})}, nil
}

// unban lifts targets' bans and keeps peers from bringing them back.
func (s *Server) unban(r *http.Request) (any, error) {
	var q control.UnbanRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	targets := q.Targets
	if !q.Target.IsZero() {
		targets = append(targets, q.Target)
	}
	switch {
	case q.All && len(targets) > 0:
		return nil, control.Refuse(control.CodeBad, "", "name targets, or all")
	case q.All:
		targets = s.banned(q.Topic)
	case len(targets) == 0 || slices.ContainsFunc(targets, ban.Target.IsZero):
		return nil, control.Refuse(control.CodeBad, "", "no target is given")
	case len(targets) > control.MaxBulk:
		return nil, control.Refuse(control.CodeBad, "", "%d targets in one request, at most %d", len(targets), control.MaxBulk)
	}
	if q.Topic != "" {
		if _, ok := s.o.Settings().Find(q.Topic); !ok {
			return nil, noTopic(q.Topic)
		}
	}
	lasts := ledger.DefaultUnban
	if q.For > 0 {
		lasts = time.Duration(min(q.For, maxExempt)) * time.Second
	}
	answer := control.UnbanAnswer{Lifted: []control.Ban{}}
	list, lifts := make([]ledger.Exemption, 0, len(targets)), make([]int, 0, len(targets))
	for _, t := range targets {
		list = append(list, ledger.Exemption{Target: t, Topic: q.Topic, Comment: q.Comment, Dispute: q.Dispute})
		lifted := s.lifted(t, q.Topic)
		answer.Lifted, lifts = append(answer.Lifted, lifted...), append(lifts, len(lifted))
	}
	expected := len(targets)
	if q.All {
		expected = 0
	}
	if n := len(answer.Lifted); !q.Yes && n > expected+control.Handful {
		return nil, control.Refuse(control.CodeAsk, "", "this lifts %d bans", n)
	}
	if len(list) == 0 {
		return answer, nil
	}
	if _, err := s.o.Ledger.Exemptions.Add(list, lasts); err != nil {
		return nil, refusal(err)
	}
	if q.Dispute {
		if err := s.o.Sharing.Dispute(); err != nil {
			return nil, err
		}
	}
	for _, b := range answer.Lifted {
		s.o.Detection.Forget(b.Topic, b.Target)
	}
	answer.Exempt = s.o.Now().Add(lasts)
	s.note(r.Context(), several(len(list), func(i int) history.Event {
		return history.Event{Kind: history.Unban, Topic: q.Topic, Target: list[i].Target, Why: cmp.Or(q.Comment, "unbanned by hand"), Until: answer.Exempt, Count: lifts[i]}
	})...)
	if q.Dispute {
		s.note(r.Context(), several(len(list), func(i int) history.Event {
			return history.Event{Kind: history.Dispute, Topic: q.Topic, Target: list[i].Target, Why: cmp.Or(q.Comment, "others are told that it should not be banned"), Until: answer.Exempt}
		})...)
	}
	answer.Kernel = s.o.Firewall.Carry(r.Context())
	answer.Left = s.o.Firewall.Left(r.Context(), targets)
	s.o.Log.InfoContext(r.Context(), "unbanned by hand", slog.Int("targets", len(targets)), slog.Int("lifted", len(answer.Lifted)))
	return answer, nil
}

// banned lists the targets that are banned in a topic ("": in any), each once.
func (s *Server) banned(topic ban.Topic) (list []ban.Target) {
	for x := range s.o.Ledger.Bans(ledger.Filter{Topic: topic}) {
		list = append(list, x.Target)
	}
	slices.SortFunc(list, ban.Target.Compare)
	return slices.Compact(list)
}

// lifted lists the bans in a topic ("": in any) that rest on a target or on a
// prefix around it, which an exemption of it is about to lift.
func (s *Server) lifted(t ban.Target, topic ban.Topic) []control.Ban {
	bans := []control.Ban{}
	for _, x := range s.o.Ledger.Explain(t).Standings {
		if x.Action == policy.Ban && (topic == "" || x.Topic == topic) {
			bans = append(bans, banOf(x, s.o.Settings().NameOf))
		}
	}
	return bans
}
