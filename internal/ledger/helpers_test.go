package ledger

import "banmesh/internal/ban"

// BanLocal bans by detection, with an offence that is now.
func (l *Ledger) BanLocal(topic ban.Topic, c ban.Claim, proof Evidence) error {
	return l.Own.Ban(Local{Topic: topic, Claim: c, Evidence: proof})
}
