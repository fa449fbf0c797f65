package notify

import (
	"context"
	"errors"
	"slices"
	"sync"

	"banmesh/internal/control"
)

// ErrUnknown says that no receiver has a name.
var ErrUnknown = errors.New("no receiver has that name")

// Test sends a test message to the receiver of a name, or to all for "", at once and
// also in quiet hours, and gives their answers in the order of the configuration.
func (n *Notifier) Test(ctx context.Context, name string) ([]control.NotifyTest, error) {
	entries, _ := n.inForce()
	if name != "" {
		entries = slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return e.Name != name })
		if len(entries) == 0 {
			return nil, ErrUnknown
		}
	}
	list := make([]control.NotifyTest, len(entries))
	var w sync.WaitGroup
	for i := range entries {
		e := entries[i]
		w.Go(func() {
			p := newPending(n.o.Now())
			p.add(Notice{Kind: Test, At: n.o.Now(), Text: "This is a test: messages of this node arrive here. It takes " + kindNames(e.On) + "."})
			list[i] = control.NotifyTest{Name: e.Name, Type: string(e.Type)}
			answer, err := n.send(ctx, &e, p.message(Test, &e, n.o.Page, n.o.Now()))
			list[i].Answer = clean(answer, maxText)
			if err != nil {
				list[i].Error = clean(err.Error(), maxText)
			}
		})
	}
	w.Wait()
	return list, nil
}

func kindNames(list []Kind) string {
	s := ""
	for i, k := range list {
		if i > 0 {
			s += ", "
		}
		s += string(k)
	}
	return s
}
