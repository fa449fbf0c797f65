// Package arch holds the rules of who may import whom, as a test that opens
// the files itself: one that asks the go command would pass from its cache
// after the tree went wrong.
package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport is the architecture on one screen: the packages of ours that each
// package may import. "internal/x/..." is judged as internal/x. Test files are
// free, because they put parts together to test them.
var mayImport = map[string][]string{
	"topics":              {"internal/ban", "internal/span", "internal/strict"},
	"client":              {},
	"internal/ban":        {},
	"internal/cli":        {"internal/printable"},
	"internal/printable":  {},
	"internal/store":      {},
	"internal/control":    {"internal/ban", "internal/printable"},
	"internal/strict":     {},
	"internal/config":     {"internal/ban", "internal/policy", "internal/strict"},
	"internal/detect":     {"internal/ban", "internal/span", "topics"},
	"internal/span":       {},
	"internal/wire":       {"internal/ban"},
	"internal/keys":       {"internal/ban", "internal/wire"},
	"internal/federation": {"internal/ban", "internal/keys", "internal/store", "internal/wire"},
	"internal/firewall":   {"internal/ban"},
	"internal/policy":     {"internal/ban", "internal/span", "internal/strict"},
	"internal/neverban":   {"internal/ban"},
	"internal/ledger":     {"internal/ban", "internal/store", "internal/policy", "internal/neverban"},
	"internal/wallet":     {"internal/ban"},
	"internal/export":     {"internal/ban", "internal/printable", "internal/wallet"},
	"internal/gate":       {"internal/ban", "internal/wallet"},
	"internal/broker":     {"internal/ban", "internal/wire", "internal/span", "internal/strict"},
	"internal/settings": {
		"topics", "internal/ban", "internal/config", "internal/detect", "internal/federation", "internal/firewall", "internal/gate",
		"internal/keys", "internal/neverban", "internal/policy", "internal/span", "internal/strict", "internal/wire",
	},
	"internal/agent": {
		"topics", "internal/ban", "internal/broker", "internal/config", "internal/control", "internal/detect", "internal/export",
		"internal/federation", "internal/firewall", "internal/gate", "internal/keys", "internal/ledger", "internal/neverban", "internal/policy",
		"internal/settings", "internal/store", "internal/wallet", "internal/wire",
	},
	"cmd/agent": {
		"topics", "client", "internal/agent", "internal/ban", "internal/cli", "internal/config", "internal/control", "internal/detect", "internal/printable", "internal/span",
		"internal/federation", "internal/firewall", "internal/keys", "internal/ledger", "internal/policy", "internal/neverban", "internal/settings", "internal/store", "internal/strict", "internal/wallet", "internal/wire",
	},
	"cmd/broker": {"internal/ban", "internal/broker", "internal/cli", "internal/control", "internal/keys", "internal/strict", "internal/wire"},
}

// onlyIn confines each library that shapes a part to its home, so that it can
// be replaced there. Tests may use any.
var onlyIn = map[string][]string{
	"github.com/google/nftables":          {"internal/firewall"},
	"github.com/vishvananda/netlink":      {"internal/firewall", "internal/neverban"},
	"github.com/mochi-mqtt/server/v2":     {"internal/broker"},
	"github.com/eclipse/paho.mqtt.golang": {"internal/federation"},
	"golang.org/x/crypto/nacl/sign":       {"internal/wire"},
	"go.etcd.io/bbolt":                    {"internal/store", "internal/broker"},
	"github.com/pelletier/go-toml/v2":     {"internal/strict"},
	"github.com/spf13/cobra":              {"cmd/agent", "cmd/broker", "internal/cli"},
	"github.com/dlclark/regexp2":          {"internal/detect"},
	"github.com/fsnotify/fsnotify":        {"internal/detect", "internal/broker"},
	"github.com/coreos/go-systemd/v22":    {"internal/detect", "internal/agent", "internal/broker", "internal/gate", "internal/neverban"},
	"github.com/prometheus/client_golang": {"internal/agent", "internal/broker"},
	"golang.org/x/crypto/sha3":            {"internal/wallet"},
	"github.com/klauspost/compress":       {"internal/detect"},
	"github.com/gaissmai/bart":            {"internal/ledger", "internal/policy", "internal/neverban", "internal/firewall"},
	"banmesh/internal/store":              {"internal/federation", "internal/ledger", "internal/agent", "cmd/agent"},
	"os/exec":                             {"internal/detect", "internal/firewall", "internal/gate", "cmd/agent"}, // the last asks a running fail2ban for its bans
}

func TestNobodyImportsWhatTheTableDoesNotAllow(t *testing.T) {
	commented := map[string]bool{}
	packages := map[string]bool{}
	eachFile(t, func(dir, name string, imports []string, doc bool) {
		home := homeOf(dir)
		if home == "" {
			return
		}
		packages[dir] = true
		commented[dir] = commented[dir] || doc
		allowed, known := mayImport[home]
		if !known {
			t.Errorf("%s: package %s is not in mayImport: say in one line what it may know of", name, home)
			return
		}
		for _, i := range imports {
			if ours, ok := strings.CutPrefix(i, "banmesh/"); ok {
				if to := homeOf(ours); to != home && !slices.Contains(allowed, to) {
					t.Errorf("%s imports %s, an arrow that mayImport does not have", name, to)
				}
			}
			for library, homes := range onlyIn {
				if (i == library || strings.HasPrefix(i, library+"/")) && !slices.Contains(homes, home) {
					t.Errorf("%s imports %s, whose home is %s", name, i, strings.Join(homes, ", "))
				}
			}
		}
	})
	for dir := range packages {
		if !commented[dir] {
			t.Errorf("package %s has no package comment", dir)
		}
	}
	if len(packages) < 10 {
		t.Errorf("saw only %d packages: the test looks in the wrong place", len(packages))
	}
}

// TestTheBrokerLinksNoClient: the broker reads signed messages, it does not
// speak MQTT as a client, so nothing that it may import may import one.
func TestTheBrokerLinksNoClient(t *testing.T) {
	seen := map[string]bool{}
	var visit func(p, by string)
	visit = func(p, by string) {
		if seen[p] {
			return
		}
		seen[p] = true
		if slices.Contains(onlyIn["github.com/eclipse/paho.mqtt.golang"], p) {
			t.Errorf("cmd/broker reaches %s through %s", p, by)
		}
		for _, to := range mayImport[p] {
			visit(to, p)
		}
	}
	visit("cmd/broker", "itself")
}

// homeOf gives the package that owns a directory, or "" for one that the rules
// are not about.
func homeOf(dir string) string {
	if _, own := mayImport[dir]; own {
		return dir
	}
	parts := strings.Split(dir, "/")
	switch {
	case parts[0] == "test" || parts[0] == "tools" || parts[0] == ".":
		return ""
	case len(parts) > 1 && (parts[0] == "internal" || parts[0] == "cmd"):
		return path.Join(parts[0], parts[1])
	}
	return parts[0]
}

func eachFile(t *testing.T, f func(dir, name string, imports []string, doc bool)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "testdata" || (strings.HasPrefix(d.Name(), ".") && rel != ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), rel, src, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		var imports []string
		for _, i := range file.Imports {
			imports = append(imports, strings.Trim(i.Path.Value, `"`))
		}
		f(filepath.ToSlash(filepath.Dir(rel)), filepath.ToSlash(rel), imports, file.Doc != nil)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
