package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// maxUpstream bounds a chained webhook's answer: a price, or a short text.
const maxUpstream = 64 << 10

// upstreamClient calls the chained webhook, directly: a proxy of the
// environment is not for a webhook, and a redirect could turn a refusal into
// some page's 200.
func upstreamClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// forward asks the chained webhook and hands its answer on as it is.
func (g *Gate) forward(w http.ResponseWriter, r *http.Request, body []byte) {
	status, contentType, answer, err := g.ask(r.Context(), body)
	switch {
	case err == nil:
		if status != http.StatusOK {
			g.tally.upstreamRefused()
		}
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		_, _ = w.Write(answer)
		return
	case errors.Is(r.Context().Err(), context.Canceled):
		return // the orchestrator gave up
	}
	g.tally.upstreamFailed()
	if g.tally.mayWarn(warnUpstream, time.Now()) {
		g.o.Log.Warn("the chained webhook did not answer", "url", g.o.Upstream.Redacted(), "allowed", g.o.UpstreamAllow, "error", err)
	}
	if g.o.UpstreamAllow {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
		return
	}
	http.Error(w, "authentication is not available", http.StatusBadGateway)
}

func (g *Gate) ask(ctx context.Context, body []byte) (status int, contentType string, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.o.Upstream.String(), bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, fmt.Errorf("building the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := g.http.Do(req)
	if err != nil {
		return 0, "", nil, fmt.Errorf("asking: %w", err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxUpstream+1))
	switch {
	case err != nil:
		return 0, "", nil, fmt.Errorf("reading the answer: %w", err)
	case len(answer) > maxUpstream:
		return 0, "", nil, fmt.Errorf("the answer has more than %d bytes", maxUpstream)
	case resp.StatusCode < 200:
		return 0, "", nil, fmt.Errorf("the answer has status %d", resp.StatusCode)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), answer, nil
}
