package api

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/settings"
)

// Status gives the state of the node, now.
func (s *Server) Status(ctx context.Context) control.Status {
	conf := s.o.Settings()
	stats := s.o.Ledger.Stats()
	mode, why := s.o.Firewall.Enforcement()
	d := s.o.Detection.Status()
	out := control.Status{
		Version: s.o.Version, Started: s.o.Started, PID: os.Getpid(), Network: conf.Config().Network,
		Operator: s.o.Sharing.Operator().String(), Node: s.o.Sharing.Node().String(),
		Enforcement: mode, Reason: why, Bans: stats.Banned, Watched: stats.Watched, Waiting: stats.Waiting,
		Topics: s.topics(ctx, conf), Sources: sources(d), Brokers: s.o.Sharing.Brokers(), Broker: s.o.Sharing.Embedded(),
		Compat:   s.compat(),
		Lists:    s.o.Lists.List(),
		Vallumd:  s.vallumds(),
		Page:     s.pageURL(),
		Shielded: s.o.Shielded(ban.Target{}),
		Notify:   s.o.Messages.Status(),
		Warnings: s.warnings(ctx, conf, d),
	}
	for _, x := range d.Sources {
		out.Cut, out.Dropped = out.Cut+x.Status.Cut, out.Dropped+x.Status.Dropped
	}
	if g, ok := s.o.Gate(ctx); ok && g.Running {
		g.Wallets = []control.WalletCount{}
		out.Gate = &g
	}
	return out
}

// Warnings gives the conditions that hold now, without the rest of the status.
func (s *Server) Warnings(ctx context.Context) []control.Warning {
	return s.warnings(ctx, s.o.Settings(), s.o.Detection.Status())
}

func (s *Server) warnings(ctx context.Context, conf *settings.Settings, d detect.Status) []control.Warning {
	list := []control.Warning{}
	list = append(list, s.o.Firewall.Warnings(ctx)...)
	list = append(list, s.o.Sharing.Warnings()...)
	if n := len(conf.Warnings()); n > 0 {
		list = append(list, Undone.Warn(fmt.Sprintf("%d things that the configuration asks for are not done", n), ""))
	}
	list = append(list, s.detectionWarnings(conf, d)...)
	list = append(list, s.peerWarnings()...)
	list = append(list, s.messageWarnings()...)
	return append(list, s.o.Warnings(ctx)...)
}

// Peers gives the operators that the rules name or that are heard, by name.
func (s *Server) Peers() []control.Peer {
	return peers(s.o.Ledger.Peers.List(), s.o.Sharing.Feeds(), s.refusedOf, s.shareOf)
}

// topics gives the topics that the node does something with.
func (s *Server) topics(ctx context.Context, conf *settings.Settings) []control.TopicStatus {
	counters, _ := s.o.Firewall.Counters(ctx)
	operators := s.o.Firewall.Operators(ctx)
	bans, own := map[ban.Topic]int{}, map[ban.Topic]int{}
	_, entries := s.o.Table.Snapshot()
	for e := range entries {
		bans[e.Topic]++
		if e.Here {
			own[e.Topic]++
		}
	}
	list := []control.TopicStatus{}
	for _, t := range conf.Topics() {
		if !t.Detect && !t.Subscribe && !t.Publish && bans[t.Topic] == 0 {
			continue
		}
		c := counters[t.Topic]
		list = append(list, control.TopicStatus{
			Topic: t.Topic, Detect: t.Detect, Simulate: t.Simulate, Subscribe: t.Subscribe, Publish: t.Publish, Policy: s.rule(t),
			Own: own[t.Topic], Bans: bans[t.Topic], Packets: c.Packets, Bytes: c.Bytes,
			Observe: t.Observe, Operators: operators[t.Topic],
		})
	}
	return list
}

