package compat

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
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

// listNode serves lists of a table that the test fills.
type listNode struct {
	table *export.Table
	mux   *http.ServeMux
}

func newLists(t *testing.T) *listNode {
	t.Helper()
	table := export.NewTable(nil)
	h, err := export.New(export.Options{Bans: table, Log: slog.New(slog.DiscardHandler), Identity: "op"})
	testnet.Must(t, err)
	mux := http.NewServeMux()
	h.Register(mux)
	n := &listNode{table, mux}
	n.ban("192.0.2.7", "192.0.2.0/28", "198.51.100.9", "203.0.113.0/24", "2001:db8::/64", "2001:db8:1::7")
	return n
}

func (n *listNode) ban(targets ...string) {
	for _, x := range targets {
		n.table.Apply([]export.Entry{{Target: ban.MustTarget(x), Topic: "sshd", Class: ban.ClassAuth, Until: time.Now().Add(time.Hour), Here: true}}, nil)
	}
}

// fetch saves a list in a file.
func (n *listNode) fetch(t *testing.T, path string) string {
	t.Helper()
	w := httptest.NewRecorder()
	n.mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/"+path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	file := filepath.Join(t.TempDir(), "list")
	testnet.Must(t, os.WriteFile(file, w.Body.Bytes(), 0o644))
	return file
}

// nft takes the list in one transaction, again and again, and drops those whom
// the node banned.
func TestNftLoadsTheList(t *testing.T) {
	testnet.Enter(t)
	n := newLists(t)
	file := n.fetch(t, "bans.nft")
	testnet.Run(t, "nft", "-c", "-f", file)
	testnet.Run(t, "nft", "-f", file)
	testnet.Run(t, "nft", "-f", file)
	for i := range 600 { // several commands of elements
		n.ban(fmt.Sprintf("198.18.%d.%d", i/100, 2*(i%100)))
	}
	n.table.Apply(nil, []export.Key{{Target: ban.MustTarget("203.0.113.0/24"), Topic: "sshd"}})
	testnet.Run(t, "nft", "-f", n.fetch(t, "bans.nft"))
	out := testnet.Run(t, "nft", "list", "table", "inet", "banmesh-list")
	for want, has := range map[string]bool{"192.0.2.0/28": true, "192.0.2.7": false, "198.51.100.9": true, "203.0.113.0": false, "2001:db8::/64": true, "2001:db8:1::7": true} {
		if strings.Contains(out, want) != has {
			t.Errorf("%s in the kernel: %v\n%s", want, !has, out)
		}
	}
}

// ipset restores the list over an older one, with the ends of the bans.
func TestIPSetRestoresTheList(t *testing.T) {
	testnet.Enter(t)
	n := newLists(t)
	testnet.Run(t, "ipset", "restore", "-file", n.fetch(t, "bans.ipset"))
	n.table.Apply(nil, []export.Key{{Target: ban.MustTarget("203.0.113.0/24"), Topic: "sshd"}})
	testnet.Run(t, "ipset", "restore", "-file", n.fetch(t, "bans.ipset"))
	testnet.Run(t, "ipset", "test", "banmesh-list-4", "192.0.2.7")
	testnet.Run(t, "ipset", "test", "banmesh-list-6", "2001:db8::99")
	out := testnet.Run(t, "ipset", "list")
	if strings.Contains(out, "203.0.113") || strings.Contains(out, "banmesh-list-4-n") || !strings.Contains(out, "198.51.100.9 timeout 3") {
		t.Error(out)
	}
}

// HAProxy and nginx take the configuration that docs/compat/lists.md shows, with our lists in it.
func TestWebServersTakeTheLists(t *testing.T) {
	n := newLists(t)
	files := strings.NewReplacer(
		"/etc/haproxy/banmesh.map", n.fetch(t, "bans.map"), "/etc/haproxy/banmesh.acl", n.fetch(t, "bans.netset"),
		"/etc/nginx/banmesh.geo", n.fetch(t, "bans.geo"))
	check := func(program, before, snippet, after string, args ...string) {
		t.Helper()
		if _, err := exec.LookPath(program); err != nil {
			t.Logf("%s is not installed", program)
			return
		}
		conf := filepath.Join(t.TempDir(), "conf")
		testnet.Must(t, os.WriteFile(conf, []byte(before+files.Replace(snippet)+after), 0o644))
		testnet.Run(t, program, append(args, conf)...)
	}
	check("haproxy", "defaults\n mode http\n timeout client 1s\n timeout server 1s\n timeout connect 1s\n", snippet(t, "lists.md", "haproxy"), "\n", "-c", "-f")
	check("nginx", "pid "+t.TempDir()+"/pid; error_log stderr; events {}\nhttp { access_log off;\n", snippet(t, "lists.md", "nginx"), "}\n", "-t", "-c")
}

