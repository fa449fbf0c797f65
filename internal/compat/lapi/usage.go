package lapi

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
)

const (
	// maxUsage bounds a report of traffic, unpacked. A bouncer's has a few
	// kilobytes.
	maxUsage = 4 << 20
	// maxItems bounds the numbers of one report that are read.
	maxItems = 4096
)

// usageReport is the part of a report that is read.
type usageReport struct {
	Components []struct {
		Metrics []struct {
			Items []struct {
				Name   string            `json:"name"`
				Value  float64           `json:"value"`
				Unit   string            `json:"unit"`
				Labels map[string]string `json:"labels"`
			} `json:"items"`
		} `json:"metrics"`
	} `json:"remediation_components"`
}

// usage adds the traffic that a bouncer dropped since its last report, by origin.
func (s *Server) usage(w http.ResponseWriter, r *http.Request, id identity, b Bouncer) {
	select {
	case s.metrics <- struct{}{}:
		defer func() { <-s.metrics }()
	default:
		fault(w, http.StatusServiceUnavailable, "too many reports at once")
		return
	}
	report, err := readUsage(r)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		fault(w, http.StatusBadRequest, "the report is not JSON")
		return
	case errors.Is(err, errTooLong):
		fault(w, http.StatusRequestEntityTooLarge, err.Error())
		return
	case err != nil:
		fault(w, http.StatusUnprocessableEntity, "the report cannot be read")
		return
	case len(report.Components) != 1:
		fault(w, http.StatusUnprocessableEntity, "a report is of one component")
		return
	}
	s.dropped(id, r.UserAgent(), b, report)
	w.WriteHeader(http.StatusCreated)
}

// readUsage decodes a body of at most maxUsage bytes, packed or not.
func readUsage(r *http.Request) (report usageReport, err error) {
	body := io.Reader(io.LimitReader(r.Body, maxUsage+1))
	if strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		if body, err = gzip.NewReader(body); err != nil {
			return report, io.ErrUnexpectedEOF
		}
	}
	b, err := io.ReadAll(io.LimitReader(body, maxUsage+1))
	switch {
	case err != nil:
		return report, err
	case len(b) > maxUsage:
		return report, errTooLong
	}
	return report, json.Unmarshal(b, &report)
}

// dropped adds the report's numbers. Only origins that were told count, so that
// a client cannot make up any number of names.
func (s *Server) dropped(id identity, userAgent string, b Bouncer, report usageReport) {
	known := map[string]bool{OriginHere: true, OriginNetwork: true}
	for _, o := range s.origins.all() {
		known[o] = true
	}
	s.clients.mu.Lock()
	defer s.clients.mu.Unlock()
	c := s.clients.of(id, userAgent, b.Topics, s.o.Elapsed())
	if c.dropped == nil {
		c.dropped = map[string]Dropped{}
	}
	items := 0
	for _, m := range report.Components[0].Metrics {
		for _, i := range m.Items {
			if items++; items > maxItems {
				return
			}
			origin := i.Labels["origin"]
			if i.Name != "dropped" || !known[origin] || math.IsNaN(i.Value) || i.Value < 0 || i.Value > 1<<53 {
				continue
			}
			d := c.dropped[origin]
			switch i.Unit {
			case "packet":
				d.Packets += uint64(i.Value)
			case "byte":
				d.Bytes += uint64(i.Value)
			case "request":
				d.Requests += uint64(i.Value)
			}
			c.dropped[origin] = d
		}
	}
}
