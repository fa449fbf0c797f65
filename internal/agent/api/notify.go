package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"banmesh/internal/control"
	"banmesh/internal/notify"
)

// Messages tells people of events.
type Messages interface {
	Status() []control.Notify
	// Test sends a message to one receiver, or to all for "".
	Test(ctx context.Context, name string) ([]control.NotifyTest, error)
	// Fault says why messages that wait are not kept on disk, nil where they are.
	Fault() error
}

// failsFor is how long a receiver is tried in vain before that is worth a warning.
const failsFor = 10 * time.Minute

// messageWarnings gives the conditions of receivers.
func (s *Server) messageWarnings() (list []control.Warning) {
	if err := s.o.Messages.Fault(); err != nil {
		list = append(list, MessagesFail.Warn(fmt.Sprintf("messages that wait would be lost by a restart: %v", err), "df -h"))
	}
	for _, x := range s.o.Messages.Status() {
		if x.Failing.IsZero() || s.o.Now().Sub(x.Failing) < failsFor {
			continue
		}
		list = append(list, MessagesFail.Warn(
			fmt.Sprintf("%s (%s) has taken no message since %s, and %d things wait: %s", x.Name, x.Type, x.Failing.Local().Format(time.DateTime), x.Waiting, x.Error),
			"agent notify test "+x.Name))
	}
	return list
}

// notifyTest sends test messages and answers with the receivers' answers.
func (s *Server) notifyTest(r *http.Request) (any, error) {
	var q control.NotifyTestRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	list, err := s.o.Messages.Test(r.Context(), q.Name)
	if errors.Is(err, notify.ErrUnknown) {
		return nil, control.Refuse(control.CodeMissing, "agent notify lists them", "no receiver is named %.64q", q.Name)
	}
	return list, err
}

// A messageCollector gives the numbers of the receivers of messages, of whom the
// configuration may name twenty.
type messageCollector struct{ s *Server }

var (
	descMessagesSent    = prometheus.NewDesc("banmesh_notify_messages_total", "Messages that a receiver took.", []string{"receiver"}, nil)
	descMessagesFailed  = prometheus.NewDesc("banmesh_notify_failures_total", "Attempts to send a receiver a message that failed.", []string{"receiver"}, nil)
	descMessagesWaiting = prometheus.NewDesc("banmesh_notify_waiting", "Things that a receiver is to be told.", []string{"receiver"}, nil)
)

// Describe implements [prometheus.Collector].
func (messageCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descMessagesSent
	ch <- descMessagesFailed
	ch <- descMessagesWaiting
}

// Collect implements [prometheus.Collector].
func (c messageCollector) Collect(ch chan<- prometheus.Metric) {
	for _, x := range c.s.o.Messages.Status() {
		ch <- prometheus.MustNewConstMetric(descMessagesSent, prometheus.CounterValue, float64(x.Sent), x.Name)
		ch <- prometheus.MustNewConstMetric(descMessagesFailed, prometheus.CounterValue, float64(x.Failed), x.Name)
		ch <- prometheus.MustNewConstMetric(descMessagesWaiting, prometheus.GaugeValue, float64(x.Waiting), x.Name)
	}
}
