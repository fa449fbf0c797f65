package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
)

// email hands a mail to a server: with STARTTLS by smtp://, with TLS from the
// first byte by smtps://, and in plain text to this machine's own. A sendmail
// program is not run: the service may not, and such a program's own server
// listens on this machine.
type email struct {
	entry  *Entry
	secret string
	tls    *tls.Config
	within time.Duration // for an attempt with all its steps
}

func (x *email) send(ctx context.Context, m Message) (string, error) {
	u, err := url.Parse(x.entry.URL)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, x.within)
	defer cancel()
	letter, err := x.letter(m)
	if err != nil {
		return "", err
	}
	// The library leaves the connection open where a step before the mail fails.
	var opened []net.Conn
	defer func() {
		for _, c := range opened {
			_ = c.Close() // often it is closed already
		}
	}()
	client, err := x.client(u, func(c net.Conn) { opened = append(opened, c) })
	if err != nil {
		return "", err
	}
	if err := client.DialAndSendWithContext(ctx, letter); err != nil {
		return "", fmt.Errorf("handing the mail to %s: %s", u.Host, hide(err.Error(), x.secret))
	}
	return "the mail was taken by " + u.Host, nil
}

// client makes a client of the server at an address; opened is told of its
// connections.
func (x *email) client(u *url.URL, opened func(net.Conn)) (*mail.Client, error) {
	_, domain, _ := strings.Cut(x.entry.From, "@")
	t := x.tls.Clone()
	t.ServerName = u.Hostname()
	// The greeting and the identity name the sender's domain: this machine's name
	// is nobody's business.
	options := []mail.Option{mail.WithHELO(domain), mail.WithTimeout(x.within / 2), mail.WithTLSConfig(t), mail.WithoutNoop(), mail.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return x.guarded(c, err, opened)
	})}
	port := 587
	switch {
	case u.Scheme == "smtps":
		port = 465
		options = append(options, mail.WithSSL(), mail.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := (&tls.Dialer{NetDialer: &net.Dialer{}, Config: t}).DialContext(ctx, network, address)
			return x.guarded(c, err, opened)
		}))
	case thisMachine(u.Hostname()) && x.entry.User == "", x.entry.Plain:
		port = 25
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	default:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if p, err := strconv.Atoi(u.Port()); err == nil {
		port = p
	}
	options = append(options, mail.WithPort(port))
	if x.entry.User != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(x.entry.User), mail.WithPassword(x.secret))
	}
	return mail.NewClient(u.Hostname(), options...)
}

// guarded bounds the whole conversation: a server that says a byte now and then
// would otherwise hold it for ever.
func (x *email) guarded(c net.Conn, err error, opened func(net.Conn)) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	opened(c)
	g := &guardedConn{Conn: c, end: time.Now().Add(x.within), left: maxDialog}
	return g, g.SetDeadline(g.end)
}

// maxDialog bounds the bytes that a mail server says: the library reads a line
// however long it is.
const maxDialog = 256 << 10

// guardedConn is a connection whose deadline can only be brought forward, and that
// gives so many bytes.
type guardedConn struct {
	net.Conn
	end  time.Time
	left int
}

func (g *guardedConn) SetDeadline(t time.Time) error {
	if t.IsZero() || t.After(g.end) {
		t = g.end
	}
	return g.Conn.SetDeadline(t)
}

func (g *guardedConn) Read(b []byte) (int, error) {
	if g.left <= 0 {
		return 0, errors.New("it says more than a mail server has to")
	}
	n, err := g.Conn.Read(b[:min(len(b), g.left)])
	g.left -= n
	return n, err
}

func (x *email) letter(m Message) (*mail.Msg, error) {
	_, domain, _ := strings.Cut(x.entry.From, "@")
	l := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := l.From(x.entry.From); err != nil {
		return nil, fmt.Errorf("the sender: %w", err)
	}
	if err := l.To(x.entry.To...); err != nil {
		return nil, fmt.Errorf("a recipient: %w", err)
	}
	l.Subject(strings.Join(strings.Fields(m.Title), " "))
	l.SetMessageIDWithValue(m.ID + "@" + domain)
	l.SetDateWithValue(m.At)
	l.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody is away to it
	if m.Urgent {
		l.SetImportance(mail.ImportanceHigh)
	}
	l.SetBodyString(mail.TypeTextPlain, m.WithPages()+"\n")
	return l, nil
}
