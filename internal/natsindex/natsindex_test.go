package natsindex

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// A fake is a NATS server's monitoring port.
type fake struct {
	name     string
	subject  string   // where its index listens; "" without MQTT
	holds    []string // subjects that consumers here feed
	leader   string
	replicas []replica
	down     bool
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/varz":
		fmt.Fprintf(w, `{"server_name": %q}`, f.name)
	case "/jsz":
		var consumers []string
		for _, h := range f.holds {
			consumers = append(consumers, fmt.Sprintf(`{"name": "x", "config": {"deliver_subject": %q}}`, h))
		}
		replicas, _ := json.Marshal(f.replicas)
		fmt.Fprintf(w, `{"meta_cluster": {"leader": %q, "replicas": %s}, "account_details": [{"stream_detail": [{"name": "$MQTT_msgs", "consumer_detail": [{"config": {"deliver_subject": "$MQTT.sub.another"}}]}, {"name": "$MQTT_rmsgs", "consumer_detail": [%s]}]}]}`,
			f.leader, replicas, strings.Join(consumers, ","))
	case "/subsz":
		var list []string
		if test := r.URL.Query().Get("test"); f.subject != "" && test == served {
			list = append(list, `{"subject": "$MQTT.JSA.*.RD"}`)
		} else if f.subject != "" && test == f.subject {
			list = append(list, fmt.Sprintf(`{"subject": %q}`, test))
		}
		// Somebody who listens to everything feeds no index.
		list = append(list, `{"subject": ">"}`)
		fmt.Fprintf(w, `{"subscriptions_list": [%s]}`, strings.Join(list, ","))
	}
}

func read(t *testing.T, fakes ...*fake) (states []State, out []Server) {
	t.Helper()
	var urls []string
	for _, f := range fakes {
		s := httptest.NewServer(f)
		t.Cleanup(s.Close)
		if f.down {
			s.Close()
		}
		urls = append(urls, s.URL)
	}
	out = Read(t.Context(), urls)
	for _, s := range out {
		states = append(states, s.State)
	}
	return states, out
}

func TestAnIndexIsLostWithTheServerThatFeedsIt(t *testing.T) {
	t.Parallel()
	others := func(down string, names ...string) (out []replica) {
		for _, n := range names {
			out = append(out, replica{n, n != down})
		}
		return out
	}
	for name, c := range map[string]struct {
		servers []*fake
		want    []State
		sole    string
	}{
		"a server alone":  {[]*fake{{name: "a", subject: "sa", holds: []string{"sa"}}}, []State{Fed}, ""},
		"nobody came yet": {[]*fake{{name: "a"}}, []State{Idle}, ""},
		"each on another": {[]*fake{
			{name: "a", subject: "sa", holds: []string{"sb"}, leader: "a", replicas: others("", "b")},
			{name: "b", subject: "sb", holds: []string{"sa"}, leader: "a"},
		}, []State{Fed, Fed}, ""},
		"all on one": {[]*fake{
			{name: "a", subject: "sa", leader: "a", replicas: others("", "b")},
			{name: "b", subject: "sb", holds: []string{"sa", "sb"}, leader: "a"},
		}, []State{Fed, Fed}, "b"},
		"the holder of one died": {[]*fake{
			{name: "a", subject: "sa", holds: []string{"sb"}, leader: "a", replicas: others("c", "b", "c")},
			{name: "b", subject: "sb", leader: "a"},
			{name: "c", down: true},
		}, []State{Lost, Fed, Unknown}, ""},
		"it lives, and does not answer": {[]*fake{
			{name: "a", subject: "sa", holds: []string{"sb"}, leader: "a", replicas: others("", "b", "c")},
			{name: "b", subject: "sb", leader: "a"},
			{name: "c", down: true},
		}, []State{Unknown, Fed, Unknown}, ""},
		"it was never named": {[]*fake{
			{name: "a", subject: "sa", leader: "a", replicas: others("", "b")},
		}, []State{Unknown}, ""},
		"nobody leads": {[]*fake{
			{name: "a", subject: "sa", leader: "c"},
			{name: "b", subject: "sb", leader: "c"},
			{name: "c", down: true},
		}, []State{Unknown, Unknown, Unknown}, ""},
	} {
		states, servers := read(t, c.servers...)
		if !reflect.DeepEqual(states, c.want) {
			t.Errorf("%s: %+v, want %v", name, servers, c.want)
		}
		if got := Sole(servers); got != c.sole {
			t.Errorf("%s: all depend on %q, want %q", name, got, c.sole)
		}
		for _, s := range servers {
			if (s.State == Unknown) != (s.Why != "") {
				t.Errorf("%s: %+v does not say why", name, s)
			}
		}
	}
}

// Whoever answers in place of a monitoring port neither ends the reading nor
// makes anybody believe that an index is lost.
func TestForeignAnswersAreNoVerdict(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"empty":   func(http.ResponseWriter, *http.Request) {},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no name": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") },
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"server_name": %q}`, strings.Repeat("x", answerMost))
		},
		"forbidden": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		},
	} {
		s := httptest.NewServer(answer)
		got := Read(t.Context(), []string{s.URL})
		s.Close()
		if len(got) != 1 || got[0].State != Unknown || got[0].Why == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAReadingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	defer s.Close()
	if got := Read(ctx, []string{s.URL}); got[0].State != Unknown {
		t.Errorf("%+v", got)
	}
}

func FuzzFeeds(f *testing.F) {
	f.Add([]byte(`{"account_details": [{"stream_detail": [{"name": "$MQTT_rmsgs", "consumer_detail": [{"config": {"deliver_subject": "a"}}]}]}]}`))
	f.Add([]byte(`{"account_details": null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var j jsz
		if json.Unmarshal(b, &j) != nil {
			return
		}
		for _, s := range j.feeds() {
			if s == "" || len(j.feeds()) > consumersMost {
				t.Fatalf("%q of %q", s, b)
			}
		}
	})
}
