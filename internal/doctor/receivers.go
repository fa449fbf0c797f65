package doctor

import "banmesh/internal/span"

// receivers judges the receivers of messages: one that was never sent anything
// may not work, and nobody would know.
func (e *Facts) receivers(add func(check string, l Level, fix, format string, args ...any)) {
	for _, x := range e.Status.Notify {
		test := "agent notify test " + x.Name
		switch {
		case !x.Failing.IsZero():
			add("notify", LevelNote, test, "%s (%s) takes no message: %s", x.Name, x.Type, x.Error)
		case x.LastSent.IsZero():
			add("notify", LevelNote, test, "%s (%s) was never sent a message: nobody knows whether one arrives", x.Name, x.Type)
		default:
			add("notify", LevelOK, "", "%s (%s) took a message %s ago", x.Name, x.Type, span.Short(max(e.Now.Sub(x.LastSent), 0)))
		}
	}
}
