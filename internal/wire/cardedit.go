package wire

import (
	"slices"
	"time"

	"banmesh/internal/ban"
)

// NextCard is a copy with the next serial.
func NextCard(c *Card, now time.Time) *Card {
	next := &Card{Serial: 1, Issued: now}
	if c != nil {
		*next = *c
		next.Certificates = append([]Certificate(nil), c.Certificates...)
		next.Revocations = append([]Revocation(nil), c.Revocations...)
		next.Serial, next.Issued = c.Serial+1, now
	}
	return next
}

// Certify adds a certificate for key, or renews the one that it has, and drops
// those that expired long ago.
func (c *Card) Certify(key PublicKey, now time.Time) {
	now = now.Truncate(time.Second)
	kept := c.Certificates[:0]
	from := now.Add(-MaxAhead) // so that clocks that are behind accept it
	for _, x := range c.Certificates {
		switch {
		case x.Key == key:
			from = x.NotBefore
		case x.NotAfter.Add(MaxCertificate).After(now):
			kept = append(kept, x)
		}
	}
	// A certificate counts from the card's date.
	c.Certificates = append(kept, Certificate{Key: key, NotBefore: from, NotAfter: now.Add(MaxCertificate - time.Second)})
}

// Revoke ends a node: its certificate goes, and readers drop the claims that they heard
// from it at or after since.
func (c *Card) Revoke(n ban.Node, since time.Time) {
	c.Certificates = slices.DeleteFunc(c.Certificates, func(x Certificate) bool { return x.Node() == n })
	c.Revocations = slices.DeleteFunc(c.Revocations, func(r Revocation) bool { return r.Node == n })
	c.Revocations = append(c.Revocations, Revocation{Node: n, Since: since.Truncate(time.Second)})
}

// Knows says whether the card certifies or revokes a node.
func (c *Card) Knows(n ban.Node) bool {
	if _, revoked := c.RevokedSince(n); revoked {
		return true
	}
	return slices.ContainsFunc(c.Certificates, func(x Certificate) bool { return x.Node() == n })
}

// Merge adds the revocations and certificates of another card of the operator
// that c does not know of, up to the limits, and says whether there were any. A
// node that either has revoked is revoked.
func (c *Card) Merge(other *Card) bool {
	merged := false
	for _, r := range other.Revocations {
		if _, ok := c.RevokedSince(r.Node); !ok && len(c.Revocations) < MaxRevocations {
			c.Revoke(r.Node, r.Since)
			merged = true
		}
	}
	for _, x := range other.Certificates {
		if !c.Knows(x.Node()) && len(c.Certificates) < MaxNodes && x.NotAfter.After(c.Issued) {
			c.Certificates = append(c.Certificates, x)
			merged = true
		}
	}
	return merged
}
