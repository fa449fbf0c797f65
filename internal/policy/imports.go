package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// ImportSource is the treatment of an import: a public list of addresses, or another
// network. It has a rule of its own, which needs no quorum, and is no vote in the
// rules of topics: "any of everyone" is not any of these.
type ImportSource struct {
	// Topics are those in which its claims count.
	Topics []string `json:"topics"`
	// Rule is the action on a target that it names: "watch" (also ""), "suspect" or "ban".
	Rule string `json:"rule,omitempty"`
	// Prefix lists the widest prefixes accepted; default v4/16 and v6/32.
	Prefix []string `json:"prefix,omitempty"`
	// Live is how many of its claims count in a topic; 0 is [DefaultImported].
	Live int `json:"live,omitempty"`
	// PerHour is how many of its new claims count in any hour, more where its own
	// turnover is larger; the rest waits for a person. 0 is no bound: its reader judges
	// the rate, who sees a whole edition.
	PerHour int `json:"per_hour,omitempty"`
}

// Defaults and bounds of an [ImportSource].
const (
	DefaultImported = 100_000
	MaxImported     = 1_000_000
	// MaxImports bounds the cost of a verdict.
	MaxImports = 64
	// DefaultImportPrefix4 and DefaultImportPrefix6 accept the networks that public
	// lists have, such as hijacked ones, and no half continent.
	DefaultImportPrefix4 = 16
	DefaultImportPrefix6 = 32
)

// imported is a compiled [ImportSource].
type imported struct {
	name   string
	action Action
	topics map[ban.Topic]bool
	floor  rules // its prefixes alone
	limits Limits
}

var importRules = map[string]Action{"": Watch, "watch": Watch, "suspect": Suspect, "ban": Ban}

// imports compiles the imports of a source.
func (c *compiler) imports(list map[string]ImportSource) {
	c.imported = map[ban.Operator]*imported{}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		s, key := list[name], "imports."+name
		i, err := ban.ParseImport(name)
		if err != nil {
			c.fault(key, err.Error(), "")
			continue
		}
		x := &imported{name: name, topics: map[ban.Topic]bool{}}
		action, ok := ImportRule(s.Rule)
		if x.action = action; !ok {
			c.fault(key+".rule", fmt.Sprintf("%q is no rule of an import", clip(s.Rule)), `write "watch", "suspect" or "ban"`)
		}
		for _, t := range s.Topics {
			topic, err := ban.ParseTopic(t)
			if err != nil {
				c.fault(key+".topics", err.Error(), "")
			}
			x.topics[topic] = true
		}
		var bad string
		if x.floor.prefix4, x.floor.prefix6, bad = ImportFloors(s.Prefix); bad != "" {
			c.fault(key+".prefix", fmt.Sprintf("%q is not a prefix limit", clip(bad)), `write "v4/24" (8 to 32) or "v6/48" (19 to 128)`)
		}
		if s.PerHour < 0 || s.PerHour > MaxImported {
			c.fault(key+".per_hour", fmt.Sprintf("at most %d claims of an import in an hour", MaxImported), "")
		}
		if s.Live < 0 || s.Live > MaxImported {
			c.fault(key+".live", fmt.Sprintf("at most %d claims of an import count", MaxImported), "")
		}
		x.limits = importLimits(s.Live, s.PerHour)
		c.imported[i.Operator()] = x
	}
	if len(list) > MaxImports {
		c.fault("imports", fmt.Sprintf("at most %d imports", MaxImports), "")
	}
}

// ImportFloors reads the widest prefixes that an import may name; bad is the first text
// that is none.
func ImportFloors(list []string) (four, six int, bad string) {
	return parsePrefixFloors(append([]string{fmt.Sprintf("v4/%d", DefaultImportPrefix4), fmt.Sprintf("v6/%d", DefaultImportPrefix6)}, list...))
}

// ImportRule reads the rule of an import.
func ImportRule(s string) (Action, bool) {
	action, ok := importRules[s]
	return action, ok
}

