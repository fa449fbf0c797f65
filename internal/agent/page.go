package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/keys"
	"banmesh/internal/ledger"
	"banmesh/internal/page"
	"banmesh/internal/settings"
	"banmesh/internal/wire"
)

// countsFile keeps the counts of the page's charts, below the state directory.
const countsFile = "page-counts.json"

// pageSide stands for the page in the place of the commands: it reads the
// configuration's files, and changes switches of topics beside them.
type pageSide struct {
	o       Options
	current func() *settings.Settings
	reload  func(context.Context, control.ReloadRequest) (control.Effect, error)

	switching sync.Mutex
}

// newPage makes the page where [page] asks for one; nil where it does not.
func (a *agent) newPage() *page.Server {
	conf := a.current().Config().Page
	if conf.Listen == "" {
		return nil
	}
	side := &pageSide{o: a.o, current: a.current, reload: a.reloadAs}
	return page.New(page.Options{
		Listen: conf.Listen, URL: conf.URL, Certificate: conf.Certificate, Key: conf.Key, Nodes: conf.Nodes, Counts: filepath.Join(a.o.StateDir, countsFile), Now: a.now, Log: a.log.With("part", "page"),
		Topics: side.topics, Examine: a.checkup.examine, Trial: side.trial, Why: side.why, Harmless: side.harmless, Replay: side.replay, Switch: side.set, Invite: side.invite,
	})
}

// runPage shows the page until ctx ends; where there is none it does nothing.
func (a *agent) runPage(ctx context.Context, client *control.Client) error {
	if a.page == nil {
		return nil
	}
	return a.page.Run(ctx, client)
}

// topics lists the topics as `agent topics list` does.
func (p *pageSide) topics() (list []page.Topic) {
	for _, t := range p.current().Topics() {
		list = append(list, page.Topic{
			Topic: t.Topic, Title: t.Title, Wallets: t.Definition.Target == "wallet", Detectable: t.Detectable,
			Detect: t.Detect, Subscribe: t.Subscribe, Publish: t.Publish, Simulate: t.Simulate, Observe: t.Observe, Policy: t.Policy, OnPage: t.OnPage,
		})
	}
	return list
}

// trial tries a filter on pasted lines.
func (p *pageSide) trial(ctx context.Context, q page.TrialRequest) (*detect.TrialReport, []detect.TrialLine, error) {
	var lines []detect.TrialLine
	t := detect.Trial{
		Spec: q.Spec, Rule: q.Rule, Topics: p.current().Definitions(), Log: "-", In: strings.NewReader(q.Lines),
		Each: func(l detect.TrialLine) error {
			lines = append(lines, l)
			return nil
		},
	}
	r, err := t.Run(ctx)
	return r, lines, err
}

// why gives a topic's account of a line.
func (p *pageSide) why(topic ban.Topic, line string) detect.Explanation {
	t, ok := p.current().Find(topic)
	if !ok || t.Definition.Detect == nil {
		return detect.Explanation{}
	}
	found, err := detect.Explain(detect.Options{Jails: []detect.Jail{{Definition: t.Definition}}}, []byte(line), false, "")
	if err != nil || len(found) == 0 {
		return detect.Explanation{} // the trial said why
	}
	return found[0]
}

// harmless gives the lines of a topic's definition that must not match.
func (p *pageSide) harmless(topic ban.Topic) (lines []string) {
	t, ok := p.current().Find(topic)
	if !ok {
		return nil
	}
	for _, s := range t.Definition.Samples {
		if s.Target == "" && !s.Journal {
			lines = append(lines, s.Line)
		}
	}
	return lines
}

// replay tries the rules in force on the history of claims, or others in one topic:
// of those an empty one is as in force.
func (p *pageSide) replay(ctx context.Context, last time.Duration, other *control.RulesRequest) (t ledger.Trial, warn, err error) {
	if other != nil {
		if _, ok := p.current().Find(other.Topic); !ok {
			return t, nil, control.Refuse(control.CodeMissing, "", "no topic %.64q is defined", other.Topic)
		}
		now := p.current().Rules(other.Topic)
		q := *other
		q.Rules.Ban, q.Rules.Watch = cmp.Or(q.Rules.Ban, now.Ban), cmp.Or(q.Rules.Watch, now.Watch)
		q.Rules.Suspect, q.Rules.Require = now.Suspect, now.Require
		other = &q
	}
	t, warn, err = TryPolicy(ctx, p.o.ConfigDir, p.o.StateDir, other, func(f func(ledger.Event) error) error {
		return ledger.HistorySince(filepath.Join(p.o.StateDir, HistoryDirectory), time.Now().Add(-last), func(e ledger.Event) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f(e)
		})
	})
	if errors.Is(err, ledger.ErrUnknown) {
		return t, warn, nil // nothing happened yet
	}
	return t, warn, err
}

// set sets a switch of a topic in the file of switches, and puts it in force. Where it
// is refused, or ends more bans than was said yes to, the file is as it was before. A
// switch as the configuration's files have it is in the file no longer.
func (p *pageSide) set(ctx context.Context, q page.SwitchRequest) (control.Effect, error) {
	p.switching.Lock()
	defer p.switching.Unlock()
	t, ok := p.current().Find(q.Topic)
	switch {
	case !ok:
		return control.Effect{}, control.Refuse(control.CodeMissing, "", "no topic %.64q is defined", q.Topic)
	case q.Field == "detect" && q.Value && !t.Detectable:
		return control.Effect{}, control.Refuse(control.CodeRefused, "", "topic %s has no filter: nothing in a log shows its offenders", q.Topic)
	}
	value := &q.Value
	if files, err := settings.Load(p.o.ConfigDir, ""); err == nil {
		x, _ := files.Find(q.Topic)
		if map[string]bool{"detect": x.Detect, "subscribe": x.Subscribe, "publish": x.Publish}[q.Field] == q.Value {
			value = nil
		}
	}
	before, err := config.SetSwitch(p.o.StateDir, string(q.Topic), q.Field, value)
	if err != nil {
		return control.Effect{}, err
	}
	effect, err := p.reload(ctx, control.ReloadRequest{Yes: q.Yes})
	if err == nil {
		return effect, nil
	}
	_, undo := config.SetSwitch(p.o.StateDir, string(q.Topic), q.Field, before)
	if undo == nil { // the agent says again that its files and its rules agree
		_, undo = p.reload(ctx, control.ReloadRequest{Yes: true})
	}
	if undo != nil {
		err = fmt.Errorf("%w; the switch could not be put back: %w", err, undo)
	}
	return control.Effect{}, err
}

// invite signs an invitation with the operator's root key, where that is here.
func (p *pageSide) invite(_ context.Context, q page.InviteRequest) (string, error) {
	o, err := keys.OpenStore(p.o.StateDir)
	if err != nil {
		return "", err
	}
	now := time.Now()
	v := &wire.Invitation{
		Network: p.current().Config().Network, Issued: now, Note: q.Note, Expires: now.AddDate(0, 0, q.Days),
		Brokers: slices.Clone(q.Brokers), Topics: slices.Clone(q.Topics),
	}
	if len(v.Brokers) == 0 {
		return "", errors.New("an invitation names a broker that others can reach")
	}
	if q.Self {
		x := wire.Trusted{Weight: 100, Name: "self", Operator: o.Operator()}
		if card, _ := o.Card(); card != nil {
			x.Name = card.Name
		}
		v.Trusted = append(v.Trusted, x)
	}
	return v.Sign(o.Root())
}