// detectionWarnings gives the conditions of logs and of their lines.
func (s *Server) detectionWarnings(conf *settings.Settings, d detect.Status) (list []control.Warning) {
	list = append(list, logWarnings(d)...)
	if len(d.Sources) == 0 && len(d.Jails) > 0 {
		list = append(list, NoSource.Warn("no log is read, so nothing is detected", ""))
	}
	list = append(list, s.doubts(conf, d)...)
	if d.Pending > 0 {
		list = append(list, Undecided.Warn(fmt.Sprintf("%d decisions could not be recorded and are kept", d.Pending), ""))
	}
	if d.SaveError != "" {
		list = append(list, DetectState.Warn(fmt.Sprintf("positions in the logs cannot be saved in %s; after a restart, lines since the last save are read again: %s", d.StatePath, d.SaveError), "df -h "+filepath.Dir(d.StatePath)+"; make room or mend its rights: saving is tried each second"))
	}
	return list
}

// moments gives the topics whose log showed a client's own lines, or a pause of
// this node, of late.
func (s *Server) moments(d detect.Status) (list []control.Warning) {
	for _, j := range d.Jails {
		if j.Tainted > 0 && s.o.Now().Sub(j.TaintedAt) < doubtFor {
			list = append(list, Tainted.Warn(fmt.Sprintf("%s: %d log lines that a client may have written did not count", j.Topic, j.Tainted), ""))
		}
		if j.Stalled > 0 && s.o.Now().Sub(j.StalledAt) < doubtFor {
			list = append(list, Stalled.Warn(fmt.Sprintf("%s: this node stood still at %s: weak log lines of such moments, %d so far, count for nobody", j.Topic, j.StalledAt.Format(time.TimeOnly), j.Stalled), ""))
		}
	}
	return list
}

// doubtFor is how long a line that was not believed is worth a warning.
const doubtFor = time.Hour

// doubts gives the conditions of topics whose lines are not believed.
func (s *Server) doubts(conf *settings.Settings, d detect.Status) (list []control.Warning) {
	untracked := s.o.Firewall.Untracked()
	for _, t := range conf.Topics() {
		wants := t.Detect && (t.Publish || !t.Definition.Detect.Corroborate.IsZero()) && !t.Believed && !(t.Scope.All && len(t.Scope.Ports) == 0)
		if !wants || s.o.Firewall.Remembers() && t.Scope.Remembers() && untracked == nil {
			continue
		}
		mode, why := s.o.Firewall.Enforcement()
		if untracked != nil {
			why = untracked.Error()
		}
		if why != "" {
			why = ", " + why
		}
		list = append(list, NoProof.Warn(
			fmt.Sprintf("%s: a log line should count only if the kernel saw its address connect, and it cannot be asked here (%s%s): lines are believed without, and the bans are weak to others", t.Topic, mode, why),
			fmt.Sprintf("enforce with nftables, or say that the log is believed: corroborate = \"off\" in [topics.%s]", t.Topic)))
	}
	list = append(list, s.moments(d)...)
	for _, j := range d.Jails {
		t, ok := conf.Find(j.Topic)
		if !ok || j.Uncorroborated == 0 || s.o.Now().Sub(j.DoubtedAt) > doubtFor || t.Scope.Remember == 0 {
			continue
		}
		list = append(list, Uncorroborated.Warn(
			fmt.Sprintf("%s: %d log lines named addresses that the kernel saw no connection of, the last one %s, and did not count: forged lines, or a proxy in front of the service", j.Topic, j.Uncorroborated, j.Doubted),
			fmt.Sprintf("agent explain-line --topic %s 'LINE'; behind a proxy: corroborate = \"off\" in [topics.%s]", j.Topic, j.Topic)))
	}
	return list
}

// rule is the expression that bans in a topic; without any the operator's own other nodes
// are believed, where there are some.
func (s *Server) rule(t settings.Topic) string {
	if t.Policy == "" && t.Subscribe && s.o.Sharing.Siblings() > 0 {
		return "own operator"
	}
	return t.Policy
}
