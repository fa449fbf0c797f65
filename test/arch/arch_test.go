// Package arch holds the rules of who may import whom, of package comments and
// of docs/architecture.md, as tests that open the files themselves: one that
// asks the go command would pass from its cache after the tree went wrong.
package arch

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport is the architecture on one screen: the packages of ours that each
// package may import. A package below one with a row, and without a row of its
// own, is judged as that one. Test files are free, because they put parts
// together to test them. A row says no more than is used.
var mayImport = map[string][]string{
	"client":             {},
	"topics":             {"internal/ban", "internal/span", "internal/strict"},
	"internal/ban":       {},
	"internal/cli":       {"internal/printable", "internal/span"},
	"internal/printable": {},
	"internal/store":     {},
	"internal/control":   {"internal/ban", "internal/printable", "internal/span"},
	"internal/strict":    {},
	"internal/span":      {},
	"internal/config":    {"internal/policy", "internal/strict"},
	"internal/settings": {
		"internal/ban", "internal/compat/lists", "internal/config", "internal/detect", "internal/federation", "internal/firewall", "internal/firewall/enforcers", "internal/gate",
		"internal/guests", "internal/neverban", "internal/notify", "internal/policy", "internal/printable", "internal/span", "internal/strict", "internal/wire", "topics",
	},
	"internal/detect":     {"internal/ban", "internal/span", "internal/strict", "topics"},
	"internal/wire":       {"internal/ban"},
	"internal/keys":       {"internal/ban", "internal/wholefile", "internal/wire"},
	"internal/mqttguard":  {},
	"internal/natsindex":  {},
	"internal/federation": {"internal/ban", "internal/keys", "internal/mqttguard", "internal/store", "internal/wire"},
	"internal/policy":     {"internal/ban", "internal/span", "internal/strict"},
	"internal/neverban":   {"internal/ban", "internal/procnet"},
	"internal/procnet":    {},
	"internal/doctor": {
		"internal/ban", "internal/control", "internal/detect", "internal/federation", "internal/firewall", "internal/firewall/enforcers", "internal/neverban", "internal/printable", "internal/settings", "internal/span",
	},
	"internal/pairing":            {"internal/ban", "internal/wire"},
	"internal/hostscan":           {"internal/procnet", "topics"},
	"internal/history":            {"internal/ban"},
	"internal/siem":               {"internal/control"},
	"internal/top":                {},
	"internal/notify":             {"internal/ban", "internal/control", "internal/history", "internal/mqttguard", "internal/printable", "internal/wholefile"},
	"internal/page":               {"internal/ban", "internal/control", "internal/detect", "internal/doctor", "internal/ledger", "internal/printable", "internal/span", "internal/wholefile"},
	"internal/xarf":               {"internal/ban"},
	"internal/ledger":             {"internal/ban", "internal/policy", "internal/store"},
	"internal/firewall":           {"internal/ban", "internal/firewall/desired"},
	"internal/firewall/desired":   {"internal/ban"},
	"internal/firewall/nft":       {"internal/ban", "internal/firewall", "internal/firewall/desired"},
	"internal/firewall/tools":     {"internal/ban", "internal/firewall", "internal/firewall/desired"},
	"internal/firewall/enforcers": {"internal/firewall", "internal/firewall/nft", "internal/firewall/tools"},
	"internal/firewall/testnet":   {"internal/ban"},
	"internal/honeyport":          {},
	"internal/guests":             {"internal/ban"},
	"internal/wallet":             {"internal/ban"},
	"internal/wallet/signedlist":  {"internal/ban", "internal/wallet", "internal/wholefile"},
	"internal/export":             {"internal/ban", "internal/printable"},
	"internal/gate":               {"internal/wallet", "internal/wholefile"},
	"internal/wholefile":          {},
	"internal/compat/recent":      {"internal/ban", "internal/export", "internal/wholefile"},
	"internal/compat/credentials": {"internal/ban", "internal/wholefile"},
	"internal/compat/pickle":      {},
	"internal/compat/fail2banlog": {"internal/ban", "internal/export"},
	"internal/compat/capi":        {"internal/ban", "internal/compat/credentials", "internal/compat/recent", "internal/compat/serving", "internal/compat/usage", "internal/export"},
	"internal/compat/serving":     {},
	"internal/compat/usage":       {"internal/ban"},
	"internal/compat/fail2ban":    {"internal/compat/pickle"},
	"internal/compat/lists":       {"internal/ban"},
	"internal/compat/lists/fetch": {"internal/compat/lists", "internal/wholefile"},
	"internal/compat/lapi":        {"internal/ban", "internal/compat/credentials", "internal/compat/recent", "internal/compat/serving", "internal/compat/usage", "internal/export"},
	"internal/compat/vallumd":     {"internal/ban", "internal/broker", "internal/broker/mqttclient", "internal/export"},
	"internal/broker/mqttclient":  {"internal/broker"},
	"internal/broker":             {"internal/ban", "internal/broker/mqttclient", "internal/span", "internal/store", "internal/strict", "internal/wire"},
	"internal/agent/api": {
		"internal/ban", "internal/compat/capi", "internal/compat/credentials", "internal/compat/fail2ban", "internal/compat/lapi", "internal/compat/serving", "internal/compat/usage", "internal/control", "internal/detect", "internal/doctor", "internal/export", "internal/federation", "internal/firewall",
		"internal/guests", "internal/history", "internal/ledger", "internal/neverban", "internal/notify", "internal/policy", "internal/settings", "internal/span", "internal/wallet/signedlist", "internal/wire",
	},
	"internal/agent": {
		"internal/agent/api", "internal/ban", "internal/broker", "internal/broker/mqttclient", "internal/compat/capi", "internal/compat/credentials", "internal/compat/fail2ban", "internal/compat/fail2banlog", "internal/compat/lapi", "internal/compat/recent", "internal/compat/serving", "internal/compat/usage", "internal/compat/lists", "internal/compat/vallumd", "internal/config", "internal/control", "internal/detect", "internal/doctor", "internal/export",
		"internal/federation", "internal/firewall", "internal/firewall/enforcers", "internal/gate", "internal/honeyport", "internal/guests", "internal/history", "internal/keys", "internal/ledger", "internal/natsindex", "internal/neverban", "internal/notify", "internal/page", "internal/policy",
		"internal/procnet", "internal/settings", "internal/span", "internal/store", "internal/wire", "internal/wholefile", "internal/wallet", "internal/wallet/signedlist", "topics",
	},
	"cmd/agent": {
		"internal/compat/lists", "internal/compat/lists/fetch", // the second for `agent fetch`, a process of its own
		"internal/agent", "internal/ban", "internal/cli", "internal/config", "internal/control", "internal/detect", "internal/doctor", "internal/export", "internal/federation",
		"internal/firewall", "internal/firewall/enforcers", "internal/history", "internal/hostscan", "internal/keys", "internal/ledger", "internal/neverban",
		"internal/pairing", "internal/policy", "internal/printable", "internal/settings", "internal/siem", "internal/span", "internal/store", "internal/strict", "internal/top",
		"internal/wallet", "internal/wallet/signedlist", "internal/wire", "internal/xarf", "topics",
	},
	"deploy/image":  {},
	"deploy/docgen": {"cmd/agent", "cmd/broker", "internal/cli"},
	"cmd/banmesh":   {"cmd/agent", "cmd/broker", "internal/cli"},
	"cmd/gate":      {"internal/gate"},
	"cmd/broker":    {"internal/ban", "internal/broker", "internal/cli", "internal/control", "internal/strict", "internal/wire"},
}

