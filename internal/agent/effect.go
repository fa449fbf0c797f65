package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"banmesh/internal/control"
	"banmesh/internal/history"
	"banmesh/internal/ledger"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
)

// effect says which bans of now begin and end with other settings.
func (a *agent) effect(next *settings.Settings) control.Effect {
	before := a.current()
	e := effectOf(a.ledger.Effect(next.Policy().As(a.sharing.Operator())))
	for _, x := range settings.RuleChanges(before, next) {
		e.Rules = append(e.Rules, control.RuleChange{Topic: x.Topic, Before: control.Rules(x.Before), After: control.Rules(x.After)})
	}
	if never := before.NewlyNever(next); len(never) > 0 {
		a.endedBy(neverban.NewSet(never), &e)
	}
	if gone := next.NewlyNever(before); len(gone) > 0 {
		a.begunBy(gone, next, &e)
	}
	return e
}

// begunBy counts the bans that begin where never-ban entries go that nothing else
// stands for.
func (a *agent) begunBy(gone []neverban.Entry, next *settings.Settings, e *control.Effect) {
	left := slices.DeleteFunc(a.guard.list(), func(x neverban.Entry) bool { return slices.Contains(gone, x) })
	begins := a.ledger.EffectOfShields(next.Policy().As(a.sharing.Operator()), neverban.NewSet(neverban.WithoutPrivate(left)), neverban.NewSet(left))
	e.Begin += begins.Begin
	for _, s := range samples(begins.Begins) {
		if len(e.Begins) < policy.MaxSamples {
			e.Begins = append(e.Begins, s)
		}
	}
}

// endedBy counts the bans that new never-ban entries end.
func (a *agent) endedBy(never neverban.Set, e *control.Effect) {
	for s := range a.ledger.Bans(ledger.Filter{}) {
		why, ok := never.Protects(s.Target)
		if !ok {
			continue
		}
		if e.End++; len(e.Ends) < policy.MaxSamples {
			e.Ends = append(e.Ends, control.EffectBan{Topic: s.Topic, Target: s.Target, Sentence: policy.ReasonNeverBan.Sentence(), Rule: why, Until: s.Until})
		}
	}
}

// effectOf converts policy's effect.
func effectOf(e policy.Effect) control.Effect {
	return control.Effect{
		Begin: e.Begin, End: e.End, Watched: e.Watched, Unwatched: e.Unwatched,
		Begins: samples(e.Begins), Ends: samples(e.Ends),
	}
}

func samples(list []policy.Sample) (out []control.EffectBan) {
	for _, s := range list {
		out = append(out, control.EffectBan{Topic: s.Topic, Target: s.Target, Sentence: s.Why.Sentence(), Rule: s.Rule, Until: s.Until})
	}
	return out
}

// reloadAs reads the configuration again, tells its effect, and puts it in
// force where it was not only asked for and where it lifts no more bans than
// the request allows.
func (a *agent) reloadAs(ctx context.Context, q control.ReloadRequest) (e control.Effect, err error) {
	a.reloads.Lock()
	defer a.reloads.Unlock()
	next, err := a.next()
	if err == nil {
		if e = a.effect(next); !q.Dry && !q.Yes && e.End > control.Handful {
			err = control.Refuse(control.CodeAsk, "agent reload --yes", "the configuration ends %d bans", e.End)
		}
	}
	if q.Dry {
		return e, err
	}
	a.mu.Lock()
	a.refused = err
	a.mu.Unlock()
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		a.chronicle.Add(history.Event{Kind: history.Config, By: "a reload", Why: "not taken over: " + first})
		return e, err
	}
	a.chronicle.Add(history.Event{Kind: history.Config, By: "a reload", Count: len(next.Files()), Why: fmt.Sprintf("so many files taken over; %d bans begin by it, %d end", e.Begin, e.End)})
	err = a.takeOver(ctx, next)
	if err == nil {
		a.keepLastGood(ctx)
		e.Kernel = a.enforcer.Carry(ctx)
	}
	return e, err
}

// effectOfRules says which bans of now begin and end with other rules in a
// topic.
func (a *agent) effectOfRules(q control.RulesRequest) (control.Effect, error) {
	s := a.current()
	next, err := s.WithRules(q.Topic, settings.Rules(q.Rules))
	if err != nil {
		return control.Effect{}, control.Refuse(control.CodeBad, "", "%v", err)
	}
	e := effectOf(a.ledger.Effect(next.As(a.sharing.Operator())))
	q.Rules.Accept = true
	if before := control.Rules(s.Rules(q.Topic)); before != q.Rules {
		e.Rules = []control.RuleChange{{Topic: q.Topic, Before: before, After: q.Rules}}
	}
	return e, nil
}
