package keys

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banmesh/internal/wire"
)

// joining is a machine of its own operator, and the card of another operator that
// certifies it.
func joining(t *testing.T) (dir string, raw []byte, us *Store) {
	t.Helper()
	dir = t.TempDir()
	id, err := Create(dir, "them", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if us, err = CreateStore(t.TempDir(), time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	if err := us.CertifyPaired(id.NodeKey(), time.Now()); err != nil {
		t.Fatal(err)
	}
	_, raw = us.Card()
	return dir, raw, us
}

// A crash anywhere leaves the old operator or the new one, and the next reader of
// the keys comes to the same end.
func TestAJoinThatIsCutShortEndsAtTheNextStart(t *testing.T) {
	t.Parallel()
	for _, cut := range []string{"nowhere", "key aside", "card aside", "card written"} {
		dir, raw, us := joining(t)
		before, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		old := before.Operator()
		if err := Join(dir, raw); err != nil {
			t.Fatal(err)
		}
		at := func(name string) string { return filepath.Join(dir, name) }
		switch cut {
		case "card written":
			err = errors.Join(os.Rename(at(operatorKeyFile), at(operatorKeyFile)+"."+old.String()), os.Rename(at(cardFile), at(cardFile)+"."+old.String()), os.WriteFile(at(cardFile), raw, 0o644))
		case "card aside":
			err = errors.Join(os.Rename(at(operatorKeyFile), at(operatorKeyFile)+"."+old.String()), os.Rename(at(cardFile), at(cardFile)+"."+old.String()))
		case "key aside":
			err = os.Rename(at(operatorKeyFile), at(operatorKeyFile)+"."+old.String())
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			id, err := Open(dir, "", time.Now())
			if err != nil || id.Operator() != us.Operator() || id.HasRoot() || id.NodeKey() != before.NodeKey() || id.Expires().IsZero() {
				t.Fatalf("cut %s: %v, %+v", cut, err, id)
			}
		}
		if _, err := readKeyFile(at(operatorKeyFile)+"."+old.String(), operatorKeyTitle); err != nil {
			t.Errorf("cut %s: the old root key: %v", cut, err)
		}
		if _, err := os.Stat(at(joinFile)); err == nil {
			t.Errorf("cut %s: the card is still there", cut)
		}
	}
}

func TestWhoHasOtherNodesDoesNotLeaveThem(t *testing.T) {
	t.Parallel()
	dir, raw, _ := joining(t)
	store, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Change(time.Now(), func(c *wire.Card) { c.Certify(wire.PublicKey{1}, time.Now()) }); err != nil {
		t.Fatal(err)
	}
	if err := Join(dir, raw); !errors.Is(err, ErrOtherNodes) {
		t.Errorf("it goes: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, joinFile)); err == nil {
		t.Error("something was written")
	}
}

func TestAMachineWithoutKeysJoins(t *testing.T) {
	t.Parallel()
	_, _, us := joining(t)
	dir := t.TempDir()
	text, err := RequestText(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := wire.ParseRequest(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := Join(dir, []byte("no card")); err == nil {
		t.Error("it takes no card for one")
	}
	if err := us.CertifyPaired(key, time.Now()); err != nil {
		t.Fatal(err)
	}
	_, raw := us.Card()
	if err := Join(dir, raw); err != nil {
		t.Fatal(err)
	}
	if id, err := Load(dir); err != nil || id.Operator() != us.Operator() {
		t.Errorf("then %v", err)
	}
}

// Whoever has the root key renews the machines that were paired with it, and no others.
func TestPairedNodesAreRenewed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	dir := t.TempDir()
	if _, err := Create(dir, "us", now); err != nil {
		t.Fatal(err)
	}
	store, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	friend, gone, by := wire.PublicKey{1}, wire.PublicKey{2}, wire.PublicKey{3}
	for range 2 {
		if err := errors.Join(store.CertifyPaired(friend, now), store.CertifyPaired(gone, now)); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Change(now, func(c *wire.Card) {
		c.Certify(by, now)
		for _, x := range c.Certificates {
			if x.Key == gone {
				c.Revoke(x.Node(), now)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := store.CertifyPaired(gone, now); err == nil {
		t.Error("a revoked node is certified")
	}
	id, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if renewed, err := id.Renew(now.Add(time.Hour)); renewed || err != nil {
		t.Errorf("at once: %v, %v", renewed, err)
	}
	late := now.Add(wire.MaxCertificate * 3 / 4)
	if renewed, err := id.Renew(late); !renewed || err != nil {
		t.Fatalf("late: %v, %v", renewed, err)
	}
	card, _ := id.Card()
	ends := map[wire.PublicKey]bool{}
	for _, x := range card.Certificates {
		ends[x.Key] = x.NotAfter.After(late.Add(wire.MaxCertificate / 2))
	}
	if !ends[friend] || !ends[id.NodeKey()] || ends[by] || ends[gone] {
		t.Errorf("renewed: %v", ends)
	}
	if renewed, err := id.Renew(late); renewed || err != nil {
		t.Errorf("again: %v, %v", renewed, err)
	}
}

func TestTheBrokersCertificateStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, one, err := BrokerCertificate(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, two, err := BrokerCertificate(dir, time.Now())
	if err != nil || one != two || len(one) != 64 {
		t.Errorf("fingerprints %s and %s, %v", one, two, err)
	}
	if info, err := os.Stat(filepath.Join(dir, certificateFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
}
