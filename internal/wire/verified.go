package wire

import "crypto/sha256"

// A Verifier remembers which messages had a good signature, so that the same
// bytes from a second broker, or again after a reconnection, cost a hash and
// no signature. Nothing enters it before it was verified, and it says nothing
// about whether a message is new: that is for the marks.
type Verifier struct {
	young, old map[[sha256.Size]byte]struct{}
}

// verifiedMost is how many messages a generation has; there are two. It bounds
// the memory to some 300 KB, and is more than a feed's ring and pieces.
const verifiedMost = 2048

// Open is [Open], with the signature checked once. fresh says that it was
// checked now.
func (v *Verifier) Open(n Name, payload []byte) (m *Message, fresh bool, err error) {
	if len(payload) > MaxPayload {
		return nil, false, ErrSize
	}
	h := sha256.New()
	h.Write([]byte(n.String()))
	h.Write([]byte{0}) // no name has it, so name and payload cannot be divided otherwise
	h.Write(payload)
	var digest [sha256.Size]byte
	h.Sum(digest[:0])
	_, young := v.young[digest]
	_, old := v.old[digest]
	if young || old {
		header, text, err := InspectBody(n, payload)
		if err != nil {
			return nil, false, err
		}
		m, err := decodeMessage(n, payload, header, text)
		m, err = placed(m, n, err)
		return m, false, err
	}
	if m, err = Open(n, payload); err != nil {
		return nil, false, err
	}
	if len(v.young) >= verifiedMost || v.young == nil {
		v.young, v.old = make(map[[sha256.Size]byte]struct{}), v.young
	}
	v.young[digest] = struct{}{}
	return m, true, nil
}
