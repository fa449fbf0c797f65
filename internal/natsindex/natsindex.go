// Package natsindex reads the monitoring of NATS servers and says which of them
// can still hand out newly retained messages over MQTT.
//
// A NATS server answers MQTT subscriptions for retained messages from an index
// of its own. One consumer of the stream $MQTT_rmsgs feeds the index. The
// consumer has no replica and may live on any server of the cluster: when that
// server dies, the index stands still, though its own server runs on, accepts
// publications and acknowledges them. Readers who come there see only messages
// that were retained before.
package natsindex

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A State says how the index of a server stands.
type State string

const (
	Unknown State = "unknown" // it cannot be told: Server.Why says why
	Idle    State = "idle"    // no MQTT client came to the server yet, so it has no index
	Fed     State = "fed"     // new messages reach the index
	Lost    State = "lost"    // no new message reaches the index
)

// A Server is a NATS server as its monitoring shows it.
type Server struct {
	Monitor string // the URL that was asked, as it was given
	Name    string // the server's own name; "" where it did not answer
	State   State
	Holder  string // the name of the server that has the consumer of the index, where State is Fed
	Why     string // why State is Unknown
}

// Limits of a reading. Monitoring answers are foreign bytes.
const (
	answerMost    = 4 << 20          // bytes of an answer; 10,000 consumers fit
	consumersMost = 256              // consumers that feed indexes; a server has one
	askTimeout    = 5 * time.Second  // one answer
	readTimeout   = 20 * time.Second // all of them
	serversMost   = 64               // monitoring URLs
)

// retained is the stream of retained messages.
const retained = "$MQTT_rmsgs"

// served is a subject that every server subscribes to once it serves MQTT.
const served = "$MQTT.JSA.any.RD"

// Read asks every monitoring URL, at most 64, and gives a server for each, in order. The
// URLs are those of one cluster. A server is Lost only if every server of the
// cluster is accounted for: it answered, or the leader of the cluster says that it
// is gone.
func Read(ctx context.Context, monitors []string) []Server {
	monitors = monitors[:min(len(monitors), serversMost)]
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	c := client()
	defer c.CloseIdleConnections()
	seen := make([]view, len(monitors))
	each(monitors, func(i int, m string) { seen[i] = look(ctx, c, m) })

	holders := map[string]string{} // subject that feeds an index to the server that has the consumer
	for _, v := range seen {
		for _, subject := range v.feeds {
			holders[subject] = v.name
		}
	}
	subjects := make([]string, 0, len(holders))
	for s := range holders {
		subjects = append(subjects, s)
	}
	slices.Sort(subjects)
	subjects = subjects[:min(len(subjects), consumersMost)]
	gap := unaccounted(seen)
	out := make([]Server, len(monitors))
	each(monitors, func(i int, m string) {
		out[i] = judge(ctx, c, m, seen[i], subjects, holders, gap)
	})
	return out
}

// judge finds which of the subjects the server listens to.
func judge(ctx context.Context, c *http.Client, monitor string, v view, subjects []string, holders map[string]string, gap string) Server {
	s := Server{Monitor: monitor, Name: v.name, State: Unknown}
	if v.err != nil {
		s.Why = v.err.Error()
		return s
	}
	if ok, err := listens(ctx, c, monitor, served, false); err != nil || !ok {
		if s.State = Idle; err != nil {
			s.State, s.Why = Unknown, err.Error()
		}
		return s
	}
	for _, subject := range subjects {
		ok, err := listens(ctx, c, monitor, subject, true)
		if err != nil {
			s.Why = err.Error()
			return s
		}
		if ok {
			s.State, s.Holder = Fed, holders[subject]
			return s
		}
	}
	if gap != "" {
		s.Why = gap
		return s
	}
	s.State = Lost
	return s
}

// unaccounted says which server of the cluster may hold an index without being
// seen, or "".
func unaccounted(seen []view) string {
	names := map[string]bool{}
	clustered := false
	for _, v := range seen {
		names[v.name] = v.err == nil
		clustered = clustered || v.leader != ""
	}
	if !clustered {
		return ""
	}
	for _, v := range seen {
		if v.err != nil || v.leader != v.name {
			continue
		}
		for _, r := range v.replicas {
			if r.Current && !names[r.Name] {
				return "the server " + r.Name + " lives and its monitoring was not read"
			}
		}
		return ""
	}
	return "the leader of the cluster was not read"
}

// Sole names the server whose death would stop every index, where there are
// several servers and one holds all their indexes; otherwise "".
func Sole(servers []Server) string {
	holder, fed := "", 0
	for _, s := range servers {
		if s.State != Fed {
			continue
		}
		if fed++; s.Holder != cmp.Or(holder, s.Holder) {
			return ""
		}
		holder = s.Holder
	}
	if fed < 2 {
		return ""
	}
	return holder
}

// each calls f for all at once and waits.
func each(list []string, f func(int, string)) {
	var wg sync.WaitGroup
	for i, m := range list {
		wg.Go(func() { f(i, m) })
	}
	wg.Wait()
}
