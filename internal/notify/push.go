package notify

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// ntfy speaks the publishing API of ntfy, as JSON: docs.ntfy.sh/publish.
type ntfy struct{ web }

type ntfyAction struct {
	Action string `json:"action"`
	Label  string `json:"label"`
	URL    string `json:"url"`
}

type ntfyMessage struct {
	Topic    string       `json:"topic"`
	Title    string       `json:"title"`
	Message  string       `json:"message"`
	Priority int          `json:"priority"` // 1 to 5
	Tags     []string     `json:"tags"`
	Click    string       `json:"click,omitempty"`
	Actions  []ntfyAction `json:"actions,omitempty"`
}

// ntfyMost is the longest message of ntfy, in bytes: longer ones become files.
const ntfyMost = 4000

func (n ntfy) send(ctx context.Context, m Message) (string, error) {
	u, err := url.Parse(n.entry.URL)
	if err != nil {
		return "", err
	}
	topic := strings.Trim(u.Path, "/")
	u.Path, u.RawQuery = "/", ""
	x := ntfyMessage{Topic: topic, Title: m.Title, Message: cut(m.Text(), ntfyMost), Priority: 3, Tags: []string{"shield"}, Click: m.Link}
	if m.Urgent {
		x.Priority, x.Tags = 4, []string{"warning"}
	}
	for _, b := range m.Buttons {
		x.Actions = append(x.Actions, ntfyAction{"view", b.Label, b.URL})
	}
	header := map[string]string{}
	switch {
	case n.entry.User != "":
		header["Authorization"] = basic(n.entry.User, n.secret)
	case n.secret != "":
		header["Authorization"] = "Bearer " + n.secret
	}
	return n.post(ctx, http.MethodPost, u.String(), header, x)
}

func basic(user, password string) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

// gotify speaks Gotify's POST /message.
type gotify struct{ web }

func (g gotify) send(ctx context.Context, m Message) (string, error) {
	x := map[string]any{"title": m.Title, "message": m.WithPages(), "priority": 4}
	if m.Urgent {
		x["priority"] = 8
	}
	if m.Link != "" {
		x["extras"] = map[string]any{"client::notification": map[string]any{"click": map[string]string{"url": m.Link}}}
	}
	return g.post(ctx, http.MethodPost, strings.TrimSuffix(g.entry.URL, "/")+"/message", map[string]string{"X-Gotify-Key": g.secret}, x)
}