// onlyIn confines each library that shapes a part to its home, so that it can
// be replaced there. Tests may use any.
var onlyIn = map[string][]string{
	"github.com/google/nftables":          {"internal/firewall/nft"},
	"github.com/vishvananda/netlink":      {"internal/neverban"},
	"github.com/mochi-mqtt/server/v2":     {"internal/broker"},
	"github.com/eclipse/paho.mqtt.golang": {"internal/federation", "internal/notify"},
	"charm.land/bubbletea/v2":             {"internal/top"},
	"github.com/wneessen/go-mail":         {"internal/notify"},
	"golang.org/x/crypto/nacl/sign":       {"internal/wire"},
	"github.com/gtank/ristretto255":       {"internal/pairing"},
	"go.etcd.io/bbolt":                    {"internal/store"},
	"github.com/pelletier/go-toml/v2":     {"internal/strict"},
	"github.com/spf13/cobra":              {"cmd/agent", "cmd/banmesh", "cmd/broker", "deploy/docgen", "internal/cli"},
	"github.com/dlclark/regexp2":          {"internal/detect"},
	"github.com/fsnotify/fsnotify":        {"internal/detect"},
	"github.com/coreos/go-systemd/v22":    {"cmd/gate", "internal/agent", "internal/broker", "internal/control"},
	"github.com/prometheus/client_golang": {"internal/agent/api", "internal/broker"},
	"github.com/boombuler/barcode/qr":     {"internal/page"},
	"github.com/klauspost/compress":       {"internal/detect"},
	"banmesh/internal/store":              {"cmd/agent", "internal/agent", "internal/broker", "internal/federation", "internal/ledger"},
	"os/exec":                             {"cmd/agent", "internal/detect", "internal/firewall/nft", "internal/firewall/testnet", "internal/firewall/tools"}, // the last asks a running fail2ban for its bans
}

