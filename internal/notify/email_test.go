package notify

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// serveBadly is a mail server that takes one connection and does with it as the
// function says, until the client goes.
func serveBadly(t *testing.T, do func(ctx context.Context, c net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		do(ctx, c)
	}()
	t.Cleanup(func() { l.Close(); stop(); <-done })
	return l.Addr().String()
}

func TestAMailServerThatMisbehavesIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(ctx context.Context, c net.Conn)
		user string
		want string
		hang bool
	}{
		"silence": {do: func(ctx context.Context, _ net.Conn) { <-ctx.Done() }, want: "timeout", hang: true},
		"a byte now and then": {do: func(ctx context.Context, c net.Conn) {
			_, _ = c.Write([]byte("220 x\r\n"))
			for ctx.Err() == nil {
				if _, err := c.Write([]byte("2")); err != nil {
					return
				}
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
		}, want: "handing the mail", hang: true},
		"an endless line": {do: func(_ context.Context, c net.Conn) {
			for {
				if _, err := c.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, want: "handing the mail"},
		"no STARTTLS, and a password": {do: func(_ context.Context, c net.Conn) {
			_, _ = c.Write([]byte("220 x\r\n"))
			b := make([]byte, 1024)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				if strings.Contains(string(b[:n]), "AUTH") {
					t.Error("the password is sent in plain text")
				}
				if strings.HasPrefix(string(b[:n]), "QUIT") {
					_, _ = c.Write([]byte("221 x\r\n"))
					return
				}
				_, _ = c.Write([]byte("250-x\r\n250 AUTH PLAIN\r\n"))
			}
		}, user: "me", want: "STARTTLS"},
		"a refusal": {do: func(_ context.Context, c net.Conn) { _, _ = c.Write([]byte("554 go \x1b[2Jaway\r\n")) }, want: "go "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &Entry{Name: "x", Type: Email, URL: "smtp://" + serveBadly(t, c.do), To: []string{"a@example.org"}, From: "b@example.org", User: c.user}
			if c.user != "" {
				e.TokenFile = secretFile(t, secret)
			}
			r, err := newReceiver(e)
			if err != nil {
				t.Fatal(err)
			}
			if c.hang {
				r.(*email).within = 400 * time.Millisecond
			}
			answer, err := r.send(t.Context(), example(e))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
}
