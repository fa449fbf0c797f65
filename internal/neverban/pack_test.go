package neverban

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
)

var (
	packRoot = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	packAt   = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
)

func packMade(list string, change func(*Pack)) ([]byte, error) {
	p := Pack{Name: "crawlers", Kind: PackNeverBan, Serial: 7, Issued: packAt, Expires: packAt.AddDate(0, 3, 0)}
	if change != nil {
		change(&p)
	}
	return SignPack(packRoot, p, []byte(list))
}

func TestASignedPackSaysWhatItsOperatorSigned(t *testing.T) {
	for kind, source := range map[PackKind]Source{PackNeverBan: SourcePack, PackShared: SourceCaution} {
		b, err := packMade("66.249.64.0/19 # a crawler\n\n192.0.2.1 until 2026-03-02T00:00:00Z\n", func(p *Pack) { p.Kind = kind })
		if err != nil {
			t.Fatal(err)
		}
		p, err := OpenPack(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		public, _ := packRoot.Public().(ed25519.PublicKey)
		if p.Operator != ban.OperatorOf(public) || p.Serial != 7 || p.Kind != kind || p.Name != "crawlers" || len(p.Entries) != 2 {
			t.Errorf("read %+v", p)
		}
		first, second := p.Entries[0], p.Entries[1]
		if first.Source != source || first.Reason != "pack crawlers: a crawler" || !first.Until.Equal(packAt.AddDate(0, 3, 0)) {
			t.Errorf("an entry does not end with its pack: %+v", first)
		}
		if !second.Until.Equal(packAt.AddDate(0, 0, 1)) || second.Reason != "pack crawlers" {
			t.Errorf("an entry outlives its own end: %+v", second)
		}
	}
}

func TestAPackWithAnyByteChangedIsRefused(t *testing.T) {
	good, err := packMade("66.249.64.0/19 # a crawler\n192.0.2.1\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, bit := range []byte{1, 32} {
			bad := slices.Clone(good)
			bad[i] ^= bit
			if p, err := OpenPack(bad); err == nil {
				t.Fatalf("byte %d (%q) changed: it was read: %+v", i, good[i], p)
			}
		}
	}
	for name, bad := range map[string][]byte{
		"appended":   append(slices.Clone(good), "1.2.3.4\n"...),
		"before":     append([]byte("\n"), good...),
		"cut off":    good[:len(good)/2],
		"nothing":    nil,
		"too long":   append(slices.Clone(good), make([]byte, MaxPack)...),
		"two in one": append(slices.Clone(good), good...),
	} {
		if _, err := OpenPack(bad); !errors.Is(err, ErrPack) && !errors.Is(err, ErrPackSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPackCannotShieldEverybody(t *testing.T) {
	var many strings.Builder
	for i := range MaxPackEntries + 1 {
		fmt.Fprintf(&many, "198.51.%d.%d\n", i/256, i%256)
	}
	for name, c := range map[string]struct {
		list   string
		change func(*Pack)
	}{
		"everything in pieces":    {"1.0.0.0/8\n2.0.0.0/8\n", nil},
		"all of IPv6":             {"2000::/19\n2000:2000::/19\n", nil},
		"a wide prefix":           {"0.0.0.0/1\n", nil},
		"too many entries":        {many.String(), nil},
		"shared, half the world":  {wide(64, 100), func(p *Pack) { p.Kind = PackShared }},
		"no entry":                {"# nothing\n", nil},
		"a line that is none":     {"1.2.3.4\nhello\n", nil},
		"another kind":            {"1.2.3.4\n", func(p *Pack) { p.Kind = "ban" }},
		"a name that is a path":   {"1.2.3.4\n", func(p *Pack) { p.Name = "../x" }},
		"a name with a new line":  {"1.2.3.4\n", func(p *Pack) { p.Name = "a\nkind: shared" }},
		"for ever":                {"1.2.3.4\n", func(p *Pack) { p.Expires = packAt.AddDate(10, 0, 0) }},
		"ended before it was out": {"1.2.3.4\n", func(p *Pack) { p.Expires = packAt }},
	} {
		if _, err := packMade(c.list, c.change); !errors.Is(err, ErrPack) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Repeating a prefix, or a part of it, covers no more.
	if _, err := packMade("1.0.0.0/8\n1.0.0.0/8\n1.2.0.0/16\n", nil); err != nil {
		t.Error(err)
	}
}

// wide lists n prefixes of length 8 from 100.0.0.0 on.
func wide(first, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d.0.0.0/8\n", first+i)
	}
	return b.String()
}

func TestTheShippedListOfSharedAddressesIsValid(t *testing.T) {
	list, err := Shared()
	if err != nil {
		t.Fatal(err)
	}
	set := NewSet(list)
	for _, s := range []string{"1.1.1.1", "104.28.3.4", "2606:4700::/64", "151.101.1.1"} {
		if why, ok := set.Protects(ban.MustTarget(s)); !ok || !strings.HasPrefix(why, "shared ") {
			t.Errorf("%s: %q %v", s, why, ok)
		}
	}
	for s, want := range map[string]Kind{
		"172.71.210.9/32": KindCDN, "104.28.3.4/32": KindRelay, "2606:4700::/64": KindCDN, "1.1.1.1/32": KindResolver, "2a02:26f7:1::/64": KindRelay, "151.101.1.1/32": KindCDN,
		"203.0.113.9/32": "", "172.64.0.0/12": "", // which is not all of one kind
	} {
		e, ok := set.Inside(netip.MustParsePrefix(s))
		if e.Kind != want || ok != (want != "") || ok && (!strings.HasPrefix(e.From, "https://") || e.Reason == "") {
			t.Errorf("%s: %+v, want %q", s, e, want)
		}
	}
	for _, e := range list {
		if e.Kind == "" || e.From == "" {
			t.Errorf("%s has no kind or no source", e.Prefix)
		}
	}
	if four, six := covered(list); four > maxSharedAddresses || six > maxSharedNets6 {
		t.Errorf("it covers %d and %d", four, six)
	}
}

func TestASetAnswersAsAScanWould(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	random := func() netip.Prefix {
		p, _ := netip.AddrFrom4([4]byte{10, byte(rng.IntN(2)), byte(rng.IntN(3)), byte(rng.IntN(256))}).Prefix(12 + rng.IntN(21))
		return p
	}
	hits := 0
	for range 2000 {
		var entries []Entry
		for i := range rng.IntN(10) {
			entries = append(entries, Entry{Prefix: random(), Reason: fmt.Sprint(i)})
		}
		set, q := NewSet(entries), random()
		want := slices.ContainsFunc(entries, func(e Entry) bool { return e.Prefix.Overlaps(q) })
		e, ok := set.Overlaps(q)
		if ok != want || ok && (!e.Prefix.Overlaps(q) || !slices.Contains(entries, e)) {
			t.Fatalf("%v in %v: %v %v, want %v", q, entries, e, ok, want)
		}
		if !ok {
			continue
		}
		hits++
		for _, other := range entries {
			if other.Prefix.Contains(q.Addr()) && other.Prefix.Bits() <= q.Bits() && e.Prefix.Bits() < other.Prefix.Bits() {
				t.Fatalf("%v in %v: %v is less telling than %v", q, entries, e, other)
			}
		}
	}
	if hits < 500 {
		t.Errorf("only %d hits", hits)
	}
}

func FuzzOpenPack(f *testing.F) {
	b, err := packMade("1.2.3.4\n", nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := OpenPack(b)
		if (err == nil) != (p != nil) {
			t.Fatal("a faulty pack is given")
		}
	})
}
