package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// ErrNotRunning says that nobody answers on the control socket.
var ErrNotRunning = errors.New("the agent is not running")

// ErrUnanswered says that a request to change something was sent and not answered: it
// was done, or not.
var ErrUnanswered = errors.New("whether it was done is unknown")

// ErrPermission says that the socket is not for this user.
var ErrPermission = errors.New("permission denied")

// maxAnswer bounds one answer, in bytes: a list of a million
// bans is about 200 MB, so listings of that size are paged by the server.
const maxAnswer = 256 << 20

// A Client talks to an agent. Its zero value is not usable; see [NewClient].
type Client struct {
	socket string
	http   *http.Client
}

// NewClient gives a client of the agent that listens on a unix socket.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{socket, &http.Client{
		Timeout: 2 * time.Minute,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, "unix", socket)
			},
		},
	}}
}

// NewHandlerClient gives a client of a handler in this process: the same
// answers, without a socket between.
func NewHandlerClient(h http.Handler) *Client {
	return &Client{"this process", &http.Client{Transport: handlerTransport{h}}}
}

// handlerTransport answers requests by a handler.
type handlerTransport struct{ handler http.Handler }

// RoundTrip implements [http.RoundTripper].
func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := &answer{header: http.Header{}, status: http.StatusOK}
	if r.Body == nil {
		r = r.Clone(r.Context())
		r.Body = http.NoBody
	}
	t.handler.ServeHTTP(answer, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{
		Status: http.StatusText(answer.status), StatusCode: answer.status, Header: answer.header, Request: r,
		Body: io.NopCloser(&answer.body), ContentLength: int64(answer.body.Len()),
	}, nil
}

// answer is a response in memory.
type answer struct {
	header http.Header
	status int
	wrote  bool
	body   bytes.Buffer
}

// Header implements [http.ResponseWriter].
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) {
	if !a.wrote {
		a.wrote, a.status = true, status
	}
}

// Write implements [http.ResponseWriter].
func (a *answer) Write(b []byte) (int, error) {
	a.wrote = true
	return a.body.Write(b)
}

// Get asks for path with query and reads the JSON answer into answer.
func (c *Client) Get(ctx context.Context, path string, query url.Values, answer any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.do(ctx, http.MethodGet, path, nil, answer)
}

// Post sends body as JSON and reads the answer; answer may be nil.
func (c *Client) Post(ctx context.Context, path string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	return c.do(ctx, http.MethodPost, path, bytes.NewReader(b), answer)
}

// Stream asks for path and copies the answer to w, however long that takes. It
// fails where the answer ends before its end.
func (c *Client) Stream(ctx context.Context, path string, w io.Writer) (n int64, err error) {
	patient := *c.http
	patient.Timeout = 0
	resp, err := (&Client{c.socket, &patient}).ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if n, err = io.Copy(w, resp.Body); err != nil {
		return n, fmt.Errorf("reading the answer: %w", err)
	}
	return n, nil
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader, answer any) error {
	resp, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil && method != http.MethodGet:
		return fmt.Errorf("reading the answer of %s: %w: %w", c.socket, err, ErrUnanswered)
	case err != nil:
		return fmt.Errorf("reading the agent's answer: %w", err)
	}
	if answer == nil {
		return nil
	}
	if raw, ok := answer.(*[]byte); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("reading the agent's answer: %w", err)
	}
	return nil
}

// ended says whether whoever listened ended before the answer.
func ended(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		err != nil && strings.Contains(err.Error(), "server closed idle connection") // net/http has no value for it
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// maxRefusal bounds the answer to a request that is not done, in bytes.
const maxRefusal = 1 << 20

// ask sends a request and gives an answer of success; its body is the caller's.
func (c *Client) ask(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, fmt.Errorf("building the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nobody answers on %s", ErrNotRunning, c.socket)
	case ended(err) && method != http.MethodGet:
		return nil, fmt.Errorf("%s was closed before an answer came: %w", c.socket, ErrUnanswered)
	case ended(err):
		return nil, fmt.Errorf("%w any more: it ended before it answered on %s", ErrNotRunning, c.socket)
	case isTimeout(err) && method != http.MethodGet:
		return nil, fmt.Errorf("no answer came on %s for too long: %w", c.socket, ErrUnanswered)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w on %s", ErrPermission, c.socket)
	case err != nil:
		return nil, fmt.Errorf("asking the agent: %w", err)
	case resp.StatusCode/100 == 2:
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		return nil, fmt.Errorf("reading the agent's answer: %w", err)
	}
	var e ErrorAnswer
	if json.Unmarshal(b, &e) != nil || e.Error == "" {
		return nil, fmt.Errorf("the agent answered %s", resp.Status)
	}
	return nil, &RefusedError{Code: e.Code, Text: e.Error, Hint: e.Hint}
}
