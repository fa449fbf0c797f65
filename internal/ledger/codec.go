package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"banmesh/internal/ban"
)

// ownRecord is an entry of the journal of own claims.
type ownRecord struct {
	place
	removed bool
	end     uint32
	since   uint32
	flags   uint8 // of the vote: class and whether established
	hits    uint8
	proof   Evidence
}

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
	b = append(b, op, byte(len(o.topic)))
	b = append(b, o.topic...)
	b = appendTarget(b, o.target)
	if o.removed {
		return b
	}
	b = binary.LittleEndian.AppendUint32(b, o.end)
	b = binary.LittleEndian.AppendUint32(b, o.since)
	b = append(b, o.flags, o.hits)
	if o.proof == (Evidence{}) {
		return b
	}
	for _, text := range []string{o.proof.By, o.proof.Source, o.proof.Sample} {
		text = text[:min(len(text), maxText)]
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return b
}

// errDamaged is made once: a journal has a million records.
var errDamaged = fmt.Errorf("an own claim: %w", ErrCorrupt)

func (o *ownRecord) decode(b []byte) error {
	if len(b) < 2 || b[0] != recordAdd && b[0] != recordRemove || len(b) < 2+int(b[1]) {
		return errDamaged
	}
	topic, err := ban.ParseTopic(string(b[2 : 2+b[1]]))
	if err != nil {
		return errDamaged
	}
	*o = ownRecord{removed: b[0] == recordRemove}
	o.topic = topic
	b = b[2+b[1]:]
	if o.target, b, err = cutTarget(b); err != nil {
		return errDamaged
	}
	if o.removed {
		if len(b) > 0 {
			return errDamaged
		}
		return nil
	}
	if len(b) < 10 {
		return errDamaged
	}
	o.end, o.since = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	o.flags, o.hits = b[8]&(classMask|flagEstablished), b[9]
	b = b[10:]
	if len(b) == 0 {
		return nil
	}
	for _, text := range []*string{&o.proof.By, &o.proof.Source, &o.proof.Sample} {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > maxText || n > uint64(len(b)-k) {
			return errDamaged
		}
		*text = string(b[k : k+int(n)])
		b = b[k+int(n):]
	}
	if len(b) > 0 {
		return errDamaged
	}
	return nil
}

// appendTarget writes a kind and the address: 4, 8, 16 or 20 bytes, and a
// length where the kind does not say it.
func appendTarget(b []byte, t ban.Target) []byte {
	b = append(b, byte(t.Kind()))
	if w, ok := t.Wallet(); ok {
		return append(b, w[:]...)
	}
	p, _ := t.Prefix()
	switch t.Kind() {
	case ban.KindAddr4, ban.KindCIDR4:
		a := p.Addr().As4()
		b = append(b, a[:]...)
	case ban.KindNet6:
		a := p.Addr().As16()
		return append(b, a[:8]...)
	default:
		a := p.Addr().As16()
		b = append(b, a[:]...)
	}
	if k := t.Kind(); k == ban.KindCIDR4 || k == ban.KindCIDR6 {
		b = append(b, byte(p.Bits()))
	}
	return b
}

// cutTarget reads what appendTarget wrote, and nothing else.
func cutTarget(b []byte) (t ban.Target, rest []byte, err error) {
	lengths := [...]int{ban.KindAddr4: 4, ban.KindAddr6: 16, ban.KindNet6: 8, ban.KindCIDR4: 5, ban.KindCIDR6: 17, ban.KindWallet: 20}
	if len(b) == 0 || b[0] == 0 || int(b[0]) >= len(lengths) || len(b)-1 < lengths[b[0]] {
		return t, nil, ErrCorrupt
	}
	kind := ban.Kind(b[0])
	n := lengths[kind]
	data, rest := b[1:1+n], b[1+n:]
	var a16 [16]byte
	switch kind {
	case ban.KindWallet:
		t, err = ban.TargetOfWallet([20]byte(data))
	case ban.KindAddr4:
		t, err = ban.TargetOfAddr(netip.AddrFrom4([4]byte(data)))
	case ban.KindCIDR4:
		t, err = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte(data)), int(data[4])))
	case ban.KindNet6:
		copy(a16[:], data)
		t, err = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16(a16), 64))
	case ban.KindAddr6:
		t, err = ban.TargetOfAddr(netip.AddrFrom16([16]byte(data)))
	case ban.KindCIDR6:
		t, err = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16([16]byte(data[:16])), int(data[16])))
	}
	if err != nil || t.Kind() != kind || !bytes.Equal(appendTarget(nil, t), b[:1+n]) {
		return ban.Target{}, nil, ErrCorrupt
	}
	return t, rest, nil
}
