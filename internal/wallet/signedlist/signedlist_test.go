package signedlist

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wallet"
)

const (
	one = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
	two = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
)

var (
	root   = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	issued = time.Date(2026, 11, 28, 6, 0, 0, 0, time.UTC)
)

func sample() List {
	return List{
		Kind: DenyGateways, Topic: "gateway-payment", Name: "unpaid work", Contact: "appeals@example.org", Edition: 1,
		Issued: issued, Until: issued.Add(90 * 24 * time.Hour),
		Entries: []Entry{
			{Address: two, Reason: "payment", Details: Details{Note: `tickets without funds, "often"`, Evidence: "https://example.org/case/7?a=1&b=2"}, Since: issued, Until: issued.Add(time.Hour)},
			{Address: one, Reason: "content", Details: Details{Evidence: "sha256:" + strings.Repeat("ab", 32)}, Until: issued.Add(time.Hour)},
		},
	}
}

func TestASignedListIsReadAsItWasWritten(t *testing.T) {
	b, err := Sign(root, sample())
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(b)
	if err != nil {
		t.Fatal(err)
	}
	if l.Operator != ban.OperatorOf(root.Public().(ed25519.PublicKey)) || l.Topic != "gateway-payment" || len(l.Entries) != 2 || l.Entries[0].Address != one || l.Entries[1].Note != sample().Entries[0].Note {
		t.Errorf("read %+v", l)
	}
	if !Is(b) || Is([]byte(`["`+one+`"]`)) {
		t.Error("a signed list is not told from a plain one")
	}
	if got := l.Blocklist(); got != one+","+two {
		t.Errorf("blocklist %s", got)
	}
}

func TestNoByteOfAListCanChange(t *testing.T) {
	b, err := Sign(root, sample())
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		flipped := bytes.Clone(b)
		flipped[n] ^= 1
		if _, err := Open(flipped); err == nil {
			t.Fatalf("byte %d (%q) may change", n, b[n])
		}
		if _, err := Open(b[:n]); err == nil {
			t.Fatalf("cut at %d it is read", n)
		}
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	theirs, err := Sign(other, sample())
	if err != nil {
		t.Fatal(err)
	}
	// Their signature under our name.
	at := bytes.LastIndex(b, []byte(`"signature"`))
	if _, err := Open(append(bytes.Clone(b[:at]), theirs[len(theirs)-(len(b)-at):]...)); !errors.Is(err, ErrSignature) {
		t.Errorf("another's signature: %v", err)
	}
}

func TestAListThatMakesNoSenseIsNotSigned(t *testing.T) {
	for claim, change := range map[string]func(*List){
		"no kind":              func(l *List) { l.Kind = "x" },
		"no topic":             func(l *List) { l.Topic = "No Topic" },
		"no name":              func(l *List) { l.Name = "" },
		"a name of two lines":  func(l *List) { l.Name = "a\nb" },
		"a hidden character":   func(l *List) { l.Contact = "a\u200fb" },
		"a long contact":       func(l *List) { l.Contact = strings.Repeat("x", MaxText+1) },
		"no end":               func(l *List) { l.Until = l.Issued },
		"an end after years":   func(l *List) { l.Until = l.Issued.Add(401 * 24 * time.Hour) },
		"a wallet twice":       func(l *List) { l.Entries[0].Address = one },
		"a lower-case address": func(l *List) { l.Entries[0].Address = strings.ToLower(two) },
		"the zero address":     func(l *List) { l.Entries[0].Address = "0x" + strings.Repeat("0", 40) },
		"no reason":            func(l *List) { l.Entries[0].Reason = "rude" },
		"evidence on a disk":   func(l *List) { l.Entries[0].Evidence = "file:///etc/passwd" },
		"half a hash":          func(l *List) { l.Entries[0].Evidence = "sha256:abcd" },
	} {
		l := sample()
		change(&l)
		if _, err := Sign(root, l); !errors.Is(err, ErrList) {
			t.Errorf("%s: %v", claim, err)
		}
	}
	l := sample()
	l.Contact = strings.Repeat("x", MaxText)
	if _, err := Sign(root, l); err != nil {
		t.Errorf("a contact at the limit: %v", err)
	}
}

func TestAFolderSaysWhereTheDeniedMayObject(t *testing.T) {
	config := t.TempDir()
	l := sample()
	b, err := Sign(root, l)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Keep(config, b); err != nil {
		t.Fatal(err)
	}
	own := Own{Name: "ours", Contact: "us@example.org", Details: map[string]Details{two: {Note: "our word"}}}
	if err := WriteOwn(config, "gateway-payment", own); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, Folder, "list-x.json"), []byte("torn"), 0o644); err != nil {
		t.Fatal(err)
	}
	k, err := ReadFolder(config)
	if !errors.Is(err, ErrList) || len(k.Lists) != 1 || len(k.Own) != 1 {
		t.Fatalf("%+v, %v", k, err)
	}
	x := NewIndex(k)
	w1, _ := wallet.Parse(one)
	w2, _ := wallet.Parse(two)
	got := fmt.Sprint(x.Contact("gateway-payment", w1), x.Contact("gateway-payment", [20]byte{9}), x.Contact("gateway-spam", w1), x.Details("gateway-payment", w2).Note)
	if want := fmt.Sprint("appeals@example.org", "us@example.org", "", "our word"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if k, err := ReadFolder(filepath.Join(config, "none")); err != nil || len(k.Lists)+len(k.Own) > 0 {
		t.Errorf("no folder: %+v, %v", k, err)
	}
	if err := WriteOwn(config, "gateway-payment", Own{Contact: "a\nb"}); err == nil {
		t.Error("two lines are kept")
	}
}

func FuzzAListIsReadStrictly(f *testing.F) {
	b, err := Sign(root, sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Open(b)
		if err == nil && (l.check() != nil || !Is(b)) {
			t.Fatalf("%q is read as %+v", b, l)
		}
	})
}
