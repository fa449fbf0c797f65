package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"banmesh/internal/broker"
)

func TestWhatIsOpenIsClosedOnceTheNewestFirstAlsoAfterAFailure(t *testing.T) {
	t.Parallel()
	var s onStop
	var order []int
	broken := errors.New("broken")
	for i := range 3 {
		s.add(func() error {
			order = append(order, i)
			if i == 1 {
				return broken
			}
			return nil
		})
	}
	if err := s.run(); !errors.Is(err, broken) || !slices.Equal(order, []int{2, 1, 0}) {
		t.Errorf("closed in the order %v with %v", order, err)
	}
	if err := s.run(); err != nil || len(order) != 3 {
		t.Errorf("closed again: %v, %v", order, err)
	}
}

func TestTheEmbeddedBrokerIsClosedWhenALaterPartFails(t *testing.T) {
	t.Parallel()
	n := &node{t: t, dir: t.TempDir()}
	n.configure(quiet)
	state := filepath.Join(n.dir, "state")
	if err := errors.Join(os.MkdirAll(state, 0o700), os.WriteFile(filepath.Join(state, detectFile), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	o := Options{ConfigDir: filepath.Join(n.dir, "config"), StateDir: state, Socket: filepath.Join(n.dir, "s")}
	if err := Run(t.Context(), o); err == nil {
		t.Fatal("it runs on a damaged state")
	}
	// The store of a broker that is still open is locked.
	b, err := broker.New(broker.Options{Network: "banmesh", StateDir: filepath.Join(state, "broker"), Keys: true, Listeners: []broker.Listener{{Kind: broker.TCP, Address: "127.0.0.1:0"}}})
	if err != nil {
		t.Fatalf("the broker was left open: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
