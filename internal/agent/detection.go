package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
)

// detection runs a detector, and another one when the configuration changes.
type detection struct {
	o     detectionOptions
	input *source.Input // standard input, over restarts

	mu       sync.Mutex
	detector *detect.Detector

	restarts  chan chan error
	sightings *sightings
}

// detectionOptions are the inputs of detection.
type detectionOptions struct {
	settings func() *settings.Settings
	ledger   *ledger.Ledger
	// ignored says that a target is never an offender, corroborated that the
	// kernel knows of a connection.
	ignored      func(ban.Target) bool
	corroborated func(context.Context, detect.Question) detect.Proof
	// addresses gives those of a host that ignoreip names.
	addresses func(name string) []netip.Addr
	// succeeded takes logins, guest says whether a target is a guest.
	succeeded func(context.Context, detect.Success)
	guest     func(ban.Topic, ban.Target) bool
	// owners puts the users who listen into jails' matches.
	owners func([]detect.Jail) []detect.Jail
	// hold says whether a decision is held back, and whether that is news.
	hold func(detect.Decision) (h control.HeldOffender, held, news bool)
	// decided is told of a decision before it is carried out, refused of one that
	// was not, and why.
	decided func(detect.Decision)
	refused func(detect.Decision, string)
	// noticed is told of offences.
	noticed func(context.Context, detect.Notice)
	state   string // the state directory
	now     func() time.Time
	log     *slog.Logger
}

func newDetection(o detectionOptions) (*detection, error) {
	d := &detection{o: o, input: source.NewInput(os.Stdin), restarts: make(chan chan error)}
	d.sightings = &sightings{settings: o.settings, say: o.ledger.Own.Sight, log: o.log}
	var err error
	d.detector, err = detect.New(d.options())
	if err != nil {
		return nil, fmt.Errorf("setting up detection: %w", err)
	}
	return d, nil
}

func (d *detection) options() detect.Options {
	return detect.Options{
		Jails: d.o.owners(d.o.settings().Jails()), StatePath: filepath.Join(d.o.state, detectFile), Ban: d.ban, Watched: d.o.ledger.Watched, Suspected: d.o.ledger.Suspected, Banned: d.o.ledger.BannedAt,
		Ignored: d.o.ignored, Addresses: d.o.addresses, Corroborated: d.o.corroborated, Success: d.o.succeeded, Guest: d.o.guest, Now: d.o.now, Log: d.o.log,
		Flush: d.o.ledger.Own.Flush, Source: source.Options{Stdin: d.input}, Sighted: d.sightings.add, Noticed: d.o.noticed,
	}
}

// ban takes a decision. One that never-ban or a person forbids is logged and
// dropped; only one that could not be written is kept for later.
func (d *detection) ban(ctx context.Context, v detect.Decision) error {
	if h, held, news := d.o.hold(v); held {
		if news {
			d.o.log.WarnContext(ctx, "offender not banned", slog.String("target", v.Target.String()), slog.String("topic", string(v.Topic)), slog.String("reason", h.Why))
			d.o.refused(v, h.Why)
		}
		return nil
	}
	claim := ban.Claim{Target: v.Target, End: v.End, Class: v.Class, Hits: uint8(min(max(v.Hits, 1), ban.MaxHits)), Established: v.Established}
	switch {
	case v.Established && !v.Weak:
		claim.Basis = ban.BasisStrong
	case v.Weak && !v.Established:
		// Neither sure nor grave: no node bans for it on this one's word.
		claim.Class = ban.ClassScanWeak
	}
	by := v.Filter
	if v.Guest {
		by += ", though a guest of this node"
	}
	d.o.decided(v)
	from := ledger.SourceDetection
	if v.Named {
		from, claim.Basis, claim.Class = ledger.SourceNamed, ban.BasisWeak, v.Class
	}
	err := d.o.ledger.Own.Found(ledger.Local{
		Topic: v.Topic, Source: from, Claim: claim, At: v.Last, Evidence: ledger.Evidence{By: by, Source: v.Source, Sample: v.Sample},
	})
	switch {
	case errors.Is(err, ledger.ErrNeverBan), errors.Is(err, ledger.ErrAllowed):
		d.o.log.WarnContext(ctx, "offender not banned", slog.String("target", v.Target.String()), slog.String("topic", string(v.Topic)), slog.Any("reason", err))
		d.o.refused(v, err.Error())
		return nil
	case errors.Is(err, ledger.ErrUnbanned):
		// A log that is read anew, because a topic is looked for again or a
		// definition changed, holds offences that a person has forgiven.
		d.o.log.InfoContext(ctx, "offender not banned", slog.String("target", v.Target.String()), slog.String("topic", string(v.Topic)), slog.Any("reason", err))
		d.o.refused(v, err.Error())
		return nil
	case errors.Is(err, ledger.ErrEnded):
		return nil
	case err != nil:
		return fmt.Errorf("recording the ban: %w", err)
	}
	d.o.log.InfoContext(ctx, "offender found", slog.String("target", v.Target.String()), slog.String("topic", string(v.Topic)),
		slog.String("class", v.Class.String()), slog.Int("hits", v.Hits), slog.Bool("guest", v.Guest), slog.String("source", v.Source))
	return nil
}

// run runs the detector until ctx ends, replacing it on restart.
func (d *detection) run(ctx context.Context) error {
	for {
		running, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		detector := d.get()
		go func() { done <- detector.Run(running) }()
		select {
		case answer := <-d.restarts:
			stop()
			err := <-done
			if err == nil {
				err = d.replace()
			}
			answer <- err
			if err != nil {
				return fmt.Errorf("detection: %w", err)
			}
		case err := <-done:
			stop()
			if ctx.Err() == nil && err == nil {
				// No source to read: wait for a configuration that has one.
				select {
				case <-ctx.Done():
					return nil
				case answer := <-d.restarts:
					err := d.replace()
					answer <- err
					if err == nil {
						continue
					}
					return fmt.Errorf("detection: %w", err)
				}
			}
			if err != nil {
				return fmt.Errorf("detection: %w", err)
			}
			return nil
		}
	}
}

// replace makes a detector of the settings in force, from the state that the
// one before it saved.
func (d *detection) replace() error {
	o := d.options()
	o.Before = d.get().LogCounts()
	next, err := detect.New(o)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.detector = next
	d.mu.Unlock()
	return nil
}

// Status implements [api.Detection].
func (d *detection) Status() detect.Status { return d.get().Status() }

// Forget implements [api.Detection].
func (d *detection) Forget(topic ban.Topic, t ban.Target) { d.get().Forget(topic, t) }

// Counted implements [api.Detection].
func (d *detection) Counted(t ban.Target) []detect.Counted { return d.get().Counted(t) }

// Report implements [api.Detection].
func (d *detection) Report(ctx context.Context, o detect.Observation) error {
	return d.get().Report(ctx, o)
}

func (d *detection) get() *detect.Detector {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.detector
}

// restart replaces the detector and waits until that is done.
func (d *detection) restart(ctx context.Context) error {
	answer := make(chan error, 1)
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	select {
	case d.restarts <- answer:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
