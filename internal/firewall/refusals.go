package firewall

import (
	"errors"
	"fmt"
	"slices"
)

// Refusals collects the faults of bans, without repeating one sentence a
// million times.
type Refusals struct {
	full  int
	other []error
}

// MaxRefusals is how many faults are told one by one.
const MaxRefusals = 20

// Note takes the fault of a ban, nil for none.
func (r *Refusals) Note(b Ban, err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrFull):
		r.full++
	case len(r.other) < MaxRefusals:
		r.other = append(r.other, fmt.Errorf("ban of %s in %s: %w", b.Prefix, b.Topic, err))
	case len(r.other) == MaxRefusals:
		r.other = append(r.other, errors.New("and more such bans"))
	}
}

// Err gives all faults as one error; limit is [Config.Cap].
func (r *Refusals) Err(limit int) error {
	errs := slices.Clone(r.other)
	if r.full > 0 {
		errs = append(errs, fmt.Errorf("%d bans refused: %w (%d)", r.full, ErrFull, limit))
	}
	return errors.Join(errs...)
}
