package agent

import (
	"context"
	"net/url"
	"path/filepath"
	"slices"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/notify"
	"banmesh/internal/page"
)

// messagesFile keeps the messages that wait, below the state directory.
const messagesFile = "notify.json"

// openMessages makes the part that tells people of events. It is a part of the
// agent and no process of its own: it needs the history and the warnings, which
// only the control socket has, and who may use that may unban anybody. To
// receivers it opens connections as to brokers, and reads a few bytes of their
// answers.
//
// The page has to be made before.
func (a *agent) openMessages() *notify.Notifier {
	mends := map[string]string{}
	for _, c := range api.Conditions() {
		mends[c.Code] = c.Mend
	}
	return notify.Open(notify.Options{
		Entries: func() []notify.Entry { return a.current().Receivers() },
		Find:    a.chronicle.Find, Wait: a.chronicle.Wait,
		Warnings: func(ctx context.Context) []control.Warning {
			return slices.Concat(a.api.Warnings(ctx), a.checkup.warnings(ctx))
		},
		Mend: func(code string) string {
			if mend, ok := mendOfCheck(code); ok {
				return mend
			}
			return mends[code]
		},
		Peers: func() []control.Peer { return a.api.Peers() },
		Claims: func(topic ban.Topic, t ban.Target) bool {
			s, ok := a.ledger.Standing(topic, t)
			if !ok {
				return false
			}
			for _, c := range s.Claims {
				if c.Own {
					return true
				}
			}
			return false
		},
		Page:  a.pageForMessages(),
		Guest: func(t ban.Target) bool { _, ok := a.guests.why(t); return ok },
		File:  filepath.Join(a.o.StateDir, messagesFile), Now: a.now, Log: a.log,
		TestingLook: a.o.testing.look,
	})
}

// pageForMessages gives the page's addresses; none where [page] has no url.
func (a *agent) pageForMessages() notify.Page {
	if a.page == nil {
		return notify.Page{}
	}
	return notify.Page{
		Act: func(x notify.Action) string { return a.page.Button(page.Action(x)) },
		Show: func(k notify.Kind, t ban.Target) string {
			path := "/"
			switch {
			case !t.IsZero():
				path = "/explain?target=" + url.QueryEscape(t.String())
			case k == notify.Ban:
				path = "/bans"
			case k == notify.Hold:
				path = "/holds"
			case k == notify.Quarantine, k == notify.Receipt:
				path = "/peers"
			case k == notify.Mistake:
				path = "/history"
			case k == notify.Silent:
				path = "/sources"
			}
			return a.page.Address(path)
		},
	}
}
