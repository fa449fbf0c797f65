package settings

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
	"banmesh/internal/strict"
)

// Directories of lists, below the configuration directory.
const (
	// PackDirectory holds the signed packs that the configuration names.
	PackDirectory = "packs.d"
	// SharedDirectory holds lists of addresses that many people share, *.list.
	SharedDirectory = "shared.d"
)

// Pack is a signed pack in use.
type Pack struct {
	Name     string            `json:"name"`
	Kind     neverban.PackKind `json:"kind"`
	Operator ban.Operator      `json:"operator"`
	Signer   string            `json:"signer,omitempty"` // the operator's name here
	Serial   uint64            `json:"serial"`
	Issued   time.Time         `json:"issued"`
	Expires  time.Time         `json:"expires"`
	Entries  int               `json:"entries"`
}

// shields are the entries of a configuration beside those that the node finds
// by itself.
type shields struct {
	never  []neverban.Entry // of the file and of packs
	names  []neverban.Name  // of the file
	shared []neverban.Entry // shipped, of lists and of packs
	packs  []Pack
}

// loadShields reads never-ban entries, lists and packs. A list with a faulty
// line is not used in part.
func loadShields(dir string, c *config.Loaded) (x shields, faults []error) {
	if len(c.NeverBan) > neverban.MaxPackEntries {
		faults = append(faults, c.At("never_ban", "%d entries are more than %d", len(c.NeverBan), neverban.MaxPackEntries))
	}
	for _, n := range c.NeverBan {
		if neverban.IsName(n.Target) {
			host, _ := neverban.ParseName(n.Target)
			if until, err := n.End(); err == nil {
				x.names = append(x.names, neverban.Name{Host: host, Reason: n.Comment, Until: until})
			}
			continue
		}
		t, err := ban.ParseTarget(n.Target)
		p, ok := t.Prefix()
		if err != nil || !ok {
			continue // Load has said so
		}
		e := neverban.Entry{Prefix: p, Source: neverban.SourceManual, Reason: n.Comment}
		if e.Until, err = n.End(); err != nil {
			continue
		}
		x.never = append(x.never, e)
	}
	if c.Shared == nil || *c.Shared {
		list, err := neverban.Shared()
		if err != nil {
			faults = append(faults, err)
		}
		x.shared = list
	}
	names, err := config.ListFiles(filepath.Join(dir, SharedDirectory), ".list")
	if err != nil {
		faults = append(faults, err)
	}
	for _, name := range names {
		list, err := readShared(name)
		if err != nil {
			faults = append(faults, &strict.Fault{File: name, Text: err.Error(), Hint: "write a prefix a line, perhaps `until 2026-03-01T00:00:00Z`, perhaps a comment after #"})
		}
		x.shared = append(x.shared, list...)
	}
	if len(c.Packs) > neverban.MaxPacks {
		faults = append(faults, c.At("packs", "%d packs are more than %d", len(c.Packs), neverban.MaxPacks))
		return x, faults
	}
	for _, name := range slices.Sorted(maps.Keys(c.Packs)) {
		p, err := readPack(dir, name, c.Packs[name].Operator)
		if err != nil {
			at := c.At("packs."+name, "%v", err)
			at.Hint = fmt.Sprintf("`agent allow pack add FILE` puts a good one there, `agent allow pack remove %s` goes without it", name)
			faults = append(faults, at)
			continue
		}
		x.packs = append(x.packs, Pack{
			Name: name, Kind: p.Kind, Operator: p.Operator, Serial: p.Serial, Issued: p.Issued, Expires: p.Expires, Entries: len(p.Entries),
		})
		if p.Kind == neverban.PackShared {
			x.shared = append(x.shared, p.Entries...)
		} else {
			x.never = append(x.never, p.Entries...)
		}
	}
	return x, faults
}

func readShared(name string) ([]neverban.Entry, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return neverban.ReadList(f, neverban.SourceCaution)
}

// PackFile is where a pack of a name is.
func PackFile(dir, name string) string { return filepath.Join(dir, PackDirectory, name+".pack") }

// readPack reads the pack that a configuration names, of the operator that it
// names.
func readPack(dir, name, operator string) (*neverban.Pack, error) {
	if _, err := ban.ParseTopic(name); err != nil { // it becomes a path
		return nil, err
	}
	by, err := ban.ParseOperator(operator)
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	f, err := os.Open(PackFile(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, neverban.MaxPack+1))
	if err != nil {
		return nil, err
	}
	p, err := neverban.OpenPack(b)
	switch {
	case err != nil:
		return nil, err
	case p.Name != name:
		return nil, fmt.Errorf("it is the pack %q", p.Name)
	case p.Operator != by:
		return nil, fmt.Errorf("it is signed by %s, and not by %s", p.Operator, by)
	}
	return p, nil
}

// Packs gives the signed packs in use, by name.
func (s *Settings) Packs() []Pack {
	list := slices.Clone(s.shields.packs)
	for i := range list {
		list[i].Signer, _ = s.policy.Name(list[i].Operator)
	}
	return list
}

// documentation prefixes exist nowhere on the Internet, so banning them harms
// nobody, and examples and tests use them (RFC 5737, RFC 3849).
var documentation = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32"),
}

// NeverBanOptions says where to look for addresses that must stay reachable.
func (s *Settings) NeverBanOptions(now time.Time) neverban.Options {
	o := neverban.Options{Lab: slices.Clone(documentation), Extra: s.shields.never, Names: s.shields.names, Compared: s.comparedNames(), Now: now}
	for _, p := range s.config.MayBan {
		o.Lab = append(o.Lab, netip.MustParsePrefix(p)) // checked by Load
	}
	for _, b := range s.brokers() {
		for _, text := range append([]string{b.URL}, b.Others...) {
			if u, err := url.Parse(text); err == nil && u.Hostname() != "" {
				o.Brokers = append(o.Brokers, u.Hostname())
			}
		}
	}
	return o
}

// comparedNames gives the host names in the ignoreip of topics that are detected.
func (s *Settings) comparedNames() (list []string) {
	for _, t := range s.topics {
		if !t.Detect {
			continue
		}
		for _, text := range t.Definition.Detect.IgnoreIP {
			if name, err := neverban.ParseName(text); err == nil && neverban.IsName(text) && !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	return list
}

// NeverBan finds the addresses of this machine's that peers cannot ban, and those that
// many people share, as a running agent would: for trying rules without one.
// Both are usable also with an error, which names the missing part.
func (s *Settings) NeverBan(ctx context.Context, now time.Time, resolve func(context.Context, string) ([]netip.Addr, error)) (never, shared policy.Protection, err error) {
	o := s.NeverBanOptions(now)
	o.Resolve = resolve
	set, _, err := neverban.Discover(ctx, o)
	return set, neverban.NewSet(s.Shared(now)), err
}

// Shared gives the addresses that many people share and that are in force at
// now: a ban of a peer only watches them.
func (s *Settings) Shared(now time.Time) []neverban.Entry {
	return neverban.Alive(s.shields.shared, now)
}
