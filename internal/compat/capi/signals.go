package capi

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/serving"
)

// maxSignals bounds the signals of one request; CrowdSec sends 50.
const maxSignals = 1000

// A Signal holds the parts that are read of an alert of CrowdSec's: whom, why, how
// often, and when. Its message, its meta data and its machine are never read.
type Signal struct {
	Target ban.Target
	Topic  ban.Topic
	Class  ban.Class
	Hits   int
	At     time.Time
}

// signal is the part of an alert that is decoded.
type signal struct {
	Scenario string `json:"scenario"`
	Trust    string `json:"scenario_trust"`
	Count    int    `json:"events_count"`
	Stop     string `json:"stop_at"`
	Source   struct {
		Scope string `json:"scope"`
		Value string `json:"value"`
	} `json:"source"`
}

// A Meaning is the topic and class of a scenario's offenders.
type Meaning struct {
	Topic ban.Topic
	Class ban.Class
}

// meanings has the scenarios of CrowdSec's hub whose offenders are those of a
// shipped topic; a name that ends in * is a prefix.
var meanings = []struct {
	scenario string
	Meaning
}{
	{"crowdsecurity/ssh-*", Meaning{"sshd", ban.ClassAuth}},
	{"crowdsecurity/dovecot-*", Meaning{"dovecot", ban.ClassAuth}},
	{"crowdsecurity/postfix-*", Meaning{"postfix", ban.ClassSpam}},
	{"crowdsecurity/postscreen-*", Meaning{"postfix", ban.ClassSpam}},
	{"crowdsecurity/nginx-req-limit-exceeded", Meaning{"nginx", ban.ClassFlood}},
	{"crowdsecurity/http-cve*", Meaning{"web-probe", ban.ClassExploit}},
	{"crowdsecurity/http-path-traversal-probing", Meaning{"web-probe", ban.ClassExploit}},
	{"crowdsecurity/http-sqli-probing*", Meaning{"web-probe", ban.ClassExploit}},
	{"crowdsecurity/http-xss-probing*", Meaning{"web-probe", ban.ClassExploit}},
	{"crowdsecurity/http-backdoors-attempts", Meaning{"web-probe", ban.ClassExploit}},
	{"crowdsecurity/http-sensitive-files", Meaning{"web-probe", ban.ClassScan}},
	{"crowdsecurity/http-probing", Meaning{"web-probe", ban.ClassScan}},
	{"crowdsecurity/http-bf-wordpress_bf*", Meaning{"web-probe", ban.ClassAuth}},
	{"crowdsecurity/http-generic-bf", Meaning{"web-probe", ban.ClassAuth}},
	{"crowdsecurity/nextcloud-bf*", Meaning{"nextcloud", ban.ClassAuth}},
	{"crowdsecurity/grafana-*", Meaning{"grafana", ban.ClassAuth}},
	{"LePresidente/jellyfin-*", Meaning{"jellyfin", ban.ClassAuth}},
	{"LePresidente/gitea-*", Meaning{"gitea", ban.ClassAuth}},
	{"LePresidente/grafana-*", Meaning{"grafana", ban.ClassAuth}},
	{"Dominic-Wagner/vaultwarden-*", Meaning{"vaultwarden", ban.ClassAuth}},
}

// meaning gives the topic of a scenario: the operator's first, by its whole
// name, then the table.
func (s *Server) meaning(scenario string) (m Meaning, ok bool) {
	m.Class = ban.ClassOther
	for _, x := range meanings {
		prefix, any := strings.CutSuffix(x.scenario, "*")
		if x.scenario == scenario || any && strings.HasPrefix(scenario, prefix) {
			m, ok = x.Meaning, true
			break
		}
	}
	if t, own := s.o.Scenarios[scenario]; own {
		return Meaning{t, m.Class}, t != ""
	}
	return m, ok
}

// signals takes alerts as another program's bans. What is not known, made by
// hand or changed by its operator is counted and left out.
func (s *Server) signals(w http.ResponseWriter, r *http.Request, login string) {
	d := json.NewDecoder(r.Body)
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		serving.Fault(w, http.StatusBadRequest, "the signals cannot be read")
		return
	}
	var taken []Signal
	heard := 0
	for ; d.More(); heard++ {
		var x signal
		switch err := d.Decode(&x); {
		case err != nil:
			serving.Fault(w, http.StatusBadRequest, "the signals cannot be read")
			return
		case heard >= maxSignals:
			serving.Fault(w, http.StatusRequestEntityTooLarge, "more than 1000 signals at once")
			return
		}
		if v, ok := s.read(&x); ok {
			taken = append(taken, v)
		}
	}
	if _, err := d.Token(); err != nil { // the bracket that ends them
		serving.Fault(w, http.StatusBadRequest, "the signals cannot be read")
		return
	}
	if err := s.o.Take(r.Context(), taken); err != nil {
		serving.Fault(w, http.StatusServiceUnavailable, "the signals could not be recorded")
		return
	}
	s.asked(r, login, func(c *client) { c.Signals += uint64(len(taken)); c.Ignored += uint64(heard - len(taken)) })
	done(w)
}

func (s *Server) read(x *signal) (v Signal, ok bool) {
	if x.Trust == "manual" || x.Trust == "tainted" {
		return v, false
	}
	m, ok := s.meaning(x.Scenario)
	if !ok {
		return v, false
	}
	at, err := time.Parse(time.RFC3339Nano, x.Stop)
	if err != nil {
		return v, false
	}
	v = Signal{Topic: m.Topic, Class: m.Class, Hits: min(max(x.Count, 1), ban.MaxHits), At: at}
	switch strings.ToLower(x.Source.Scope) {
	case "ip", "range":
		v.Target, err = ban.ParseTarget(x.Source.Value)
	default:
		return v, false
	}
	return v, err == nil && v.Target.Kind() != ban.KindWallet
}

// tellable says that a prefix may be told to CrowdSec: not this machine's, nor
// a private network's, which its whitelists hold and on which it stumbles when
// an answer has nothing else.
func tellable(p netip.Prefix) bool {
	a := p.Addr()
	return !(a.IsLoopback() || a.IsPrivate() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast())
}