// importLimits are those of an import.
func importLimits(live, perHour int) Limits {
	l := DefaultLimits()
	l.PerHour, l.Live, l.Addresses, l.Decided = cmp.Or(perHour, 1<<24), cmp.Or(live, DefaultImported), 1<<31-1, 1<<24
	return l
}

// Import gives the name of an import by the operator as which it stands in the
// ledger; ok is false for everybody else.
func (p *Policy) Import(o ban.Operator) (name string, ok bool) {
	if x := p.imported[o]; x != nil {
		return x.name, true
	}
	return "", false
}

// ImportAccepts says whether a claim of target by an import is looked at in a topic
// at all.
func (p *Policy) ImportAccepts(o ban.Operator, topic ban.Topic, target ban.Target) bool {
	x := p.imported[o]
	return x != nil && x.topics[topic] && !x.floor.tooWide(target)
}

// counts gives the worth of a claim of an import: [ReasonNone] where it bans,
// [ReasonNoticed] where it is watched or suspected only, anything else for nothing. One that
// waits counts for nothing: nobody approved it.
func (x *imported) counts(topic ban.Topic, v *Vote, now int64) Reason {
	switch {
	case v.Quarantined:
		return ReasonQuarantine
	case v.Rejected:
		return ReasonRejected
	case v.End.Unix() <= now:
		return ReasonExpired
	case !x.topics[topic]:
		return ReasonUnknown
	case x.floor.tooWide(v.Target):
		return ReasonPrefix
	case v.Held:
		return ReasonHeld
	case x.action < Ban:
		return ReasonNoticed
	}
	return ReasonNone
}

// judgeImports is the verdict of the imports alone: the strongest of their rules,
// and of equal ones the one that lasts longest.
func (p *Policy) judgeImports(q *Question, now int64) (verdict Verdict) {
	if len(p.imported) == 0 {
		return verdict
	}
	var since int64
	for i := range q.Votes {
		v := &q.Votes[i]
		x := p.imported[v.Operator]
		if v.Own || x == nil {
			continue
		}
		if why := x.counts(q.Topic, v, now); why != ReasonNone && why != ReasonNoticed {
			continue
		}
		if x.action > verdict.Action || x.action == verdict.Action && (v.End.After(verdict.Until) || v.End.Equal(verdict.Until) && x.name < verdict.Rule) {
			verdict = Verdict{Action: x.action, Until: v.End, Why: ReasonImported, Rule: x.name}
			if !q.Brief {
				verdict.By = []ban.Operator{v.Operator}
			}
		}
		since = max(since, v.Since.Unix())
	}
	if verdict.Action == Ignore {
		return verdict
	}
	if r := p.topics[q.Topic]; r != nil && verdict.Action == Ban {
		if met, _ := r.disputed(q.Disputes, now); met != nil {
			verdict.Action, verdict.Why, verdict.Rule = Watch, ReasonDisputed, met.text
		}
	}
	if why, shared := protects(q.Caution, q.Target); shared {
		end := min(verdict.Until.Unix(), since+seconds(cautionTTL))
		if end <= now {
			return Verdict{Why: ReasonCaution, Rule: why}
		}
		verdict.Action, verdict.Until = min(verdict.Action, Watch), time.Unix(end, 0)
		verdict.Why, verdict.Rule = ReasonCaution, why
	}
	return verdict
}

// and joins a verdict with that of the imports: the stronger action holds, and of
// two bans the later end is when the ban lapses.
func (v Verdict) and(imports Verdict) Verdict {
	switch {
	case imports.Why == ReasonNone, imports.Action < v.Action:
		return v
	case imports.Action > v.Action, v.Why == ReasonNone:
		return imports
	case v.Action == Ignore:
		return v
	}
	by := slices.Concat(v.By, imports.By)
	if imports.Until.After(v.Until) {
		v = imports
	}
	v.By = by
	return v
}
