package policy

import "time"

// Limits bound one operator in one topic, whatever its feeds say. Claims beyond
// them wait; they are watched meanwhile, neither applied nor lost.
type Limits struct {
	// PerHour new claims of a feed count in any hour, and more where its own
	// turnover is larger: Turnover times its usual additions of an hour. The
	// rest of the hour waits for a person.
	PerHour  int `json:"per_hour"`
	Turnover int `json:"turnover"`
	// Live bans may be in force at a time.
	Live int `json:"live"`
	// Addresses is how much address space they may cover: IPv4 addresses, or
	// IPv6 /64s.
	Addresses int `json:"addresses"`
	// Decided claims of addresses may be added a day. Wallets have no such
	// limit: nobody can claim another's by mistake of a log line.
	Decided int `json:"decided_per_day"`
	// Strikes within a day quarantine the operator.
	Strikes int `json:"strikes"`
}

// LimitsSource is a [topics.NAME.limits] section; keys that it leaves out keep
// their default.
type LimitsSource struct {
	// PerHour new claims of a feed count in any hour; the rest waits for a person.
	PerHour *int `toml:"per_hour,omitempty" sample:"200" json:"per_hour,omitempty"`
	// Turnover times its usual additions of an hour are allowed too, for large
	// feeds.
	Turnover *int `toml:"turnover,omitempty" sample:"10" json:"turnover,omitempty"`
	// Live bans may be in force at a time.
	Live *int `toml:"live,omitempty" sample:"20000" json:"live,omitempty"`
	// Addresses is how much address space they may cover: IPv4 addresses, or IPv6
	// /64s.
	Addresses *int `toml:"addresses,omitempty" sample:"65536" json:"addresses,omitempty"`
	// Decided claims of addresses may be added a day.
	Decided *int `toml:"decided_per_day,omitempty" sample:"20" json:"decided_per_day,omitempty"`
	// Strikes within a day quarantine the operator.
	Strikes *int `toml:"strikes,omitempty" sample:"3" json:"strikes,omitempty"`
}

// StrikeWindow is how long a strike counts.
const StrikeWindow = 24 * time.Hour

// DefaultLimits are generous for an honest operator of some machines, also
// under attack, and tight for a stolen key.
func DefaultLimits() Limits {
	return Limits{
		PerHour:   200,
		Turnover:  10,
		Live:      20_000,
		Addresses: 65_536,
		Decided:   20,
		Strikes:   3,
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
		{"per_hour", s.PerHour, &l.PerHour, 0, 1 << 24},
		{"turnover", s.Turnover, &l.Turnover, 0, 10_000},
		{"live", s.Live, &l.Live, 0, 1 << 24},
		{"addresses", s.Addresses, &l.Addresses, 0, 1<<31 - 1},
		{"decided_per_day", s.Decided, &l.Decided, 0, 1 << 24},
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
