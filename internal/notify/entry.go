package notify

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// A Type is a sort of receiver.
type Type string

// The types.
const (
	Email    Type = "email"
	Webhook  Type = "webhook"
	Ntfy     Type = "ntfy"
	Gotify   Type = "gotify"
	Matrix   Type = "matrix"
	Telegram Type = "telegram"
	Slack    Type = "slack"
	Discord  Type = "discord"
	MQTT     Type = "mqtt"
)

// Types lists them.
func Types() []string {
	return []string{string(Email), string(Webhook), string(Ntfy), string(Gotify), string(Matrix), string(Telegram), string(Slack), string(Discord), string(MQTT)}
}

// Limits of entries.
const (
	MaxEntries = 20
	maxName    = 32
	// DefaultEvery is how often a kind is told at most.
	DefaultEvery = 5 * time.Minute
	leastEvery   = time.Minute
	mostEvery    = 24 * time.Hour
	// leastSecret is the fewest characters of a key that signs webhooks.
	leastSecret = 16
	maxSecret   = 4096
)

// An Entry is a receiver as the configuration names it. Entries are checked by
// [Entry.Check].
type Entry struct {
	Name string
	Type Type
	URL  string
	// To are the addresses of e-mail, the room of Matrix, the chat of Telegram, the
	// topic of MQTT.
	To        []string
	From      string
	User      string
	TokenFile string
	CAFile    string
	Plain     bool // without TLS beyond this machine
	On        []Kind
	Every     time.Duration
	Quiet     Quiet
	Urgent    []Kind // kinds that quiet hours do not stop
	Details   bool
	Label     string
}

// A KeyError is a fault of an entry, at a key.
type KeyError struct {
	Key string
	Err error
}

func (e *KeyError) Error() string { return e.Key + ": " + e.Err.Error() }

// Check finds the faults of an entry, all of them, as [KeyError]s. It reads no
// file.
func (e *Entry) Check() (faults []*KeyError) {
	fault := func(key, format string, args ...any) {
		faults = append(faults, &KeyError{key, fmt.Errorf(format, args...)})
	}
	if !validName(e.Name) {
		fault("name", "%.64q is no name: want 1 to %d of a-z, 0-9 and '-'", e.Name, maxName)
	}
	if !slices.Contains(Types(), string(e.Type)) {
		fault("type", "%.64q is none of %s", e.Type, strings.Join(Types(), ", "))
		return faults
	}
	if e.Every < leastEvery || e.Every > mostEvery {
		fault("every", "want one minute to one day")
	}
	if len(e.Label) > 64 || strings.ContainsFunc(e.Label, func(r rune) bool { return r < ' ' }) {
		fault("label", "want one line of at most 64 bytes")
	}
	e.checkURL(fault)
	e.checkTo(fault)
	if needsToken(e.Type) && e.TokenFile == "" {
		fault("token_file", "%s needs a file with %s", e.Type, tokenMeaning[e.Type])
	}
	if e.TokenFile == "" && e.User != "" {
		fault("user", "a user needs token_file, a file with the password")
	}
	if e.TokenFile != "" && e.User == "" && (e.Type == Email || e.Type == MQTT) {
		fault("user", "a password in token_file needs a user")
	}
	if e.User != "" && !slices.Contains([]Type{Email, MQTT, Ntfy}, e.Type) {
		fault("user", "%s has no users", e.Type)
	}
	if e.From != "" && e.Type != Email {
		fault("from", "it is for e-mail")
	}
	return faults
}

func validName(s string) bool {
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
}

var tokenMeaning = map[Type]string{
	Webhook: "the key that signs, of at least 16 characters", Gotify: "the application's token", Matrix: "an access token",
	Telegram: "the bot's token", Slack: "the webhook's address, which is a secret", Discord: "the webhook's address, which is a secret",
}

func needsToken(t Type) bool { return tokenMeaning[t] != "" }

// secretURL says whether a type's whole address is the secret.
func secretURL(t Type) bool { return t == Slack || t == Discord }

var schemes = map[Type][]string{Email: {"smtp", "smtps"}, MQTT: {"tcp", "ssl"}}

// standardURL are the addresses of types that need none written.
var standardURL = map[Type]string{Email: "smtp://127.0.0.1:25", Telegram: "https://api.telegram.org"}

