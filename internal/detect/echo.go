package detect

import (
	"time"

	"banmesh/internal/ban"
)

// Where fail2ban runs beside this agent, both may ban one attacker for one
// attack: the agent decides, and fail2ban's log says so too. Topics that count
// who is banned again and again count such a pair once.
const (
	// echoWithin is how far apart the two may be: fail2ban's own findtime.
	echoWithin = 10 * time.Minute
	// maxEchoes bounds the targets that are remembered; beyond it all are
	// forgotten, and a pair may count twice.
	maxEchoes = 1 << 16
)

// echo is a ban that waits for its pair.
type echo struct {
	at  time.Time
	own bool // decided here; else another program's log says so
}

// echoed says that a ban is the other half of one that was counted; j.mu is
// held. Each pairs once.
func (j *jail) echoed(t ban.Target, at time.Time, own bool) bool {
	if !j.def.Detect.Decisions {
		return false
	}
	if e, ok := j.echoes[t]; ok && e.own != own && at.Sub(e.at).Abs() <= echoWithin {
		delete(j.echoes, t)
		return true
	}
	if j.echoes == nil || len(j.echoes) >= maxEchoes {
		j.echoes = map[ban.Target]echo{}
	}
	j.echoes[t] = echo{at, own}
	return false
}
