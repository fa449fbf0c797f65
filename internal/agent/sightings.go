package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
)

// sightEvery is how long sightings are gathered for one durable step.
const sightEvery = 2 * time.Second

// maxGathered bounds the sightings that are gathered; those beyond are left
// out, as a flood says it again.
const maxGathered = 10_000

// sightings gathers offences that banned nobody, in topics that share them, and
// has the ledger say them.
type sightings struct {
	settings func() *settings.Settings
	say      func([]ledger.Sighting) error
	log      *slog.Logger

	mu       sync.Mutex
	gathered map[sighted]detect.Sighting
}

type sighted struct {
	topic  ban.Topic
	target ban.Target
}

// add keeps a sighting for the next step, if its topic shares them.
func (s *sightings) add(x detect.Sighting) {
	if t, ok := s.settings().Find(x.Topic); !ok || !t.ShareWeak {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gathered == nil {
		s.gathered = map[sighted]detect.Sighting{}
	}
	if at := (sighted{x.Topic, x.Target}); len(s.gathered) < maxGathered || s.gathered[at] != (detect.Sighting{}) {
		s.gathered[at] = x
	}
}

// run reports the gathered ones, again and again, and once more when ctx ends.
func (s *sightings) run(ctx context.Context) error {
	ticker := time.NewTicker(sightEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flush(ctx)
			return nil
		case <-ticker.C:
			s.flush(ctx)
		}
	}
}

func (s *sightings) flush(ctx context.Context) {
	s.mu.Lock()
	gathered := s.gathered
	s.gathered = nil
	s.mu.Unlock()
	if len(gathered) == 0 {
		return
	}
	list := make([]ledger.Sighting, 0, len(gathered))
	for _, x := range gathered {
		list = append(list, ledger.Sighting(x))
	}
	if err := s.say(list); err != nil {
		s.log.WarnContext(ctx, "sightings not kept", slog.Int("targets", len(list)), slog.Any("error", err))
	}
}