func (e *Entry) checkURL(fault func(key, format string, args ...any)) {
	switch {
	case secretURL(e.Type) && e.URL != "":
		fault("url", "the address of %s is a secret: it belongs into the file that token_file names", e.Type)
		return
	case secretURL(e.Type):
		return
	case e.URL == "":
		e.URL = standardURL[e.Type]
	}
	if e.URL == "" {
		fault("url", "%s needs the address of its server", e.Type)
		return
	}
	u, err := parseURL(e.Type, e.URL, e.Plain)
	if err != nil {
		fault("url", "%v", err)
		return
	}
	if e.Type == Ntfy && strings.Count(strings.Trim(u.Path, "/"), "/") != 0 || e.Type == Ntfy && strings.Trim(u.Path, "/") == "" {
		fault("url", "want the server and the topic, such as https://ntfy.sh/my-topic")
	}
}

// parseURL reads an address of a receiver. Messages and secrets go in plain text
// to this machine, and elsewhere only where plain says so.
func parseURL(t Type, text string, plain bool) (*url.URL, error) {
	want := schemes[t]
	if want == nil {
		want = []string{"https", "http"}
	}
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Host == "" || u.Hostname() == "" || !slices.Contains(want, u.Scheme) {
		return nil, fmt.Errorf("want an address that begins with %s", strings.Join(want, ":// or ")+"://")
	}
	if u.User != nil {
		return nil, errors.New("a password does not belong there; use token_file")
	}
	if (u.Scheme == "http" || u.Scheme == "tcp") && !plain && !thisMachine(u.Hostname()) {
		return nil, fmt.Errorf("%s:// sends the messages in plain text: use %s://, or say plain = true", u.Scheme, map[string]string{"http": "https", "tcp": "ssl"}[u.Scheme])
	}
	return u, nil
}

// thisMachine says whether a host is the loopback.
func thisMachine(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func (e *Entry) checkTo(fault func(key, format string, args ...any)) {
	one := map[Type]string{Matrix: "the room, such as !abc:example.org", Telegram: "the chat's number, or @channel", MQTT: "the topic, such as home/banmesh"}[e.Type]
	switch {
	case e.Type == Email:
		if len(e.To) == 0 || len(e.To) > 20 {
			fault("to", "want 1 to 20 addresses")
		}
		for _, a := range e.To {
			if !mailbox(a) {
				fault("to", "%.100q is no mail address", a)
			}
		}
		if !mailbox(e.From) {
			fault("from", "%.100q is no mail address; want the one that messages come from", e.From)
		}
	case one == "" && len(e.To) > 0:
		fault("to", "%s sends to its url alone", e.Type)
	case one != "" && (len(e.To) != 1 || e.To[0] == "" || len(e.To[0]) > 255):
		fault("to", "want %s", one)
	case e.Type == MQTT && strings.ContainsAny(e.To[0], "+#\x00"):
		fault("to", "%q has characters of a filter: want one topic", e.To[0])
	}
}

// mailbox says whether a text is a bare mail address.
func mailbox(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Name == "" && a.Address == s && len(s) <= 254 && !strings.ContainsAny(s, "\r\n ")
}

// Wants says whether an entry takes a kind.
func (e *Entry) Wants(k Kind) bool { return slices.Contains(e.On, k) }

// ErrOpenSecret says that a file with a secret may be read by every user.
var ErrOpenSecret = errors.New("every user of this machine may read it")

// Secret reads the entry's secret, "" where it has none.
func (e *Entry) Secret() (string, error) {
	if e.TokenFile == "" {
		return "", nil
	}
	f, err := os.Open(e.TokenFile)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no file", e.TokenFile)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", &fs.PathError{Op: "reading a secret from", Path: e.TokenFile, Err: fmt.Errorf("%w: chmod o-rwx %s", ErrOpenSecret, e.TokenFile)}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	switch {
	case s == "" || len(b) > maxSecret || strings.ContainsAny(s, "\r\n"):
		return "", fmt.Errorf("%s: want one line of 1 to %d bytes", e.TokenFile, maxSecret)
	case e.Type == Webhook && len(s) < leastSecret:
		return "", fmt.Errorf("%s: a key that signs has at least %d characters", e.TokenFile, leastSecret)
	}
	if secretURL(e.Type) {
		if _, err := parseURL(e.Type, s, e.Plain); err != nil {
			return "", fmt.Errorf("%s: %w", e.TokenFile, err)
		}
	}
	return s, nil
}
