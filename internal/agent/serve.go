package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect/source"
	"banmesh/internal/export"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
)

// handler answers on the control socket.
func (a *agent) handler() (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", control.Handle(func(r *http.Request) (any, error) { return a.status(r.Context()), nil }))
	mux.HandleFunc("GET /v1/jail", control.Handle(a.jail))
	mux.HandleFunc("GET /v1/bans", control.Handle(a.bans))
	a.registerOwnBans(mux)
	mux.HandleFunc("GET /v1/explain", control.Handle(a.explain))
	mux.HandleFunc("POST /v1/reload", control.Handle(func(r *http.Request) (any, error) { return struct{}{}, a.reload(r.Context()) }))
	mux.HandleFunc("GET /v1/gate", control.Handle(a.gate.status))
	a.registerDecisions(mux)
	mux.Handle("GET /metrics", a.metrics())
	lists, err := a.exports(a.current())
	if err != nil {
		return nil, err
	}
	lists.RegisterLocal(mux)
	return mux, nil
}

// exports answers programs that ask who is banned.
func (a *agent) exports(s *settings.Settings) (*export.Handler, error) {
	o := export.Options{Bans: a.table, Offences: reports{a}, Log: a.log, ClientHeader: s.Config().HTTP.ClientHeader}
	for _, p := range s.Config().HTTP.TrustedProxies {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return nil, s.Config().At("http.trusted_proxies", "%v", err)
		}
		o.TrustedProxies = append(o.TrustedProxies, prefix)
	}
	h, err := export.New(o)
	if err != nil {
		return nil, s.Config().At("http", "%v", err)
	}
	return h, nil
}

// serveOthers serves checks and lists over TCP where that is configured.
func (a *agent) serveOthers(ctx context.Context) error {
	s := a.current()
	if s.Config().HTTP.Listen == "" {
		return nil
	}
	h, err := a.exports(s)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	h.Register(mux)
	mux.Handle("GET /metrics", a.metrics())
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.Config().HTTP.Listen)
	if err != nil {
		return fmt.Errorf("serving lists: %w", err)
	}
	return control.Serve(ctx, l, mux, a.log)
}

// status is the truth about the node, now.
func (a *agent) status(ctx context.Context) control.Status {
	checked := a.current()
	stats := a.ledger.Stats()
	counters, warnings := a.enforcer.status(ctx)
	brokers, more := a.sharing.status()
	warnings = append(append(warnings, more...), a.warnRefused()...)
	mode, why := a.enforcer.enforcement()
	operators := a.enforcer.operators(ctx)
	s := control.Status{
		Version: a.o.Version, Started: a.started, PID: os.Getpid(), Network: checked.Config().Network,
		Operator: a.sharing.identity.Operator().String(), Node: a.sharing.identity.Node().String(),
		Enforcement: mode, Reason: why, Bans: stats.Banned, Watched: stats.Watched,
		Topics: []control.TopicStatus{}, Sources: []control.SourceStatus{}, Brokers: brokers, Warnings: []control.Warning{},
	}
	if a.sharing.broker != nil {
		s.Broker = a.sharing.broker.Addr().String()
	}
	bans, own := a.counts()
	for _, t := range checked.Topics() {
		if !t.Detect && !t.Subscribe && !t.Publish && bans[t.Topic] == 0 {
			continue
		}
		c := counters[t.Topic]
		s.Topics = append(s.Topics, control.TopicStatus{
			Topic: t.Topic, Detect: t.Detect, Simulate: t.Simulate, Subscribe: t.Subscribe, Publish: t.Publish, Policy: t.Policy,
			Own: own[t.Topic], Bans: bans[t.Topic], Packets: c.Packets, Bytes: c.Bytes,
			Observe: t.Observe, Operators: operators[t.Topic],
		})
	}
	d := a.detection.get().Status()
	for i, x := range d.Sources {
		src := control.SourceStatus{
			Name: sourceName(x.Spec), Topics: []ban.Topic{}, Read: x.Status.Read, Matched: x.Matched, Ignored: x.Ignored,
			Unmatched: x.Unmatched, Cut: x.Status.Cut, Dropped: x.Status.Dropped, LastLine: x.Status.LastLine, Error: x.Status.LastError,
		}
		for _, stream := range x.Status.Streams {
			src.Backlog += stream.Backlog
		}
		for _, j := range d.Jails {
			if slices.Contains(j.Sources, i) {
				src.Topics = append(src.Topics, j.Topic)
			}
		}
		s.Sources = append(s.Sources, src)
		if src.Error != "" {
			warnings = append(warnings, control.Warning{Code: "source", Text: src.Name + ": " + src.Error})
		}
	}
	if len(d.Sources) == 0 && len(d.Jails) > 0 {
		warnings = append(warnings, control.Warning{Code: "no-source", Text: "no log is read, so nothing is detected", Fix: "name the log in agent.toml: [topics.sshd] files = [\"/var/log/auth.log\"]"})
	}
	if n := len(checked.Warnings()); n > 0 {
		warnings = append(warnings, control.Warning{Code: "config", Text: fmt.Sprintf("%d things that the configuration asks for are not done", n), Fix: "agent check lists them"})
	}
	warnings = append(warnings, a.doubts(d)...)
	if d.Pending > 0 {
		warnings = append(warnings, control.Warning{Code: "pending", Text: fmt.Sprintf("%d decisions could not be recorded and are kept", d.Pending)})
	}
	if d.SaveError != "" {
		warnings = append(warnings, control.Warning{Code: "detect-state", Text: "positions in the logs cannot be saved: " + d.SaveError})
	}
	warnings = append(warnings, a.guard.warnings()...)
	s.Warnings = append(s.Warnings, warnings...)
	return s
}

