// Package livepeer tests the agent beside a Livepeer orchestrator,
// against a double of go-livepeer's side of the contract. go-livepeer itself is
// not run: the double was written from its source (server/rpc.go and
// server/auth.go of release 0.9.1).
package livepeer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// An Orchestrator asks the webhook as go-livepeer's orchestrator does for each
// GetOrchestrator call: a POST by Go's default client, without a time limit.
type Orchestrator struct {
	// URL is the value of -authWebhookUrl.
	URL string
	// Client is http.DefaultClient in go-livepeer.
	Client *http.Client
}

// Session has the settings that the webhook's answer may make.
type Session struct {
	PriceInfo *struct {
		PricePerUnit  int64 `json:"pricePerUnit"`
		PixelsPerUnit int64 `json:"pixelsPerUnit"`
	} `json:"priceInfo"`
}

// Authenticate asks for a gateway's wallet, in EIP-55 spelling. An error means
// that the gateway is refused and sees the error's text.
func (o Orchestrator) Authenticate(wallet string) (*Session, error) {
	body, err := json.Marshal(map[string]string{"id": wallet})
	if err != nil {
		return nil, err
	}
	resp, err := o.Client.Post(o.URL, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("authentication failed: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("authentication failed: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("authentication failed: %s", answer)
	}
	var s *Session
	if err := json.Unmarshal(answer, &s); err != nil {
		return nil, fmt.Errorf("authentication failed: %w", err)
	}
	return s, nil
}
