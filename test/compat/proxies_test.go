package compat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/export"
	"banmesh/internal/firewall/testnet"
)

// site is a proxy with a recipe of docs/compat/proxies.md, the site behind it
// and the agent beside it, in which the visitor (127.0.0.2) is banned or not.
type site struct {
	table *export.Table
	agent *http.Server
	url   string
	text  *strings.Replacer
}

// listen gives a listener on a free port of loopback.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testnet.Must(t, err)
	return l
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{table: export.NewTable(nil)}
	h, err := export.New(export.Options{
		Bans: s.table, Log: slog.New(slog.DiscardHandler), Appeal: "abuse@example.org", References: export.NewReferences(make([]byte, export.ReferenceKey)),
		ClientHeader: "X-Forwarded-For", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	})
	testnet.Must(t, err)
	mux := http.NewServeMux()
	h.Register(mux)
	agent, app := listen(t), listen(t)
	s.agent = &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	behind := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "served "+r.Method) })}
	go s.agent.Serve(agent) //nolint:errcheck // ends with Close
	go behind.Serve(app)    //nolint:errcheck // ends with Close
	t.Cleanup(func() { s.agent.Close(); behind.Close() })
	front, spare := listen(t), listen(t)
	front.Close() // the proxy takes the ports
	spare.Close()
	s.url = "http://" + front.Addr().String() + "/"
	s.text = strings.NewReplacer("127.0.0.1:7937", agent.Addr().String(), "127.0.0.1:8089", app.Addr().String(), "127.0.0.1:8088", front.Addr().String(), "127.0.0.1:7939", spare.Addr().String())
	return s
}

// ask is a visitor's request from 127.0.0.2.
func (s *site) ask(t *testing.T, method, accept string) (int, string, error) {
	t.Helper()
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}}
	q, err := http.NewRequestWithContext(t.Context(), method, s.url, strings.NewReader(strings.Repeat("x", len(method)-3)))
	testnet.Must(t, err)
	q.Header.Set("Accept", accept)
	resp, err := c.Do(q)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// tried serves, refuses with the page, and serves while the agent is down.
func (s *site) tried(t *testing.T) {
	t.Helper()
	want := func(claim, method, accept string, status int, part string) {
		t.Helper()
		var last string
		done := false
		for begun := time.Now(); !done && time.Since(begun) < 20*time.Second; {
			got, body, err := s.ask(t, method, accept)
			last = fmt.Sprint(got, " ", body, " ", err)
			if done = err == nil && got == status && strings.Contains(body, part); done {
				break
			}
			if !errors.Is(err, context.Canceled) {
				testnet.Run(t, "sleep", "0.05")
			}
		}
		if !done {
			t.Fatalf("%s: want %d with %q, got %s", claim, status, part, last)
		}
	}
	want("nobody is banned", "GET", "text/html", 200, "served GET")
	want("nobody is banned", "POST", "text/html", 200, "served POST")
	s.table.Apply([]export.Entry{{Target: ban.MustTarget("127.0.0.2"), Topic: "secret", Class: ban.ClassAuth, Until: time.Now().Add(time.Hour)}}, nil)
	want("a browser is refused", "GET", "text/html", 403, "<code>")
	want("a program is refused", "GET", "application/json", 403, `"banned":true,"reference":`)
	want("a form is refused", "POST", "text/html", 403, "abuse@example.org")
	if _, body, _ := s.ask(t, "GET", "application/json"); strings.Contains(body, "secret") {
		t.Errorf("the visitor is told the topic: %s", body)
	}
	testnet.Must(t, s.agent.Close())
	want("the agent is down", "GET", "text/html", 200, "served GET")
	want("the agent is down", "POST", "text/html", 200, "served POST")
}

func TestNginxAsksAndGoesOnWithoutTheAgent(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Skip("nginx is not installed")
	}
	s, dir := newSite(t), t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	temporary := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary += fmt.Sprintf("%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	testnet.Must(t, os.WriteFile(conf, []byte("daemon off; master_process off; pid "+dir+"/pid; error_log stderr; events {}\nhttp { access_log off;\n"+temporary+s.text.Replace(snippet(t, "proxies.md", "nginx"))+"}\n"), 0o644))
	start(t, "nginx", "-c", conf)
	s.tried(t)
}

func TestCaddyAsksAndGoesOnWithoutTheAgent(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("caddy"); err != nil {
		t.Skip("caddy is not installed")
	}
	s, dir := newSite(t), t.TempDir()
	conf := filepath.Join(dir, "Caddyfile")
	testnet.Must(t, os.WriteFile(conf, []byte("{\n\tadmin off\n\tstorage file_system "+dir+"\n}\n"+s.text.Replace(snippet(t, "proxies.md", "caddy"))), 0o644))
	start(t, "env", "HOME="+dir, "XDG_CONFIG_HOME="+dir, "caddy", "run", "--config", conf, "--adapter", "caddyfile")
	s.tried(t)
}

// Traefik is not in Debian: make test-proxies builds it.
func TestTraefikAsksAndGoesOnWithoutTheAgent(t *testing.T) {
	t.Parallel()
	program, err := filepath.Abs("../../bin/traefik")
	testnet.Must(t, err)
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("traefik"); err != nil {
			t.Skip("traefik is neither built nor installed: make test-proxies")
		}
	}
	s, dir := newSite(t), t.TempDir()
	static, dynamic := filepath.Join(dir, "traefik.yml"), filepath.Join(dir, "banmesh.yml")
	place := strings.NewReplacer("/etc/traefik/banmesh.yml", dynamic)
	testnet.Must(t, os.WriteFile(static, []byte(place.Replace(s.text.Replace(snippet(t, "proxies.md", "yaml")))+"global: {checkNewVersion: false, sendAnonymousUsage: false}\n"), 0o644))
	testnet.Must(t, os.WriteFile(dynamic, []byte(s.text.Replace(snippet(t, "proxies.md", "yml"))), 0o644))
	start(t, program, "--configFile="+static)
	s.tried(t)
}
