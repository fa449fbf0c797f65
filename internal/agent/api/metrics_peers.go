package api

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"banmesh/internal/ban"
	"banmesh/internal/federation"
	"banmesh/internal/ledger"
)

const (
	// maxPeers bounds the operators that have metrics of their own: those with the
	// most claims. The others are one together.
	maxPeers = 200
	// otherPeers is the label of those together; no operator can have the name.
	otherPeers = "(others)"
	// listShare is how much longer than it took a listing of peers is used: at a
	// million claims it takes a while, and may take a twentieth of the time.
	listShare = 20
)

// A peerCollector gives the numbers of every operator whose claims are read.
type peerCollector struct {
	s *Server

	mu    sync.Mutex
	list  []ledger.Peer
	until time.Time
}

func peerDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("banmesh_peer_"+name, help, append([]string{"operator"}, labels...), nil)
}

var (
	descPeerClaims     = peerDesc("claims", "Claims of a peer that are kept.")
	descPeerBanning    = peerDesc("banning_claims", "Bans in force that a peer's claims are part of.")
	descPeerMet        = peerDesc("met_offenders", "Offenders here whom a peer had claimed before they came.")
	descPeerStrikes    = peerDesc("recent_strikes", "Claims of a peer within a day of what must never be banned.")
	descPeerAllStrikes = peerDesc("strikes_total", "Claims of a peer of what must never be banned.")
	descPeerDisputed   = peerDesc("disputed_claims", "Claims of a peer that others, or this node, dispute.")
	descPeerOverruled  = peerDesc("overruled_claims", "Claims of a peer that a person unbanned here.")
	descPeerGuests     = peerDesc("claimed_guests", "Claims of a peer that are of guests of this node: its false positives.")
	descPeerQuarantine = peerDesc("quarantined", "Whether nothing of a peer counts.")
	descPeerHeard      = peerDesc("oldest_feed_timestamp_seconds", "When the newest head was signed of that feed of a peer from which nothing was heard for longest.")
	descPeerWaiting    = peerDesc("waiting_claims", "Claims of a peer that wait for a person, or for room.", "topic")
	descPeerLive       = peerDesc("live_claims", "Claims of a peer that count.", "topic")
	descPeerAdded      = peerDesc("added_claims", "Claims of a peer that came to count within the hour.", "topic")
	descPeerAllowed    = peerDesc("allowed_claims", "Claims of a peer that may come to count within an hour, by its own turnover.", "topic")
)

// Describe implements [prometheus.Collector].
func (c *peerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descPeerClaims, descPeerBanning, descPeerMet, descPeerStrikes, descPeerAllStrikes, descPeerDisputed, descPeerOverruled, descPeerGuests,
		descPeerQuarantine, descPeerHeard, descPeerWaiting, descPeerLive, descPeerAdded, descPeerAllowed,
	} {
		ch <- d
	}
}

// peers gives the list of operators, the largest first.
func (c *peerCollector) peers() []ledger.Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if began := c.s.o.Now(); !began.Before(c.until) || c.until.Sub(began) > time.Minute {
		c.list = c.s.o.Ledger.Peers.List()
		slices.SortStableFunc(c.list, func(a, b ledger.Peer) int { return cmp.Compare(b.Claims, a.Claims) })
		now := c.s.o.Now()
		c.until = now.Add(min(time.Minute, listShare*now.Sub(began)))
	}
	return c.list
}

// Collect implements [prometheus.Collector].
func (c *peerCollector) Collect(ch chan<- prometheus.Metric) {
	list := c.peers()
	label := make(map[ban.Operator]string, min(len(list), maxPeers))
	for _, p := range list[:min(len(list), maxPeers)] {
		label[p.Operator] = c.s.o.Settings().NameOf(p.Operator)
	}
	nameOf := func(o ban.Operator) string { return cmp.Or(label[o], otherPeers) }
	s := newSums(ch)
	for _, p := range list {
		who := nameOf(p.Operator)
		s.add(descPeerClaims, float64(p.Claims), who)
		s.add(descPeerBanning, float64(p.Banning), who)
		s.add(descPeerMet, float64(p.Met), who)
		s.add(descPeerStrikes, float64(p.Strikes), who)
		s.count(descPeerAllStrikes, float64(p.Total), who)
		s.add(descPeerDisputed, float64(p.Disputed), who)
		s.add(descPeerOverruled, float64(p.Overruled), who)
		s.add(descPeerGuests, float64(p.Record.Guests), who)
		s.add(descPeerQuarantine, boolean(p.Quarantine != nil), who)
	}
	for o, at := range oldestHeads(c.s.o.Sharing.Feeds()) {
		s.least(descPeerHeard, float64(at.Unix()), nameOf(o))
	}
	for _, b := range c.s.o.Ledger.Peers.Brakes() {
		who, topic := nameOf(b.Operator), string(b.Topic)
		s.add(descPeerWaiting, float64(b.Waiting), who, topic)
		s.add(descPeerLive, float64(b.Budget.Live), who, topic)
		s.add(descPeerAdded, float64(b.Brake.Added), who, topic)
		s.add(descPeerAllowed, float64(b.Brake.Allowed), who, topic)
	}
	s.send()
}

// oldestHeads gives of each operator when the newest head was signed of its feed
// that is silent for longest; feeds that were never heard have none.
func oldestHeads(feeds []federation.FeedStatus) map[ban.Operator]time.Time {
	out := map[ban.Operator]time.Time{}
	for _, f := range feeds {
		if at, ok := out[f.Feed.Operator]; !f.Own && !f.Issued.IsZero() && (!ok || f.Issued.Before(at)) {
			out[f.Feed.Operator] = f.Issued
		}
	}
	return out
}

// sums adds up the values of operators that share one label, so that no name comes
// twice: Prometheus would refuse the whole scrape.
type sums struct {
	ch     chan<- prometheus.Metric
	values map[*prometheus.Desc]map[[2]string]float64
	counts map[*prometheus.Desc]bool
}

func newSums(ch chan<- prometheus.Metric) *sums {
	return &sums{ch, map[*prometheus.Desc]map[[2]string]float64{}, map[*prometheus.Desc]bool{}}
}

func (s *sums) at(d *prometheus.Desc, labels []string) (values map[[2]string]float64, key [2]string) {
	copy(key[:], labels)
	if s.values[d] == nil {
		s.values[d] = map[[2]string]float64{}
	}
	return s.values[d], key
}

func (s *sums) add(d *prometheus.Desc, v float64, labels ...string) {
	values, key := s.at(d, labels)
	values[key] += v
}

func (s *sums) count(d *prometheus.Desc, v float64, labels ...string) {
	s.counts[d] = true
	s.add(d, v, labels...)
}

func (s *sums) least(d *prometheus.Desc, v float64, labels ...string) {
	values, key := s.at(d, labels)
	if old, ok := values[key]; !ok || v < old {
		values[key] = v
	}
}

func (s *sums) send() {
	for d, values := range s.values {
		kind := prometheus.GaugeValue
		if s.counts[d] {
			kind = prometheus.CounterValue
		}
		for key, v := range values {
			labels := key[:]
			if key[1] == "" {
				labels = key[:1]
			}
			s.ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
		}
	}
}
