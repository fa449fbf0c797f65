package settings

import (
	"context"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
)

// Jails gives the topics whose offenders are looked for here.
func (s *Settings) Jails() (list []detect.Jail) {
	for _, t := range s.topics {
		if t.Detect {
			list = append(list, detect.Jail{Definition: t.Definition, Simulate: t.Simulate})
		}
	}
	return list
}

// CheckFilters compiles every filter that the settings use and looks at their
// sources, and keeps nothing.
func (s *Settings) CheckFilters() error {
	_, err := detect.New(detect.Options{Jails: s.Jails(), Ban: func(context.Context, detect.Decision) error { return nil }})
	return err
}

// BanTime is how long a ban by hand lasts in a topic.
func (s *Settings) BanTime(topic ban.Topic) time.Duration {
	if t, ok := s.Find(topic); ok && t.Definition.Detect != nil && !t.Definition.Detect.BanTime.IsZero() {
		return t.Definition.Detect.BanTime.Duration()
	}
	return defaultBanTime
}

// defaultBanTime is fail2ban's usual long ban.
const defaultBanTime = 24 * time.Hour
