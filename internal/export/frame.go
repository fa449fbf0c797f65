package export

import (
	"encoding/binary"
	"fmt"

	"banmesh/internal/ban"
)

// FramesType is the media type of the stream in frames, which costs a tenth of
// the lines of JSON; docs/client.md describes it. Who asks for it gets it.
const FramesType = "application/vnd.banmesh.stream"

// Kinds of targets in a frame.
const (
	frameAddr4  = 4
	frameNet4   = 5
	frameAddr6  = 6
	frameNet6   = 7
	frameWallet = 8
)

// frameKinds are the first bytes of frames.
var frameKinds = map[string]byte{"snapshot": 'S', "change": 'C', "resumed": 'R', "heartbeat": 'H'}

// encodeFrame appends a part as a frame: its kind, the length of the rest in four
// bytes (all numbers are big-endian), the serial in eight, a byte that says
// whether a snapshot goes on, the run, the labels, the bans and the lifted ones.
func encodeFrame(into []byte, p streamPart) ([]byte, error) {
	start := len(into)
	into = append(into, frameKinds[p.kind], 0, 0, 0, 0)
	into = binary.BigEndian.AppendUint64(into, p.serial)
	into = append(into, oneIf(p.more))
	into = appendText(into, p.run)
	labels := frameLabels{}
	for _, e := range p.bans {
		labels.number(frameLabel{e.Topic, e.Class, e.Here})
	}
	for _, k := range p.lifted {
		labels.number(frameLabel{topic: k.Topic})
	}
	into = binary.BigEndian.AppendUint32(into, uint32(len(labels)))
	for _, l := range labels {
		into = append(appendText(appendText(into, string(l.topic)), l.class.String()), oneIf(l.here))
	}
	into = binary.BigEndian.AppendUint32(into, uint32(len(p.bans)))
	for _, e := range p.bans {
		var err error
		if into, err = appendTarget(into, e.Target); err != nil {
			return into[:start], err
		}
		into = binary.BigEndian.AppendUint32(into, secondsUp(e.Until))
		into = binary.BigEndian.AppendUint16(into, labels.number(frameLabel{e.Topic, e.Class, e.Here}))
	}
	into = binary.BigEndian.AppendUint32(into, uint32(len(p.lifted)))
	for _, k := range p.lifted {
		var err error
		if into, err = appendTarget(into, k.Target); err != nil {
			return into[:start], err
		}
		into = binary.BigEndian.AppendUint16(into, labels.number(frameLabel{topic: k.Topic}))
	}
	binary.BigEndian.PutUint32(into[start+1:], uint32(len(into)-start-5))
	return into, nil
}

// frameLabel is the common part of many bans.
type frameLabel struct {
	topic ban.Topic
	class ban.Class
	here  bool
}

// frameLabels are the labels of one frame: a handful, so they are searched in
// order.
type frameLabels []frameLabel

func (f *frameLabels) number(l frameLabel) uint16 {
	for i, x := range *f {
		if x == l {
			return uint16(i)
		}
	}
	*f = append(*f, l)
	return uint16(len(*f) - 1)
}

func appendText(into []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(into, byte(len(s))), s...)
}

func oneIf(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendTarget(into []byte, t ban.Target) ([]byte, error) {
	if w, ok := t.Wallet(); ok {
		return append(append(into, frameWallet), w[:]...), nil
	}
	p, ok := t.Prefix()
	if !ok {
		return into, fmt.Errorf("encoding a frame: %v is no target", t)
	}
	single, net := byte(frameAddr6), byte(frameNet6)
	if p.Addr().Is4() {
		single, net = frameAddr4, frameNet4
	}
	if p.IsSingleIP() {
		into = append(into, single)
	} else {
		into = append(into, net, byte(p.Bits()))
	}
	if p.Addr().Is4() {
		a := p.Addr().As4()
		return append(into, a[:]...), nil
	}
	a := p.Addr().As16()
	return append(into, a[:]...), nil
}
