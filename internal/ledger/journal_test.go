package ledger

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"banmesh/internal/store"
)

// TestRecordsOfANewerProgramAreRefusedAndKept: an older program that is installed over a newer one calls
// nothing damaged, and the newer one finds its bans again.
func TestRecordsOfANewerProgramAreRefusedAndKept(t *testing.T) {
	w := newWorld(t, Options{})
	w.must(w.BanLocal("sshd", claim("198.51.100.1", time.Hour), Evidence{}))
	pages := 0
	setVersion := func(version byte) {
		w.must(w.store.Update(func(tx store.Tx) error {
			changed := map[string][]byte{}
			if err := tx.Each(ownBucket, "", func(key string, value []byte) error {
				changed[key] = append([]byte{version}, value[1:]...)
				return nil
			}); err != nil {
				return err
			}
			pages = len(changed)
			for key, value := range changed {
				if err := tx.Put(ownBucket, key, value); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	w.o.Store = w.store
	for version, want := range map[byte]error{pageVersion + 1: ErrNewer, 0: ErrCorrupt} {
		setVersion(version)
		_, err := Open(w.o)
		if pages == 0 || !errors.Is(err, want) || errors.Is(err, ErrNewer) && errors.Is(err, ErrCorrupt) {
			t.Errorf("version %d of %d pages: %v, want %v", version, pages, err, want)
		}
		w.must(w.store.View(func(tx store.Tx) error {
			return tx.Each(ownBucket, "", func(key string, value []byte) error {
				if !bytes.HasPrefix(value, []byte{version}) {
					t.Errorf("page %s was rewritten", key)
				}
				return nil
			})
		}))
	}
	setVersion(pageVersion)
	w.restart()
	w.wantDesired("sshd 198.51.100.1 1h0m0s")
}
