package policy

import "time"

// Limits are what one operator may do in one topic, whatever its feeds say.
// What exceeds them waits; it is neither applied nor lost.
type Limits struct {
	// PerHour bans may be added an hour, after Burst at once.
	PerHour int `json:"per_hour"`
	Burst   int `json:"burst"`
	// Live bans may be in force at a time.
	Live int `json:"live"`
	// Addresses is how much address space they may cover: IPv4 addresses, or
	// IPv6 /64s.
	Addresses int `json:"addresses"`
	// HoldChange is the share of a feed's live claims, in percent, that may be
	// added within an hour before the rest waits for a person. 0 is no limit.
	HoldChange int `json:"hold_change_percent"`
	// HoldRate is how many times its usual rate a feed may add claims before
	// the rest waits for a person. 0 is no limit.
	HoldRate int `json:"hold_rate_times"`
	// HoldFloor additions an hour never wait for a person, so that small feeds
	// can live.
	HoldFloor int `json:"hold_floor"`
	// Strikes within a day quarantine the operator.
	Strikes int `json:"strikes"`
}

// LimitsSource is a [topics.NAME.limits] section; what it leaves out keeps its
// default.
type LimitsSource struct {
	PerHour    *int `toml:"per_hour,omitempty" json:"per_hour,omitempty"`
	Burst      *int `toml:"burst,omitempty" json:"burst,omitempty"`
	Live       *int `toml:"live,omitempty" json:"live,omitempty"`
	Addresses  *int `toml:"addresses,omitempty" json:"addresses,omitempty"`
	HoldChange *int `toml:"hold_change_percent,omitempty" json:"hold_change_percent,omitempty"`
	HoldRate   *int `toml:"hold_rate_times,omitempty" json:"hold_rate_times,omitempty"`
	HoldFloor  *int `toml:"hold_floor,omitempty" json:"hold_floor,omitempty"`
	Strikes    *int `toml:"strikes,omitempty" json:"strikes,omitempty"`
}

// StrikeWindow is how long a strike counts.
const StrikeWindow = 24 * time.Hour

// DefaultLimits are generous for an honest operator of some machines and tight
// for a stolen key.
func DefaultLimits() Limits {
	return Limits{
		PerHour:    200,
		Burst:      500,
		Live:       20_000,
		Addresses:  65_536,
		HoldChange: 30,
		HoldRate:   10,
		HoldFloor:  100,
		Strikes:    3,
	}
}

// limits overlays s on the defaults; bad names the first value that is out of
// bounds.
func (s *LimitsSource) limits() (l Limits, bad string) {
	l = DefaultLimits()
	if s == nil {
		return l, ""
	}
	for _, f := range []struct {
		name      string
		from      *int
		to        *int
		low, high int
	}{
		{"per_hour", s.PerHour, &l.PerHour, 0, 1 << 20},
		{"burst", s.Burst, &l.Burst, 0, 1 << 24},
		{"live", s.Live, &l.Live, 0, 1 << 24},
		{"addresses", s.Addresses, &l.Addresses, 0, 1 << 31},
		{"hold_change_percent", s.HoldChange, &l.HoldChange, 0, 10_000},
		{"hold_rate_times", s.HoldRate, &l.HoldRate, 0, 10_000},
		{"hold_floor", s.HoldFloor, &l.HoldFloor, 0, 1 << 24},
		{"strikes", s.Strikes, &l.Strikes, 1, 1000},
	} {
		switch {
		case f.from == nil:
		case *f.from < f.low || *f.from > f.high:
			return l, f.name
		default:
			*f.to = *f.from
		}
	}
	return l, ""
}
