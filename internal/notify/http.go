package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// sendWithin bounds an attempt with all its steps.
	sendWithin = 30 * time.Second
	// maxAnswer bounds the receiver's answer that is read, in bytes.
	maxAnswer = 4 << 10
	// shownAnswer bounds the part of it that people are shown.
	shownAnswer = 200
)

// A receiver takes messages. Send gives the answer in words, for people.
type receiver interface {
	send(ctx context.Context, m Message) (answer string, err error)
}

// A RefusedError is an answer of a receiver that is no success.
type RefusedError struct {
	Answer string
	// After is how long it asks to wait, 0 where it says nothing.
	After time.Duration
}

func (e *RefusedError) Error() string { return "it answered " + e.Answer }

// newReceiver makes the receiver of an entry and reads its files.
func newReceiver(e *Entry) (receiver, error) {
	secret, err := e.Secret()
	if err != nil {
		return nil, err
	}
	t, err := e.tls()
	if err != nil {
		return nil, err
	}
	w := web{entry: e, secret: secret, client: &http.Client{
		Timeout: sendWithin,
		// A secret goes where the configuration says, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: t, TLSHandshakeTimeout: 10 * time.Second,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
	}}
	switch e.Type {
	case Email:
		return &email{e, secret, t, sendWithin}, nil
	case MQTT:
		return &broker{e, secret, t, sendWithin}, nil
	case Webhook:
		return webhook{w}, nil
	case Ntfy:
		return ntfy{w}, nil
	case Gotify:
		return gotify{w}, nil
	case Matrix:
		return matrix{w}, nil
	case Telegram:
		return telegram{w}, nil
	case Slack:
		return slack{w}, nil
	case Discord:
		return discord{w}, nil
	}
	return nil, fmt.Errorf("no receiver is of the type %q", e.Type)
}

// tls gives the settings of TLS: the system's certificates, or those of the file
// that the entry names.
func (e *Entry) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CAFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(e.CAFile)
	if err != nil {
		return nil, err
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", e.CAFile)
	}
	return t, nil
}

// web is the part that all receivers by HTTP have.
type web struct {
	entry  *Entry
	secret string
	client *http.Client
}

// post sends a JSON body and gives the answer. Neither answer nor error has the
// secret in it, nor the address, which may be one.
func (w web) post(ctx context.Context, method, address string, header map[string]string, body any) (string, error) {
	b, ok := body.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return "", fmt.Errorf("encoding the message: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(b))
	if err != nil {
		return "", errors.New("the receiver's address cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "banmesh")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return "", fmt.Errorf("asking %s: %s", req.URL.Hostname(), w.hide(err.Error()))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	answer := resp.Status
	if shown := clean(strings.Join(strings.Fields(string(text)), " "), shownAnswer); shown != "" {
		answer += ": " + w.hide(shown)
	}
	switch {
	case resp.StatusCode/100 == 2 && err != nil:
		return "", fmt.Errorf("reading the answer: %s", w.hide(err.Error()))
	case resp.StatusCode/100 == 2:
		return answer, nil
	case resp.StatusCode/100 == 3:
		return "", &RefusedError{Answer: answer + ": a redirect, which is not followed: name the last address"}
	}
	return "", &RefusedError{answer, retryAfter(resp.Header.Get("Retry-After"), text)}
}

// retryAfter reads how long a receiver asks to wait, in seconds: from the header,
// or from the answers of Telegram and Discord.
func retryAfter(header string, body []byte) time.Duration {
	seconds, err := strconv.ParseFloat(header, 64)
	if err != nil {
		var b struct {
			After      float64 `json:"retry_after"`
			Parameters struct {
				After float64 `json:"retry_after"`
			} `json:"parameters"`
		}
		if json.Unmarshal(body, &b) != nil {
			return 0
		}
		seconds = max(b.After, b.Parameters.After)
	}
	if !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, longestPause.Seconds()) * float64(time.Second))
}

// hide takes the secret out of a text for people.
func (w web) hide(s string) string { return hide(s, w.secret) }

func hide(s, secret string) string {
	if secret == "" {
		return s
	}
	for _, x := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
		s = strings.ReplaceAll(s, x, "[secret]")
	}
	if u, err := url.Parse(secret); err == nil && u.Path != "" && u.Host != "" {
		s = strings.ReplaceAll(s, u.Path, "[secret]")
	}
	return s
}
