package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/keys"
)

// When a person is told of a certificate that ends and that this machine
// cannot renew, and how long of a feed that had to begin again.
const (
	certificateNotice = 21 * 24 * time.Hour
	restartNotice     = 24 * time.Hour
)

// certified is what is known of the node's own standing.
type certified struct {
	node    string
	root    bool      // the operator's root key is on this machine
	expires time.Time // zero: the card does not certify the node
	revoked bool
}

// standing asks the identity.
func standing(id *keys.Identity) certified {
	c := certified{node: id.Node().String(), root: id.HasRoot(), expires: id.Expires()}
	if card, _ := id.Card(); card != nil {
		_, c.revoked = card.RevokedSince(id.Node())
	}
	return c
}

// warn says what is wrong with the node's own standing.
func (c certified) warn(now time.Time) []control.Warning {
	const again = "agent key node request > node.request; agent key node certify node.request --dir OFFICE > card, where the root key is; agent key node install card"
	switch {
	case c.revoked:
		return []control.Warning{{
			Code: "revoked", Text: "the operator has revoked this node: nobody believes what it publishes",
			Fix: "agent key node rotate, with the agent stopped; then have the new key certified",
		}}
	case c.expires.IsZero():
		return []control.Warning{{Code: "certificate", Text: "the operator's card does not certify this node: nobody believes what it publishes", Fix: again}}
	case !c.expires.After(now):
		return []control.Warning{{Code: "certificate", Text: fmt.Sprintf("the node's certificate ended on %s: nobody believes what it publishes", c.expires.Format(time.DateOnly)), Fix: again}}
	case !c.root && c.expires.Sub(now) < certificateNotice:
		return []control.Warning{{
			Code: "certificate", Text: fmt.Sprintf("the node's certificate ends on %s, and the root key that could renew it is on another machine", c.expires.Format(time.DateOnly)), Fix: again,
		}}
	}
	return nil
}

// warnFeeds says which feeds are not what they should be.
func warnFeeds(feeds []federation.FeedStatus, now time.Time) (list []control.Warning) {
	bad := map[string][]string{}
	for _, f := range feeds {
		name := fmt.Sprintf("%s (%s)", f.Name, f.Topic)
		switch {
		case !f.Own:
			if f.Name == "" {
				name = fmt.Sprintf("%s (%s)", f.Operator, f.Topic)
			}
			if !slices.Contains(bad[f.Status], name) {
				bad[f.Status] = append(bad[f.Status], name)
			}
		case f.Status == federation.StatusCloned:
			list = append(list, control.Warning{
				Code: "cloned", Text: fmt.Sprintf("another machine writes with this node's key, so nothing of %s is published from here any more", f.Topic),
				Fix: "stop the other machine and restart this agent; or, with this agent stopped, agent key node rotate",
			})
		case !f.Restarted.IsZero() && now.Sub(f.Restarted) < restartNotice:
			list = append(list, control.Warning{
				Code: "feed-restarted", Text: fmt.Sprintf("the brokers held messages of ours in %s that this machine does not know, so the feed began again %s ago with what is known here; bans that were made after a backup are lost unless they are made again",
					f.Topic, now.Sub(f.Restarted).Round(time.Second)),
				Fix: "nothing if the state was lost or restored from a backup; otherwise see that no other machine has these keys",
			})
		}
	}
	for _, x := range []struct{ status, text, fix string }{
		{federation.StatusEquivocating, "two different stories were signed with the key of", "ask the operator: the key is on two machines, or stolen; its bans of before stay until they end"},
		{federation.StatusWithheld, "the brokers do not hand out all that was said by", "use a second broker: [[brokers]] in agent.toml"},
		{federation.StatusStale, "nothing new was heard within the time that they promise of", "the node is down or the broker withholds it: ask the operator, or use a second broker"},
		{federation.StatusTooLarge, "more than the limits allow is claimed by", "agent peers show NAME"},
		{federation.StatusUncertified, "the operator's card no longer certifies a node of", "ask the operator to renew the node's certificate"},
	} {
		if names := bad[x.status]; len(names) > 0 {
			slices.Sort(names)
			list = append(list, control.Warning{Code: "feed-" + x.status, Text: x.text + " " + strings.Join(names, ", "), Fix: x.fix})
		}
	}
	return list
}
