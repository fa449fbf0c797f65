package detect

import (
	"net/netip"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/source"
)

// Status is a detector's account of itself.
type Status struct {
	Jails   []JailStatus   `json:"jails"`
	Sources []SourceStatus `json:"sources"`
	// Pending counts decisions that could not be carried out yet.
	Pending   int       `json:"pending"`
	LastSaved time.Time `json:"last_saved,omitzero"`
	SaveError string    `json:"save_error,omitempty"`
	StatePath string    `json:"state_path,omitempty"` // where saving fails
}

// JailStatus describes one topic's detection.
type JailStatus struct {
	Topic    ban.Topic `json:"topic"`
	Simulate bool      `json:"simulate,omitempty"`
	// Tracked targets have offences and no ban; fail2ban calls them
	// "currently failed". Found counts offences, Ignored those of addresses on
	// an ignore list, Banned decisions.
	Tracked int    `json:"tracked"`
	Found   uint64 `json:"found"`
	Ignored uint64 `json:"ignored"`
	Banned  uint64 `json:"banned"`
	// Uncorroborated counts offences of log lines that were not believed,
	// because the kernel knew no connection of the address; Doubted is the last
	// such address and DoubtedAt when that was.
	Uncorroborated uint64     `json:"uncorroborated,omitempty"`
	Doubted        netip.Addr `json:"doubted,omitzero"`
	DoubtedAt      time.Time  `json:"doubted_at,omitzero"`
	// Tainted counts offences of lines that a client may have written whole;
	// TaintedAt is when the last one was.
	Tainted   uint64    `json:"tainted,omitempty"`
	TaintedAt time.Time `json:"tainted_at,omitzero"`
	// Stalled counts weak offences that count for nobody because this node stood
	// still; StalledAt is when it last did.
	Stalled   uint64    `json:"stalled,omitempty"`
	StalledAt time.Time `json:"stalled_at,omitzero"`
	// Successes counts logins.
	Successes uint64 `json:"successes,omitempty"`
	// Evicted counts targets that were let go of because memory is bounded.
	Evicted uint64 `json:"evicted"`
	// Rules is how many expressions it has, Backtracking how many of them only
	// the backtracking engine runs, Timeouts how often one took too long.
	Rules        int    `json:"rules"`
	Backtracking int    `json:"backtracking"`
	Timeouts     uint64 `json:"timeouts"`
	// Sources are indexes into Status.Sources.
	Sources []int `json:"sources"`
}

// SourceStatus describes one source and the fate of its lines.
type SourceStatus struct {
	Spec   source.Spec   `json:"spec"`
	Status source.Status `json:"status"`
	Logs   []LogStatus   `json:"logs"`
	// Matched, Ignored and Unmatched are the fates of its lines since it was
	// opened; a line that two logs name counts once.
	Matched   uint64 `json:"matched"`
	Ignored   uint64 `json:"ignored"`
	Unmatched uint64 `json:"unmatched"`
}

// Status describes jails and sources.
func (d *Detector) Status() Status {
	var out Status
	for _, r := range d.readers {
		st := r.source.Status()
		out.Sources = append(out.Sources, SourceStatus{
			Spec: r.spec, Status: st, Logs: r.logStatus(st), Matched: r.matched.Load(), Ignored: r.ignored.Load(), Unmatched: r.missed.Load(),
		})
	}
	for _, j := range d.jails {
		j.mu.Lock()
		s := JailStatus{
			Topic: j.topic, Simulate: j.simulate, Tracked: len(j.window.entries), Found: j.counts.found,
			Ignored: j.counts.ignored, Banned: j.counts.banned, Evicted: j.window.evicted,
			Uncorroborated: j.counts.uncorroborated, Doubted: j.counts.doubted, DoubtedAt: j.counts.doubtedAt,
			Tainted: j.counts.tainted, TaintedAt: j.counts.taintedAt, Stalled: j.counts.stalled, StalledAt: j.counts.stalledAt, Successes: j.counts.successes,
			Rules: j.filter.Count(),
		}
		j.mu.Unlock()
		for _, re := range j.filter.Rules() {
			if re.Backtracks() {
				s.Backtracking++
			}
			s.Timeouts += re.Stats().Timeouts
		}
		for i, r := range d.readers {
			for _, other := range r.jails {
				if other == j {
					s.Sources = append(s.Sources, i)
				}
			}
		}
		out.Jails = append(out.Jails, s)
	}
	d.pendingMu.Lock()
	out.Pending = len(d.pending)
	d.pendingMu.Unlock()
	var err error
	if out.LastSaved, err = d.saves.last(); err != nil {
		out.SaveError, out.StatePath = err.Error(), d.o.StatePath
	}
	return out
}