func TestNobodyImportsWhatTheTableDoesNotAllow(t *testing.T) {
	packages := read(t)
	for dir, p := range packages {
		home := homeOf(dir)
		if home == "" {
			continue
		}
		allowed, known := mayImport[home]
		if !known {
			t.Errorf("package %s is not in mayImport: say in one line what it may know of", dir)
			continue
		}
		for i, file := range p.imports {
			if ours, ok := strings.CutPrefix(i, "banmesh/"); ok {
				if to := homeOf(ours); to != home && !slices.Contains(allowed, to) {
					t.Errorf("%s imports %s, an arrow that mayImport does not have", file, to)
				}
			}
			for library, homes := range onlyIn {
				if uses(i, library) && !slices.Contains(homes, home) {
					t.Errorf("%s imports %s, whose home is %s", file, i, strings.Join(homes, ", "))
				}
			}
		}
	}
}

// A row that nothing uses hides the arrow that comes next.
func TestTheTablesSayNoMoreThanIsUsed(t *testing.T) {
	packages := read(t)
	imported := map[string]map[string]bool{} // by home
	for dir, p := range packages {
		home := homeOf(dir)
		if imported[home] == nil {
			imported[home] = map[string]bool{}
		}
		for i := range p.imports {
			imported[home][i] = true
			if ours, ok := strings.CutPrefix(i, "banmesh/"); ok {
				imported[home]["home "+homeOf(ours)] = true
			}
		}
	}
	for home, allowed := range mayImport {
		if packages[home] == nil {
			t.Errorf("mayImport has a row for %s, which is no package", home)
		}
		for _, to := range allowed {
			if !imported[home]["home "+to] {
				t.Errorf("mayImport lets %s import %s, which it no longer does: take it away", home, to)
			}
		}
	}
	for library, homes := range onlyIn {
		for _, home := range homes {
			used := false
			for i := range imported[home] {
				used = used || uses(i, library)
			}
			if !used {
				t.Errorf("onlyIn names %s as a home of %s, which it no longer uses: take it away", home, library)
			}
		}
	}
}

// Whoever imports the client takes nothing else into a build.
func TestTheClientModuleNeedsNothing(t *testing.T) {
	for i, file := range read(t)["client"].imports {
		if first, _, _ := strings.Cut(i, "/"); strings.Contains(first, ".") || first == "banmesh" {
			t.Errorf("%s imports %s: the client has the standard library alone", file, i)
		}
	}
	module, err := os.ReadFile(filepath.Join("..", "..", "client", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(module), "require") {
		t.Errorf("the client requires modules:\n%s", module)
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	for dir, p := range read(t) {
		if len(p.comments) != 1 {
			t.Errorf("package %s has its comment in %d files, not one: %s", dir, len(p.comments), strings.Join(p.comments, ", "))
		}
	}
}

func uses(imported, library string) bool {
	return imported == library || strings.HasPrefix(imported, library+"/")
}

// homeOf gives the package whose row a directory is judged by, or "" for one
// that the rules are not about.
func homeOf(dir string) string {
	if top, _, _ := strings.Cut(dir, "/"); top == "test" || top == "tools" || top == "." {
		return ""
	}
	for at := dir; at != "."; at = path.Dir(at) {
		if _, own := mayImport[at]; own {
			return at
		}
	}
	return dir
}
