package commands

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"banmesh/internal/broker"
	"banmesh/internal/control"
)

// request is a command's message to the broker.
type request struct {
	Client   string `json:"client,omitempty"`
	Identity string `json:"identity,omitempty"`
	Undo     bool   `json:"undo,omitempty"`
}

// answer is the broker's reply.
type answer struct {
	Removed int `json:"removed"`
}

// commands answers on the control socket.
func commands(b *broker.Broker) http.Handler {
	m := http.NewServeMux()
	get := func(path string, f func() any) {
		m.HandleFunc("GET "+path, control.Handle(func(*http.Request) (any, error) { return f(), nil }))
	}
	post := func(path string, f func(request) (any, error)) {
		m.HandleFunc("POST "+path, control.Handle(func(r *http.Request) (any, error) {
			var q request
			if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
				return nil, fmt.Errorf("reading the request: %w", err)
			}
			return f(q)
		}))
	}
	get("/v1/status", func() any { return b.Status() })
	get("/v1/feeds", func() any { return b.Feeds() })
	get("/v1/clients", func() any { return b.Sessions() })
	post("/v1/kick", func(q request) (any, error) {
		err := b.Kick(q.Client)
		if errors.Is(err, broker.ErrUnknown) {
			err = &control.RefusedError{Code: control.CodeMissing, Text: err.Error(), Hint: "`broker clients` lists them"}
		}
		return answer{}, err
	})
	post("/v1/ban-key", func(q request) (any, error) {
		if q.Undo {
			return answer{}, b.UnbanKey(q.Identity)
		}
		n, err := b.BanKey(q.Identity)
		return answer{n}, err
	})
	// The caller writes the file, with its own rights and where it is: the broker
	// may write in its state directory alone.
	m.HandleFunc("GET /v1/backup", control.Stream(b.Backup))
	return m
}
