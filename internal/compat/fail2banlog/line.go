package fail2banlog

import (
	"regexp"
	"time"

	"banmesh/internal/ban"
)

// banLine is a line of fail2ban's log that says of a ban: made, restored at a
// start, or made longer, then with its end.
var banLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[,.]\d{3} fail2ban\.(?:actions|observer) +\[\d+\]: (?:NOTICE|WARNING|INFO) +\[([^\]\s]{1,64})\] (?:(?:Restore )?Ban (\S{1,64})|Increase Ban (\S{1,64}) \(.* -> (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\))\s*$`)

// A LoggedBan is a ban as fail2ban's log has it.
type LoggedBan struct {
	Jail   string
	Target ban.Target
	At     time.Time
	// End is zero where the line does not say it: the jail's ban time counts.
	End time.Time
}

// ParseLine reads a line of fail2ban's log; ok is false for one that is of no
// ban. Times are this machine's, as fail2ban writes them.
func ParseLine(line []byte) (b LoggedBan, ok bool) {
	m := banLine.FindSubmatch(line)
	if m == nil {
		return b, false
	}
	at, err := time.ParseInLocation(time.DateTime, string(m[1]), time.Local)
	if err != nil {
		return b, false
	}
	b = LoggedBan{Jail: string(m[2]), At: at}
	address := m[3]
	if len(m[4]) > 0 {
		address = m[4]
		if b.End, err = time.ParseInLocation(time.DateTime, string(m[5]), time.Local); err != nil {
			return b, false
		}
	}
	b.Target, err = ban.ParseTarget(string(address))
	return b, err == nil && b.Target.Kind() != ban.KindWallet
}
