package notify

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestASecretThatEveryUserMayReadIsRefused(t *testing.T) {
	t.Parallel()
	path := secretFile(t, secret)
	e := &Entry{Type: Gotify, TokenFile: path}
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o644: false, 0o601: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Secret(); (err == nil) != ok {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	for text, ok := range map[string]bool{"": false, "x": true, "a\nb": false, strings.Repeat("x", maxSecret-1): true, strings.Repeat("x", maxSecret): false} {
		e.TokenFile = secretFile(t, text)
		if _, err := e.Secret(); (err == nil) != ok {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	for text, ok := range map[string]bool{strings.Repeat("x", leastSecret-1): false, strings.Repeat("x", leastSecret): true} {
		e := &Entry{Type: Webhook, TokenFile: secretFile(t, text)}
		if _, err := e.Secret(); (err == nil) != ok {
			t.Errorf("a key of %d: %v", len(text), err)
		}
	}
}

func TestEntriesThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	file := "/x"
	for name, c := range map[string]struct {
		e    Entry
		keys string // of the faults
	}{
		"a mail":               {Entry{Type: Email, To: []string{"a@example.org"}, From: "b@example.org"}, ""},
		"a mail to nobody":     {Entry{Type: Email, From: "b@example.org"}, "to"},
		"a mail of nobody":     {Entry{Type: Email, To: []string{"a@example.org"}}, "from"},
		"a header":             {Entry{Type: Email, To: []string{"a@example.org\r\nBcc: x@example.org"}, From: "b@example.org"}, "to"},
		"a password alone":     {Entry{Type: Email, To: []string{"a@example.org"}, From: "b@example.org", TokenFile: file}, "user"},
		"an unknown type":      {Entry{Type: "pager"}, "type"},
		"no topic":             {Entry{Type: Ntfy, URL: "https://ntfy.sh/"}, "url"},
		"two topics":           {Entry{Type: Ntfy, URL: "https://ntfy.sh/a/b"}, "url"},
		"plain text":           {Entry{Type: Ntfy, URL: "http://ntfy.example/a"}, "url"},
		"plain text, allowed":  {Entry{Type: Ntfy, URL: "http://ntfy.example/a", Plain: true}, ""},
		"plain text, here":     {Entry{Type: Ntfy, URL: "http://127.0.0.1/a"}, ""},
		"a password in it":     {Entry{Type: Ntfy, URL: "https://a:b@ntfy.sh/a"}, "url"},
		"another scheme":       {Entry{Type: Ntfy, URL: "file:///etc/passwd"}, "url"},
		"an unsigned webhook":  {Entry{Type: Webhook, URL: "https://x.example/"}, "token_file"},
		"slack's address":      {Entry{Type: Slack, URL: "https://hooks.slack.com/services/x", TokenFile: file}, "url"},
		"slack":                {Entry{Type: Slack, TokenFile: file}, ""},
		"matrix nowhere":       {Entry{Type: Matrix, URL: "https://matrix.org", TokenFile: file}, "to"},
		"matrix":               {Entry{Type: Matrix, URL: "https://matrix.org", TokenFile: file, To: []string{"!a:b"}}, ""},
		"telegram":             {Entry{Type: Telegram, TokenFile: file, To: []string{"1"}}, ""},
		"a filter":             {Entry{Type: MQTT, URL: "ssl://b.example", To: []string{"home/#"}}, "to"},
		"mqtt":                 {Entry{Type: MQTT, URL: "ssl://b.example", To: []string{"home"}}, ""},
		"mqtt in plain text":   {Entry{Type: MQTT, URL: "tcp://b.example", To: []string{"home"}}, "url"},
		"a receiver of gotify": {Entry{Type: Gotify, URL: "https://g.example", TokenFile: file, To: []string{"x"}}, "to"},
		"too often":            {Entry{Type: Slack, TokenFile: file, Every: time.Second}, "every"},
	} {
		c.e.Name = "x"
		if c.e.Every == 0 {
			c.e.Every = DefaultEvery
		}
		var keys []string
		for _, f := range c.e.Check() {
			keys = append(keys, f.Key)
		}
		if got := strings.Join(keys, ","); got != c.keys {
			t.Errorf("%s: faults at %q, want %q", name, got, c.keys)
		}
	}
}

func FuzzNoTextOfAPeerLeavesItsPlace(f *testing.F) {
	f.Add("alice", "claims wait", "web 1")
	f.Add("<!channel>", "a\r\nBcc: x\u202e", "x\x00\x1b[31m")
	f.Fuzz(func(t *testing.T, peer, text, label string) {
		n := exampleBan()
		n.Peers, n.Text = []string{peer}, text
		n.bound()
		e := &Entry{Name: "x", Type: Email, On: []Kind{Ban}, Label: label, From: "b@example.org", To: []string{"a@example.org"}}
		p := &pending{ID: newID(), Since: noon}
		p.add(n)
		m := p.message(Ban, e, Page{}, noon)
		if len(m.Title) > 200 || len(m.Text()) > 4*maxText {
			t.Errorf("%d bytes of title, %d of text", len(m.Title), len(m.Text()))
		}
		if strings.ContainsAny(m.Text()+m.Title, "\r\x00\x1b\u202e") {
			t.Errorf("a character steers: %q %q", m.Title, m.Text())
		}
		l, err := (&email{entry: e}).letter(m)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if _, err := l.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(b.String(), "\r\n\r\n")
		for _, line := range strings.Split(head, "\r\n") {
			if strings.HasPrefix(strings.ToLower(line), "bcc:") {
				t.Errorf("a header of its own: %q", head)
			}
		}
		if s := slackText.Replace(text); strings.ContainsAny(s, "<>") {
			t.Errorf("slack is sent %q", s)
		}
	})
}