// nft takes the static part of the page after the list.
func TestNftTakesTheRulesOfThePage(t *testing.T) {
	testnet.Enter(t)
	n := newLists(t)
	testnet.Run(t, "nft", "-f", n.fetch(t, "bans.nft"))
	rules := filepath.Join(t.TempDir(), "rules")
	testnet.Must(t, os.WriteFile(rules, []byte(snippet(t, "lists.md", "nft")), 0o644))
	testnet.Run(t, "nft", "-f", rules)
	testnet.Run(t, "nft", "-f", n.fetch(t, "bans.nft"))
}

// snippet gives the only block of a language in a page below docs/compat.
func snippet(t *testing.T, page, language string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../docs/compat", page))
	testnet.Must(t, err)
	_, rest, found := strings.Cut(string(b), "```"+language+"\n")
	text, _, ended := strings.Cut(rest, "```")
	if !found || !ended {
		t.Fatalf("%s has no block of %s", page, language)
	}
	return text
}

// HAProxy and nginx with the page's configuration refuse whom the lists name,
// and serve everybody else.
func TestWebServersRefuseByTheLists(t *testing.T) {
	t.Parallel()
	for program, run := range map[string]func(t *testing.T, dir string, files, ports *strings.Replacer) []string{
		"haproxy": func(t *testing.T, dir string, files, ports *strings.Replacer) []string {
			conf := filepath.Join(dir, "conf")
			text := "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n" + ports.Replace(files.Replace(snippet(t, "lists.md", "haproxy"))) + "\n"
			testnet.Must(t, os.WriteFile(conf, []byte(text), 0o644))
			return []string{"-db", "-f", conf}
		},
		"nginx": func(t *testing.T, dir string, files, ports *strings.Replacer) []string {
			conf := filepath.Join(dir, "conf")
			text := "daemon off; master_process off; pid " + dir + "/pid; error_log stderr; events {}\nhttp { access_log off;\n"
			for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				text += fmt.Sprintf("%s_temp_path %s/%s;\n", kind, dir, kind)
			}
			// The page's server has a site of its own: here it answers.
			server := strings.Replace(ports.Replace(files.Replace(snippet(t, "lists.md", "nginx"))), "return 403; }", "return 403; }\nlocation / { return 200 served; }", 1)
			testnet.Must(t, os.WriteFile(conf, []byte(text+server+"}\n"), 0o644))
			return []string{"-c", conf}
		},
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(program); err != nil {
				t.Skip(program + " is not installed")
			}
			n := newLists(t)
			n.ban("127.0.0.2", "127.0.3.0/24")
			files := strings.NewReplacer(
				"/etc/haproxy/banmesh.map", n.fetch(t, "bans.map"), "/etc/haproxy/banmesh.acl", n.fetch(t, "bans.netset"),
				"/etc/nginx/banmesh.geo", n.fetch(t, "bans.geo"))
			app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "served") }))
			defer app.Close()
			front := listen(t)
			front.Close() // the program takes the port
			ports := strings.NewReplacer("127.0.0.1:8088", front.Addr().String(), "127.0.0.1:8089", app.Listener.Addr().String())
			start(t, program, run(t, t.TempDir(), files, ports)...)
			ask := func(from string) string {
				d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
				c := &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
				answer, err := c.Get("http://" + front.Addr().String() + "/")
				if err != nil {
					return "refused"
				}
				defer answer.Body.Close()
				b, err := io.ReadAll(answer.Body)
				if err != nil || answer.StatusCode != http.StatusOK {
					return "refused"
				}
				return string(b)
			}
			testnet.Eventually(t, func() bool { return ask("127.0.0.1") == "served" })
			for from, want := range map[string]string{"127.0.0.2": "refused", "127.0.3.9": "refused", "127.0.0.3": "served"} {
				if got := ask(from); got != want {
					t.Errorf("%s: %s, want %s", from, got, want)
				}
			}
		})
	}
}