// counts gives the bans in force and our own, by topic.
func (a *agent) counts() (bans, own map[ban.Topic]int) {
	bans, own = map[ban.Topic]int{}, map[ban.Topic]int{}
	_, entries := a.table.Snapshot()
	for e := range entries {
		bans[e.Topic]++
		if e.Here {
			own[e.Topic]++
		}
	}
	return bans, own
}

// maxListed bounds one listing; a longer one is asked for by topic, or read
// from /v1/bans.json, which streams.
const maxListed = 200_000

func (a *agent) bans(r *http.Request) (any, error) {
	q := r.URL.Query()
	f := ledger.Filter{}
	if t := q.Get("topic"); t != "" {
		topic, err := ban.ParseTopic(t)
		if err != nil {
			return nil, &control.RefusedError{Code: control.CodeBad, Text: err.Error()}
		}
		f.Topic = topic
	}
	switch origin := q.Get("origin"); {
	case origin == "here":
		f.Own = true
	case origin != "":
		o, ok := a.ledger.Policy().Operator(origin)
		if !ok {
			var err error
			if o, err = ban.ParseOperator(origin); err != nil {
				return nil, &control.RefusedError{Code: control.CodeMissing, Text: fmt.Sprintf("no operator %q is known", origin), Hint: "see `agent peers list`"}
			}
		}
		f.Operator = o
	}
	list := []control.Ban{}
	for s := range a.ledger.Bans(f) {
		if len(list) == maxListed {
			return nil, &control.RefusedError{Code: control.CodeRefused, Text: fmt.Sprintf("more than %d bans", maxListed), Hint: "ask for one topic, or read /v1/bans.json from the socket, which streams"}
		}
		list = append(list, banOf(s))
	}
	if _, ok := a.current().Find(f.Topic); len(list) == 0 && f.Topic != "" && !ok {
		return nil, &control.RefusedError{Code: control.CodeMissing, Text: fmt.Sprintf("no topic %q is defined", f.Topic), Hint: "see `agent topics list`"}
	}
	return list, nil
}

// here is the origin of this node's own bans.
const here = "here"

func banOf(s ledger.Standing) control.Ban {
	b := control.Ban{Target: s.Target, Topic: s.Topic, Until: s.Until, Origin: []string{}, Rule: s.Rule}
	if s.Why == policy.ReasonLocal {
		b.Origin = append(b.Origin, here)
	}
	for i, c := range s.Claims {
		if i == 0 || int(c.Hits) > b.Hits {
			b.Hits = int(c.Hits)
		}
		if i == 0 || c.Operator == "" {
			b.Class = c.Class
		}
	}
	for _, name := range s.By {
		if name != "this node" {
			b.Origin = append(b.Origin, name)
		}
	}
	return b
}

// sourceName names a source for people.
func sourceName(s source.Spec) string {
	var parts []string
	if len(s.Journal) > 0 {
		parts = append(parts, "the journal ("+strings.Join(s.Journal, " or ")+")")
	}
	parts = append(parts, s.Files...)
	for _, d := range s.Docker {
		parts = append(parts, "container "+d)
	}
	parts = append(parts, s.Syslog...)
	if s.Stdin {
		parts = append(parts, "standard input")
	}
	return strings.Join(parts, ", ")
}
