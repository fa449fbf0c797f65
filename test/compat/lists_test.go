package compat

import (
	"fmt"
	"log/slog"
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
