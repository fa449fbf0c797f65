package natsindex

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// A view is one server's account of itself and of its cluster.
type view struct {
	name     string
	feeds    []string // subjects of the consumers here that feed an index
	leader   string   // of the cluster, "" without one
	replicas []replica
	err      error
}

// A replica is another server as the leader of the cluster sees it.
type replica struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
}

// Answers of the monitoring port, as far as they are used here.
type (
	varz struct {
		Name string `json:"server_name"`
	}
	jsz struct {
		Meta struct {
			Leader   string    `json:"leader"`
			Replicas []replica `json:"replicas"`
		} `json:"meta_cluster"`
		Accounts []struct {
			Streams []struct {
				Name      string `json:"name"`
				Consumers []struct {
					Config struct {
						Deliver string `json:"deliver_subject"`
					} `json:"config"`
				} `json:"consumer_detail"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	subsz struct {
		List []struct {
			Subject string `json:"subject"`
		} `json:"subscriptions_list"`
	}
)

// client follows no redirection: an answer is the monitoring port's or none.
func client() *http.Client {
	return &http.Client{
		Timeout:       askTimeout,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 2},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// look reads the name of a server and the consumers that it has.
func look(ctx context.Context, c *http.Client, monitor string) (v view) {
	var who varz
	if v.err = ask(ctx, c, monitor, "/varz", nil, &who); v.err != nil {
		return v
	}
	if v.name = who.Name; v.name == "" {
		v.err = errors.New("it names no server: is it a NATS server's monitoring port?")
		return v
	}
	var all jsz
	if v.err = ask(ctx, c, monitor, "/jsz", url.Values{"consumers": {"true"}, "config": {"true"}}, &all); v.err != nil {
		return v
	}
	v.feeds = all.feeds()
	v.leader, v.replicas = all.Meta.Leader, all.Meta.Replicas
	return v
}

// feeds gives the subjects to which retained messages are delivered.
func (j *jsz) feeds() (out []string) {
	for _, a := range j.Accounts {
		for _, s := range a.Streams {
			if s.Name != retained {
				continue
			}
			for _, c := range s.Consumers {
				if c.Config.Deliver != "" && len(out) < consumersMost {
					out = append(out, c.Config.Deliver)
				}
			}
		}
	}
	return out
}

// listens says whether the server subscribes to a subject: by this very name,
// or by any filter.
func listens(ctx context.Context, c *http.Client, monitor, subject string, exact bool) (bool, error) {
	var a subsz
	if err := ask(ctx, c, monitor, "/subsz", url.Values{"subs": {"true"}, "test": {subject}}, &a); err != nil {
		return false, err
	}
	for _, s := range a.List {
		if s.Subject == subject || !exact && strings.HasPrefix(s.Subject, "$MQTT.JSA.") {
			return true, nil
		}
	}
	return false, nil
}

// ask gets one answer.
func ask(ctx context.Context, c *http.Client, monitor, path string, query url.Values, to any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(monitor, "/")+path+"?"+query.Encode(), nil)
	if err != nil {
		return fmt.Errorf("monitoring %s: %w", path, err)
	}
	a, err := c.Do(r)
	if err != nil {
		return fmt.Errorf("monitoring %s: %w", path, err)
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("monitoring %s: %s", path, http.StatusText(a.StatusCode))
	}
	b, err := io.ReadAll(io.LimitReader(a.Body, answerMost+1))
	switch {
	case err != nil:
		return fmt.Errorf("monitoring %s: %w", path, err)
	case len(b) > answerMost:
		return fmt.Errorf("monitoring %s: more than %d bytes", path, answerMost)
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("monitoring %s: %w", path, err)
	}
	return nil
}
