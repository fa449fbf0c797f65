package agent

import (
	"fmt"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/control"
)

// behindFor is how long a ban may wait for the disk before that is worth a word: many
// times a slow disk's write.
const behindFor = 2 * time.Second

// warnBehind says that bans wait for the disk.
func (a *agent) warnBehind() []control.Warning {
	bans, since, fault := a.ledger.Own.Behind()
	late := a.now().Sub(since)
	if bans == 0 || fault == nil && late < behindFor {
		return nil
	}
	text := fmt.Sprintf("%d bans are in force and not on disk, the oldest for %s", bans, late.Truncate(time.Second))
	if fault != nil {
		text += ": " + fault.Error()
	}
	return []control.Warning{api.Behind.Warn(text+"; after a crash the log is read again from there", "")}
}
