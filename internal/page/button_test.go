package page

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// button makes one on a page that browsers reach at its base.
func (x *site) button(a Action) (path string) {
	x.t.Helper()
	x.server.o.URL = x.base
	u, err := url.Parse(x.server.Button(a))
	if err != nil || !strings.HasPrefix(u.String(), x.base+buttonPath+"?do=") {
		x.t.Fatal(u, err)
	}
	return u.RequestURI()
}

func (x *site) pressed(path string, header http.Header) answerOf {
	x.t.Helper()
	_, token, _ := strings.Cut(path, "=")
	return x.do(x.browser(), http.MethodPost, buttonPath, url.Values{"do": {token}}, header)
}

func TestAButtonDoesItsOneThingOnceWithoutASession(t *testing.T) {
	t.Parallel()
	x := show(t)
	for _, c := range []struct {
		a          Action
		asks, does string
	}{
		{Action{Do: "unban", Topic: "sshd", Target: ban.MustTarget("203.0.113.7")}, "Lift the ban of 203.0.113.7 in sshd?", `/v1/unban {"target":"203.0.113.7","topic":"sshd"`},
		{Action{Do: "withdraw", Topic: "sshd", Target: ban.MustTarget("203.0.113.7")}, "claim of 203.0.113.7 in sshd as a mistake?", `/v1/withdraw {"targets":["203.0.113.7"],"topic":"sshd","reason":"mistake"}`},
		{Action{Do: "approve", Topic: "sshd", Peer: "alice"}, "claims of alice in sshd count", `/v1/hold/approve {"peer":"alice","topic":"sshd"`},
		{Action{Do: "reject", Peer: "alice"}, "claims of alice that wait now never count?", `/v1/hold/reject {"peer":"alice"`},
	} {
		path := x.button(c.a)
		for range 3 { // a messenger looks at links before a person does
			if a := x.do(x.browser(), http.MethodGet, path, nil, nil); a.StatusCode != http.StatusOK || !strings.Contains(a.text, strings.ReplaceAll(c.asks, "'", "&#39;")) {
				t.Errorf("%s: %d %s", c.a.Do, a.StatusCode, a.text)
			}
		}
		before := len(x.node.did())
		if a := x.pressed(path, nil); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", c.a.Do, a.StatusCode, a.text)
		}
		if did := x.node.did(); len(did) != before+1 || !strings.HasPrefix(did[before], c.does) {
			t.Errorf("%s did %v", c.a.Do, did[before:])
		}
		if a := x.pressed(path, nil); a.StatusCode != http.StatusGone || len(x.node.did()) != before+1 {
			t.Errorf("a second time: %d, %v", a.StatusCode, x.node.did())
		}
		if a := x.do(x.browser(), http.MethodGet, path, nil, nil); a.StatusCode != http.StatusGone {
			t.Errorf("it is shown after it was used: %d", a.StatusCode)
		}
	}
}

func TestAButtonEndsAfterAnHourAndObeysNoOtherSite(t *testing.T) {
	t.Parallel()
	x := show(t)
	a := Action{Do: "reject", Peer: "alice"}
	path := x.button(a)
	if got := x.pressed(path, http.Header{"Origin": {"https://evil.example"}}); got.StatusCode != http.StatusForbidden {
		t.Errorf("from another site: %d", got.StatusCode)
	}
	if got := x.do(x.browser(), http.MethodGet, path, nil, http.Header{"Host": {"evil.example"}}); got.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("by another name: %d", got.StatusCode)
	}
	if got := x.do(x.browser(), http.MethodPut, path, url.Values{}, nil); got.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", got.StatusCode)
	}
	if got := x.do(x.browser(), http.MethodGet, buttonPath+"?do=guessed", nil, nil); got.StatusCode != http.StatusGone {
		t.Errorf("a guess: %d", got.StatusCode)
	}
	// It begins no session.
	if got := x.do(x.browser(), http.MethodGet, "/bans", nil, nil); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("the page without a session: %d", got.StatusCode)
	}
	x.pass(buttonFor - time.Second)
	if got := x.do(x.browser(), http.MethodGet, path, nil, nil); got.StatusCode != http.StatusOK {
		t.Errorf("within the hour: %d", got.StatusCode)
	}
	x.pass(time.Second)
	if got := x.pressed(path, nil); got.StatusCode != http.StatusGone || len(x.node.did()) != 0 {
		t.Errorf("after the hour: %d, %v", got.StatusCode, x.node.did())
	}
}

func TestAButtonDoesNotAnswerTheQuestionOfAGreatChange(t *testing.T) {
	t.Parallel()
	x := show(t)
	x.node.mu.Lock()
	x.node.ask = true
	x.node.mu.Unlock()
	got := x.pressed(x.button(Action{Do: "unban", Target: ban.MustTarget("203.0.113.0/24")}), nil)
	if got.StatusCode != http.StatusConflict || !strings.Contains(got.text, "this lifts 7 bans") || len(x.node.did()) != 0 {
		t.Errorf("%d %s, %v", got.StatusCode, got.text, x.node.did())
	}
}

func TestButtonsAreBoundedAndNeedAnAddress(t *testing.T) {
	t.Parallel()
	s := New(Options{Listen: "127.0.0.1:0"})
	if s.Button(Action{Do: "unban"}) != "" || s.Address("/holds") != "" {
		t.Error("a page without url has an address")
	}
	s = New(Options{Listen: "127.0.0.1:0", URL: "https://bans.example/"})
	if got := s.Address("/holds"); got != "https://bans.example/holds" {
		t.Errorf("the address is %s", got)
	}
	var made []string
	for range maxButtons + 1 {
		_, token, _ := strings.Cut(s.Button(Action{Do: "reject", Peer: "alice"}), "=")
		made = append(made, token)
	}
	if slices.Compact(slices.Sorted(slices.Values(made)))[0] == "" || len(s.buttons.list) != maxButtons {
		t.Errorf("%d buttons are kept", len(s.buttons.list))
	}
	if _, ok := s.buttons.find(made[0], false); ok {
		t.Error("the oldest is kept")
	}
	if _, ok := s.buttons.find(made[1], false); !ok {
		t.Error("the second is not kept")
	}
}
