package settings

import (
	"time"

	"banmesh/internal/config"
	"banmesh/internal/guests"
	"banmesh/internal/span"
)

// checkGuests finds faults in [guests].
func checkGuests(c config.Guests, fault faulter) {
	if c.For == "" {
		return
	}
	switch d, err := span.Parse(string(c.For)); {
	case err != nil:
		fault("guests.for", "%v", err)
	case d < time.Minute || d > guests.MaxStay:
		fault("guests.for", "%s is not within a minute and %s", c.For, span.Format(guests.MaxStay))
	}
}

// GuestStay is how long an address is a guest after its last success, 0 where
// nobody is.
func (s *Settings) GuestStay() time.Duration {
	c := s.config.Guests
	if c.Enabled != nil && !*c.Enabled {
		return 0
	}
	if d, err := span.Parse(string(c.For)); err == nil && c.For != "" {
		return d
	}
	return guests.DefaultStay
}
