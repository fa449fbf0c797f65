package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/export"
	"banmesh/internal/firewall"
)

// corroborated says whether the kernel remembers that an address finished a TCP
// handshake with a port of the topic. What cannot be asked counts as no: a line
// that anybody could have written is no reason to ban.
func (e *enforcer) corroborated(ctx context.Context, topic ban.Topic, from netip.AddrPort) bool {
	addr := from.Addr()
	t, ok := e.a.current().Find(topic)
	if !ok || e.fw == nil {
		return false
	}
	for _, port := range t.Scope.Ports {
		switch known, err := e.fw.Established(ctx, addr, port); {
		case known:
			return true
		case errors.Is(err, firewall.ErrNotRemembered):
			return false // of no port of the topic
		case err != nil && ctx.Err() == nil:
			e.a.log.ErrorContext(ctx, "asking the kernel whether an offender was connected", slog.String("topic", string(topic)), slog.Any("error", err))
			return false
		}
	}
	return false
}

// tracks says why connections are not tracked, nil where they are as asked.
func (e *enforcer) tracks() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.untracked
}

// doubtFor is how long a line that was not believed is worth a warning.
const doubtFor = time.Hour

// doubts gives warnings about topics whose lines are not believed.
func (a *agent) doubts(status detect.Status) (list []control.Warning) {
	for _, t := range a.current().Topics() {
		untracked := a.enforcer.tracks()
		if t.Corroborate && (a.enforcer.fw == nil || t.Scope.Remember == 0 || untracked != nil) {
			mode, why := a.enforcer.enforcement()
			if untracked != nil {
				why = untracked.Error()
			}
			if why != "" {
				why = ", " + why
			}
			list = append(list, control.Warning{
				Code: "no-corroboration",
				Text: fmt.Sprintf("%s: a log line counts only if the kernel saw its address connect, and it cannot be asked here (%s%s): no line bans anybody", t.Topic, mode, why),
				Fix:  fmt.Sprintf("enforce with nftables, or believe the log: corroborate = \"off\" in [topics.%s]", t.Topic),
			})
		}
	}
	for _, j := range status.Jails {
		t, ok := a.current().Find(j.Topic)
		if !ok || j.Uncorroborated == 0 || a.now().Sub(j.DoubtedAt) > doubtFor || t.Scope.Remember == 0 {
			continue
		}
		list = append(list, control.Warning{
			Code: "uncorroborated",
			Text: fmt.Sprintf("%s: %d log lines named addresses that the kernel saw no connection of, the last one %s, and did not count: forged lines, or a proxy in front of the service", j.Topic, j.Uncorroborated, j.Doubted),
			Fix:  fmt.Sprintf("agent explain-line --topic %s 'LINE'; behind a proxy: corroborate = \"off\" in [topics.%s]", j.Topic, j.Topic),
		})
	}
	return list
}

// reports takes offences that programs of this machine report, in topics that
// the operator opened for them.
type reports struct{ a *agent }

// Report implements [export.Offences]. What is reported weighs what the topic's
// log lines weigh; it bans nobody by itself.
func (r reports) Report(ctx context.Context, o export.Offence) error {
	t, ok := r.a.current().Find(o.Topic)
	switch {
	case !ok || !t.Reports:
		return fmt.Errorf("topic %s: %w: the operator takes no reports there (reports = true in [topics.%s])", o.Topic, export.ErrUnwelcome, o.Topic)
	case o.Target.Kind() == ban.KindWallet:
		return fmt.Errorf("%w: wallets are denied by people alone", export.ErrUnwelcome)
	}
	err := r.a.detection.get().Report(ctx, detect.Observation{Topic: o.Topic, Target: o.Target, Class: o.Class, Established: o.Established, At: o.At})
	if errors.Is(err, detect.ErrNotDetected) || errors.Is(err, detect.ErrNotOneAddress) {
		return fmt.Errorf("%w: %w", export.ErrUnwelcome, err)
	}
	return err
}
