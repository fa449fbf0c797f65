package tools

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"banmesh/internal/firewall"
)

// prepareUnit is the systemd unit that runs [PrepareSets] before saved rules are
// loaded.
const prepareUnit = "banmesh-ipsets.service"

// maxSaved bounds the saved rules that are looked at, in bytes a file.
const maxSaved = 16 << 20

// restorers are the programs that load iptables rules at boot: the files that
// they load, the signs that they are installed, and whether they save others'
// rules.
var restorers = []struct {
	name  string
	files []string
	signs []string
	saves bool
}{
	{"netfilter-persistent", []string{"/etc/iptables/rules.v4", "/etc/iptables/rules.v6"}, []string{"/etc/systemd/system/*.wants/netfilter-persistent.service"}, true},
	{"iptables-services", []string{"/etc/sysconfig/iptables", "/etc/sysconfig/ip6tables"}, []string{"/etc/systemd/system/*.wants/iptables.service", "/etc/systemd/system/*.wants/ip6tables.service"}, true},
	// ufw loads its own files alone, and never writes others' rules to them.
	{"ufw", []string{"/etc/ufw/before.rules", "/etc/ufw/before6.rules", "/etc/ufw/after.rules", "/etc/ufw/after6.rules", "/etc/ufw/user.rules", "/etc/ufw/user6.rules"}, []string{"/etc/systemd/system/*.wants/ufw.service"}, false},
}

// Restorers says of each program that loads iptables rules at boot whether it
// would fail for the sake of our sets: iptables-restore loads nothing of a file
// that names a set which does not exist, and the host would boot without its
// firewall. root is "/"; enforces says that the ipset enforcer is chosen.
func Restorers(root, table string, enforces bool) (list []firewall.Restorer) {
	table = cmp.Or(table, firewall.DefaultTable)
	prepared := exists(root, "/etc/systemd/system/*.wants/"+prepareUnit)
	for _, x := range restorers {
		r := firewall.Restorer{Name: x.name}
		for _, f := range x.files {
			if names, err := setsIn(filepath.Join(root, f), table); err == nil && len(names) > 0 {
				r.Files = append(r.Files, f)
			}
		}
		installed := slices.ContainsFunc(x.signs, func(s string) bool { return exists(root, s) })
		r.Fails = !prepared && (len(r.Files) > 0 || enforces && installed && x.saves)
		switch {
		case len(r.Files) == 0 && !(enforces && installed):
			continue
		case len(r.Files) > 0 && r.Fails:
			r.Text = fmt.Sprintf("%s loads %s at boot, which names ipsets of this agent: without them nothing of it is loaded, and the host boots without its firewall", x.name, strings.Join(r.Files, " and "))
		case r.Fails:
			r.Text = x.name + " loads saved rules at boot: saved beside this agent they name its ipsets, and without those nothing of them would be loaded"
		case prepared && x.saves:
			r.Text = fmt.Sprintf("%s loads saved rules at boot; %s creates the ipsets that they name before", x.name, prepareUnit)
		default:
			r.Text = x.name + " loads its own rules at boot and leaves the raw table alone"
		}
		if r.Fails {
			r.Fix = "systemctl enable --now " + prepareUnit
		}
		list = append(list, r)
	}
	return list
}

func exists(root, pattern string) bool {
	found, err := filepath.Glob(filepath.Join(root, pattern))
	return err == nil && len(found) > 0
}

// setsIn gives the names of our sets that a file of saved rules names.
func setsIn(file, table string) ([]string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSaved {
		return nil, fmt.Errorf("%s: %d bytes of saved rules are more than %d", file, info.Size(), maxSaved)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return namesIn(b, ownSets(table)), nil
}

// namesIn gives the sets that lines of iptables-save match against, sorted, of
// those that ours finds.
func namesIn(saved []byte, ours *regexp.Regexp) []string {
	names := make(map[string]bool)
	for lines := bufio.NewScanner(bytes.NewReader(saved)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		for i, w := range words[:max(len(words)-1, 0)] {
			if w == "--match-set" && ours.MatchString(words[i+1]) {
				names[words[i+1]] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// PrepareSets creates, empty, each set of ours that saved rules name and that is
// not there, and gives their names. It is for the boot, before the rules are
// loaded; the agent fills the sets when it starts. root is "/".
func PrepareSets(ctx context.Context, root, table string) (made []string, err error) {
	table = cmp.Or(table, firewall.DefaultTable)
	var wanted []string
	var errs []error
	for _, x := range restorers {
		for _, f := range x.files {
			names, err := setsIn(filepath.Join(root, f), table)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			wanted = append(wanted, names...)
		}
	}
	slices.Sort(wanted)
	if wanted = slices.Compact(wanted); len(wanted) == 0 {
		return nil, errors.Join(errs...)
	}
	s := NewIPSet(Options{}, false)
	there, err := s.sets(ctx)
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	var b bytes.Buffer
	for _, name := range wanted {
		if _, ok := there[name]; ok {
			continue
		}
		made = append(made, name)
		family, kind, timeout := "inet", "hash:ip", " timeout 0"
		if strings.Contains(name, "-never-") {
			timeout = ""
		}
		if strings.HasSuffix(name, "n") || timeout == "" {
			kind = "hash:net"
		}
		if strings.HasSuffix(strings.TrimSuffix(name, "n"), "6") {
			family = "inet6"
		}
		fmt.Fprintf(&b, "create %s %s family %s%s\n", name, kind, family, timeout)
	}
	if err := s.run(ctx, b.Bytes(), "ipset", "-exist", "restore"); err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	return made, errors.Join(errs...)
}
