package commands

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banmesh/internal/control"
	"banmesh/internal/firewall/testnet"
)

// The whole path: a peer bans, its claim comes by the broker, and a receiver is
// told, signed; the message's button lifts the ban; then the peer says that it was
// a mistake.
func TestAPeersBanBecomesAMessage(t *testing.T) {
	t.Parallel()
	type document struct {
		Kind, Title, Text, Link string
		Buttons                 []struct{ Label, URL string }
		Notices                 []struct {
			Target, Topic string
			Peers         []string
		}
	}
	got := make(chan document, 10)
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var d document
		if err := json.Unmarshal(b, &d); err != nil || !strings.HasPrefix(r.Header.Get("Banmesh-Signature"), "v1=") {
			t.Errorf("a message is %s (%v), signed %q", b, err, r.Header.Get("Banmesh-Signature"))
		}
		got <- d
	}))
	defer sink.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testnet.Must(t, err)
	broker := l.Addr().String()
	testnet.Must(t, l.Close())
	l, err = net.Listen("tcp", "127.0.0.1:0")
	testnet.Must(t, err)
	page := l.Addr().String()
	testnet.Must(t, l.Close())
	key := filepath.Join(t.TempDir(), "key")
	testnet.Must(t, os.WriteFile(key, []byte("a-key-of-enough-characters"), 0o600))
	alice := newWalkNode(t, fmt.Sprintf(`
[firewall]
mode = "off"
[embedded_broker]
listen = %q
[topics.sshd]
files = []
journal = []
publish = true
`, broker))
	var s control.Status
	testnet.Must(t, control.NewClient(alice.dir+"/agent.sock").Get(t.Context(), "/v1/status", nil, &s))
	node := newWalkNode(t, fmt.Sprintf(`
[firewall]
mode = "off"
[[brokers]]
url = "tcp://%s"
[operators.alice]
id = %q
[topics.sshd]
files = []
journal = []
subscribe = true
[[notify]]
name = "hook"
type = "webhook"
url = %q
token_file = %q
on = ["ban", "mistake"]
[page]
listen = %q
url = "http://%s"
`, broker, s.Operator, sink.URL, key, page, page))
	if _, refusal, err := alice.do("", "ban", "203.0.113.7", "--topic", "sshd"); err != nil {
		t.Fatal(err, refusal)
	}
	node.until("the ban is here", func() bool { return node.is("203.0.113.7") == "ban" })
	d := <-got
	if d.Kind != "ban" || len(d.Notices) != 1 || d.Notices[0].Target != "203.0.113.7" || d.Notices[0].Topic != "sshd" || fmt.Sprint(d.Notices[0].Peers) != "[alice]" || !strings.Contains(d.Text, "by the word of alice") {
		t.Errorf("the message is %+v", d)
	}
	if d.Link != "http://"+page+"/explain?target=203.0.113.7" || len(d.Buttons) != 1 || d.Buttons[0].Label != "Unban" {
		t.Fatalf("its pages are %q %v", d.Link, d.Buttons)
	}
	press(t, d.Buttons[0].URL, "http://"+page)
	if is := node.is("203.0.113.7"); is == "ban" {
		t.Errorf("after the button 203.0.113.7 is %s", is)
	}
	// A kill does not repeat it, and the next event is told.
	node.until("the message is noted", func() bool { return strings.Contains(fmt.Sprint(receivers(node)), "Sent:1") })
	node.kill()
	node.start()
	if _, refusal, err := alice.do("", "withdraw", "203.0.113.7", "--reason", "mistake"); err != nil {
		t.Fatal(err, refusal)
	}
	if d = <-got; d.Kind != "mistake" || !strings.Contains(d.Text, "alice withdrew its claim of 203.0.113.7 in sshd as a mistake") {
		t.Errorf("the message is %+v", d)
	}
}

// press presses a message's button as a browser does.
func press(t *testing.T, button, origin string) {
	t.Helper()
	u, err := url.Parse(button)
	testnet.Must(t, err)
	body := url.Values{"do": {u.Query().Get("do")}}.Encode()
	u.RawQuery = ""
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), strings.NewReader(body))
	testnet.Must(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", origin)
	resp, err := http.DefaultClient.Do(r)
	testnet.Must(t, err)
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "Lifted 1 ban of 203.0.113.7.") {
		t.Errorf("the button answered %s (%v)", text, err)
	}
}

func receivers(n *walkNode) (s string) {
	var list []control.Notify
	if err := control.NewClient(n.dir+"/agent.sock").Get(n.t.Context(), "/v1/notify", nil, &list); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%+v", list)
}
