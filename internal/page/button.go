package page

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// An Action is the one thing that a button in a message does.
type Action struct {
	Do     string // "unban", "withdraw", "approve" or "reject"
	Topic  ban.Topic
	Target ban.Target
	Peer   string // an operator's name
}

// Limits of buttons.
const (
	// buttonFor is how long a button acts.
	buttonFor = time.Hour
	// maxButtons bounds those that nobody pressed yet; the oldest makes room.
	maxButtons = 256
)

// buttons are those in messages that were sent. Each is a secret of its own, of
// which the digest is kept until it is used up or over: nothing is signed that
// could be pressed again after a restart, and a restart ends them all.
type buttons struct {
	now func() time.Time

	mu   sync.Mutex
	list []button // oldest first
}

type button struct {
	key    digest
	until  time.Time
	action Action
}

// add makes a button and gives its secret.
func (b *buttons) add(a Action) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire()
	if len(b.list) == maxButtons {
		b.list = b.list[1:]
	}
	token := rand.Text()
	b.list = append(b.list, button{digestOf(token), b.now().Add(buttonFor), a})
	return token
}

func (b *buttons) expire() {
	now := b.now()
	b.list = slices.DeleteFunc(b.list, func(x button) bool { return !x.until.After(now) })
}

// find gives the action of a button; used says to use it up.
func (b *buttons) find(token string, used bool) (Action, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire()
	key := digestOf(token)
	i := slices.IndexFunc(b.list, func(x button) bool { return x.key == key })
	if i < 0 {
		return Action{}, false
	}
	a := b.list[i].action
	if used {
		b.list = slices.Delete(b.list, i, i+1)
	}
	return a, true
}

const buttonPath = "/button"

// Button gives the address at which a person who has it may do one thing once,
// within an hour and without a session; "" where [page] has no url, for then
// nobody can be led to the page.
func (s *Server) Button(a Action) string {
	if s.o.URL == "" {
		return ""
	}
	return s.URL() + buttonPath + "?do=" + url.QueryEscape(s.buttons.add(a))
}

// Address gives the address of a path on the page, "" where [page] has no url.
func (s *Server) Address(path string) string {
	if s.o.URL == "" {
		return ""
	}
	return s.URL() + path
}

// question describes a button's effect.
func (a Action) question() string {
	in := ""
	if a.Topic != "" {
		in = " in " + string(a.Topic)
	}
	switch a.Do {
	case "unban":
		return fmt.Sprintf("Lift the ban of %s%s? No peer can ban it there for 7 days.", a.Target, in)
	case "withdraw":
		return fmt.Sprintf("Withdraw this node's claim of %s%s as a mistake?", a.Target, in)
	case "approve":
		return fmt.Sprintf("Let the claims of %s%s count that wait now?", a.Peer, in)
	case "reject":
		return fmt.Sprintf("Let the claims of %s%s that wait now never count?", a.Peer, in)
	}
	return ""
}

// do does it, by the control interface.
func (s *Server) do(ctx context.Context, a Action) (string, error) {
	const comment = "by the button of a message"
	switch a.Do {
	case "unban":
		var x control.UnbanAnswer
		err := s.node.Post(ctx, "/v1/unban", control.UnbanRequest{Target: a.Target, Topic: a.Topic, Comment: comment}, &x)
		return fmt.Sprintf("Lifted %s of %s.%s", plural(len(x.Lifted), "ban"), a.Target, lags(x.Kernel)), err
	case "withdraw":
		var x control.WithdrawAnswer
		err := s.node.Post(ctx, "/v1/withdraw", control.WithdrawRequest{Targets: []ban.Target{a.Target}, Topic: a.Topic, Reason: ban.ReasonMistake}, &x)
		return fmt.Sprintf("Withdrew %s of %s.%s", plural(len(x.Withdrawn), "claim"), a.Target, lags(x.Kernel)), err
	case "approve", "reject":
		var x control.CountAnswer
		err := s.node.Post(ctx, "/v1/hold/"+a.Do, control.PeerRequest{Peer: a.Peer, Topic: a.Topic, Why: comment}, &x)
		return fmt.Sprintf("%s of %s: %s.%s", plural(x.Count, "claim"), a.Peer, map[string]string{"approve": "approved", "reject": "rejected"}[a.Do], lags(x.Kernel)), err
	}
	return "", errors.New("this button does nothing")
}

func lags(why string) string {
	if why == "" {
		return ""
	}
	return " The kernel does not follow yet: " + why
}

// press shows a button's effect, and carries it out when it is pressed: who looks at
// links before people do, as messengers and mail filters, changes nothing.
func (s *Server) press(w http.ResponseWriter, r *http.Request) {
	const title, over = "A button", "This button was used, or its hour is over, or the node began again. Nothing was done."
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		token := r.URL.Query().Get("do")
		a, ok := s.buttons.find(token, false)
		if !ok {
			bare(w, http.StatusGone, bareView{Title: title, Text: over, Command: "agent page open"})
			return
		}
		bare(w, http.StatusOK, bareView{Title: title, Text: a.question(), Button: token})
	case http.MethodPost:
		a, ok := s.buttons.find(r.PostFormValue("do"), true)
		if !ok {
			bare(w, http.StatusGone, bareView{Title: title, Text: over, Command: "agent page open"})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
		defer cancel()
		text, err := s.do(ctx, a)
		if refused, ok := errors.AsType[*control.RefusedError](err); ok && refused.Code == control.CodeAsk {
			bare(w, http.StatusConflict, bareView{Title: title, Text: "Not done: " + refused.Text + ". That is more than a button may do; sign in for it.", Command: "agent page open"})
			return
		}
		if err != nil {
			bare(w, http.StatusConflict, bareView{Title: title, Text: "Not done: " + err.Error(), Command: "agent page open"})
			return
		}
		bare(w, http.StatusOK, bareView{Title: "Done", Text: text})
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "GET or POST", http.StatusMethodNotAllowed)
	}
}
