package api

import (
	"context"
	"errors"
	"fmt"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/export"
)

// reports takes offences that programs of this machine report, in topics that
// the operator opened for them.
type reports struct{ s *Server }

// Report implements [export.Offences]. A report weighs as much as a log line of
// the topic; it bans nobody by itself.
func (r reports) Report(ctx context.Context, o export.Offence) error {
	t, ok := r.s.o.Settings().Find(o.Topic)
	switch {
	case !ok || !t.Reports:
		return fmt.Errorf("topic %s: %w: the operator takes no reports there (reports = true in [topics.%s])", o.Topic, export.ErrUnwelcome, o.Topic)
	case o.Target.Kind() == ban.KindWallet:
		return fmt.Errorf("%w: wallets are denied by people alone", export.ErrUnwelcome)
	}
	err := r.s.o.Detection.Report(ctx, detect.Observation{Topic: o.Topic, Target: o.Target, Class: o.Class, At: o.At})
	if errors.Is(err, detect.ErrNotDetected) || errors.Is(err, detect.ErrNotOneAddress) || errors.Is(err, detect.ErrUnconfirmed) {
		return fmt.Errorf("%w: %w", export.ErrUnwelcome, err)
	}
	return err
}
