package gate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// maxUpstream bounds a chained webhook's answer: a price, or a short text.
const maxUpstream = 64 << 10

// upstreamClient calls the chained webhook, directly: a proxy of the
// environment is not for a webhook, and a redirect could turn a refusal into
// some page's 200.
func upstreamClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// forward asks the chained webhook and hands its answer on as it is.
func (g *Gate) forward(ctx context.Context, l *List, body []byte) Answer {
	ctx, cancel := context.WithTimeout(ctx, g.upstream)
	defer cancel()
	a, err := g.ask(ctx, l.chain, body)
	if err == nil {
		if a.Status != http.StatusOK {
			g.tally.upstreamRefused()
		}
		return a
	}
	g.tally.upstreamFailed()
	if g.tally.mayWarn(warnUpstream, time.Now()) {
		g.log.Warn("the chained webhook did not answer", "url", l.chain.Redacted(), "allowed", l.ChainAllows, "error", err)
	}
	if l.ChainAllows {
		return allowed()
	}
	return text(http.StatusBadGateway, "authentication is not available")
}

func (g *Gate) ask(ctx context.Context, chain *url.URL, body []byte) (a Answer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, chain.String(), bytes.NewReader(body))
	if err != nil {
		return a, fmt.Errorf("building the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := g.http.Do(req)
	if err != nil {
		return a, fmt.Errorf("asking: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxUpstream+1))
	switch {
	case err != nil:
		return a, fmt.Errorf("reading the answer: %w", err)
	case len(answer) > maxUpstream:
		return a, fmt.Errorf("the answer has more than %d bytes", maxUpstream)
	case resp.StatusCode < 200:
		return a, fmt.Errorf("the answer has status %d", resp.StatusCode)
	}
	return Answer{resp.StatusCode, resp.Header.Get("Content-Type"), answer}, nil
}
