package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/keys"
)

// When a person is told of a certificate that ends and that this machine
// cannot renew, and how long of a feed that had to begin again and of a key that
// this machine replaced by itself.
const (
	certificateNotice = 21 * 24 * time.Hour
	restartNotice     = 24 * time.Hour
	rekeyedNotice     = 30 * 24 * time.Hour
)

// certified is the node's own standing.
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

// warn gives the conditions of the node's own standing.
func (c certified) warn(now time.Time) []control.Warning {
	switch {
	case c.revoked:
		return []control.Warning{api.Revoked.Warn("the operator has revoked this node: nobody believes its claims", "")}
	case c.expires.IsZero():
		return []control.Warning{api.Certificate.Warn("the operator's card does not certify this node: nobody believes its claims", "")}
	case !c.expires.After(now):
		return []control.Warning{api.Certificate.Warn(fmt.Sprintf("the node's certificate ended on %s: nobody believes its claims", c.expires.Format(time.DateOnly)), "")}
	case !c.root && c.expires.Sub(now) < certificateNotice:
		return []control.Warning{api.Certificate.Warn(fmt.Sprintf("the node's certificate ends on %s, and the root key that could renew it is on another machine", c.expires.Format(time.DateOnly)), "")}
	}
	return nil
}

// warnRekeyed tells of a key that this machine made by itself, while it has it: a
// person who made another one since knows.
func warnRekeyed(last federation.Rekeying, node ban.Node, now time.Time) []control.Warning {
	if last.Node != node || now.Sub(last.At) >= rekeyedNotice {
		return nil
	}
	return []control.Warning{api.KeyReplaced.Warn(fmt.Sprintf("another machine wrote with this node's key, so on %s this node revoked it and made itself a new one: it is node %s now",
		last.At.UTC().Format(time.DateTime), node), "")}
}

// warnFeeds gives the conditions of feeds.
func warnFeeds(feeds []federation.FeedStatus, now time.Time) (list []control.Warning) {
	bad := map[string][]string{}
	for _, f := range feeds {
		name := fmt.Sprintf("%s (%s)", cmp.Or(f.Name, f.Operator), f.Topic)
		switch {
		case !f.Own:
			if !slices.Contains(bad[f.Status], name) {
				bad[f.Status] = append(bad[f.Status], name)
			}
		case f.Status == federation.StatusCloned:
			list = append(list, api.Cloned.Warn(fmt.Sprintf("another machine writes with this node's key, so nothing of %s is published from here any more", f.Topic), ""))
		case !f.Restarted.IsZero() && now.Sub(f.Restarted) < restartNotice:
			list = append(list, api.Restarted.Warn(
				fmt.Sprintf("the brokers held messages of ours in %s that this machine does not know, so the feed began again %s ago from the bans that are known here; bans that were made after a backup are lost unless they are made again",
					f.Topic, now.Sub(f.Restarted).Round(time.Second)), ""))
		}
	}
	for _, x := range []struct {
		status    string
		condition api.Condition
		text      string
	}{
		{federation.StatusEquivocating, api.FeedEquivocating, "two different stories were signed with the key of"},
		{federation.StatusContested, api.FeedContested, "two machines seem to write with the key of"},
		{federation.StatusStolen, api.FeedStolen, "nothing more is believed, because its own node says that its key was stolen, of"},
		{federation.StatusWithheld, api.FeedWithheld, "the brokers do not hand out all that was said by"},
		{federation.StatusStale, api.FeedStale, "nothing new was heard within the time that they promise of"},
		{federation.StatusTooLarge, api.FeedTooLarge, "more than the limits allow is claimed by"},
		{federation.StatusQuarantined, api.FeedQuarantined, "nothing is taken any more, because it was beyond a limit here, of"},
		{federation.StatusUncertified, api.FeedUncertified, "the operator's card no longer certifies a node of"},
	} {
		if names := bad[x.status]; len(names) > 0 {
			slices.Sort(names)
			list = append(list, x.condition.Warn(x.text+" "+strings.Join(names, ", "), ""))
		}
	}
	return list
}
