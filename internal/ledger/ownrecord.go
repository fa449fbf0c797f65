package ledger

import (
	"encoding/binary"
	"fmt"
	"time"

	"banmesh/internal/ban"
)

// ownRecord is an entry of the journal of own claims.
type ownRecord struct {
	topic   ban.Topic
	source  Source
	removed bool       // the claim's target alone counts
	reason  ban.Reason // of a removal; not on disk
	claim   ban.Claim
	since   uint32
	proof   Evidence
}

// keptAt says whether the record's vote is still worth keeping.
func (o *ownRecord) keptAt(now time.Time) bool {
	v := vote{since: o.since, feed: sightingFeed + 1} // any source's
	if o.source == SourceSighting {
		v.feed = sightingFeed
	}
	v.setClaim(o.claim)
	return v.kept(now)
}

func (o *ownRecord) place() place { return place{o.topic, o.claim.Target} }

// The first byte of an own record.
const (
	recordAdd    = 1
	recordRemove = 2
)

// maxText bounds each text of an [Evidence] on disk, in bytes.
const maxText = 300

func (o *ownRecord) append(b []byte) []byte {
	op := byte(recordAdd)
	if o.removed {
		op = recordRemove
	}
	b = append(b, op)
	b = appendText(b, string(o.topic))
	b = appendSource(b, o.source)
	if o.removed {
		return appendTarget(b, o.claim.Target)
	}
	b = appendClaim(b, o.claim)
	b = binary.LittleEndian.AppendUint32(b, o.since)
	if o.proof == (Evidence{}) {
		return b
	}
	for _, text := range []string{o.proof.By, o.proof.Source, o.proof.Sample} {
		b = appendText(b, text)
	}
	return b
}

// errDamaged is made once: a journal has a million records.
var errDamaged = fmt.Errorf("an own claim: %w", ErrCorrupt)

func (o *ownRecord) decode(b []byte) error {
	if len(b) < 1 || b[0] != recordAdd && b[0] != recordRemove {
		return errDamaged
	}
	*o = ownRecord{removed: b[0] == recordRemove}
	topic, b, ok1 := cutText(b[1:])
	source, b, ok2 := cutSource(b)
	if !ok1 || !ok2 {
		return errDamaged
	}
	var err1, err2 error
	o.topic, err1 = ban.ParseTopic(topic)
	if o.source, err2 = ParseSource(string(source)); err1 != nil || err2 != nil {
		return errDamaged
	}
	var ok bool
	if o.removed {
		if o.claim.Target, b, ok = cutTarget(b); !ok || len(b) > 0 {
			return errDamaged
		}
		return nil
	}
	if o.claim, b, ok = cutClaim(b); !ok || len(b) < 4 {
		return errDamaged
	}
	o.since, b = binary.LittleEndian.Uint32(b), b[4:]
	if len(b) == 0 {
		return nil
	}
	for _, text := range []*string{&o.proof.By, &o.proof.Source, &o.proof.Sample} {
		if *text, b, ok = cutText(b); !ok {
			return errDamaged
		}
	}
	if len(b) > 0 || o.proof == (Evidence{}) {
		return errDamaged
	}
	return nil
}

// appendClaim writes a claim: its target, end, class, hits, and one byte for
// the rest. [cutClaim] reads it back.
func appendClaim(b []byte, c ban.Claim) []byte {
	b = appendTarget(b, c.Target)
	b = binary.LittleEndian.AppendUint32(b, seconds(c.End))
	return append(b, byte(c.Class), c.Hits, claimBits(c))
}

func cutClaim(b []byte) (c ban.Claim, rest []byte, ok bool) {
	c.Target, b, ok = cutTarget(b)
	if !ok || len(b) < 7 {
		return c, nil, false
	}
	c.End = time.Unix(int64(binary.LittleEndian.Uint32(b)), 0)
	c.Class, c.Hits = ban.Class(b[4]), b[5]
	return c, b[7:], setClaimBits(&c, b[6])
}

// claimBits packs the parts of a claim that are neither numbers nor times.
func claimBits(c ban.Claim) uint8 {
	bits := uint8(c.Basis) & basisMask
	if c.Established {
		bits |= flagEstablished
	}
	return bits
}

func setClaimBits(c *ban.Claim, bits uint8) bool {
	c.Established, c.Basis = bits&flagEstablished != 0, ban.Basis(bits&basisMask)
	return claimBits(*c) == bits
}

// shortSources are the sources that take one byte on disk: 0x80 and their place
// here. No other text begins with such a byte.
var shortSources = [...]Source{SourceDetection, SourceHand, SourceFail2ban, SourceCrowdSec}

func appendSource(b []byte, s Source) []byte {
	for i, short := range shortSources {
		if s == short {
			return append(b, 0x80+byte(i))
		}
	}
	return appendText(b, string(s))
}

func cutSource(b []byte) (s Source, rest []byte, ok bool) {
	if len(b) > 0 && b[0] >= 0x80 && int(b[0]-0x80) < len(shortSources) {
		return shortSources[b[0]-0x80], b[1:], true
	}
	text, rest, ok := cutText(b)
	for _, short := range shortSources {
		ok = ok && Source(text) != short // it has one spelling
	}
	return Source(text), rest, ok
}

// appendText writes a length and at most [maxText] bytes.
func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), maxText)]
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func cutText(b []byte) (s string, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > maxText || n > uint64(len(b)-k) || len(binary.AppendUvarint(nil, n)) != k {
		return "", nil, false
	}
	return string(b[k : k+int(n)]), b[k+int(n):], true
}

// appendTarget writes a kind and the bytes of its key.
func appendTarget(b []byte, t ban.Target) []byte {
	k := ban.KeyOf(t)
	return appendKey(b, &k)
}

func appendKey(b []byte, k *ban.Key) []byte { return append(append(b, byte(k.Kind)), k.Bytes()...) }

// cutTarget reads the bytes that appendTarget writes, and no others.
func cutTarget(b []byte) (t ban.Target, rest []byte, ok bool) {
	k, rest, ok := cutKey(b)
	if !ok {
		return t, nil, false
	}
	t, err := k.Target()
	return t, rest, err == nil
}

// cutKey reads a key, which may be no target.
func cutKey(b []byte) (k ban.Key, rest []byte, ok bool) {
	if len(b) == 0 {
		return k, nil, false
	}
	k.Kind = ban.Kind(b[0])
	n := ban.KeyWidth(k.Kind)
	if n == 0 || len(b)-1 < n {
		return k, nil, false
	}
	copy(k.B[:], b[1:1+n])
	return k, b[1+n:], true
}
