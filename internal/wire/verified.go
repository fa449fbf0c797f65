package wire

import (
	"crypto/sha256"
	"sync"
)

// A Verifier remembers which messages had a good signature, so that the same
// bytes from a second broker, or again after a reconnection, cost a hash and
// no signature. Nothing enters it before it was verified, and it says nothing
// about whether a message is new: that is for the marks.
type Verifier struct {
	young, old map[digest]struct{}
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
	digest := digestOf(n, payload)
	if v.has(digest) {
		m, err := openVerified(n, payload)
		return m, false, err
	}
	if m, err = Open(n, payload); err != nil {
		return nil, false, err
	}
	v.note(digest)
	return m, true, nil
}

type digest [sha256.Size]byte

// digestOf leaves a state behind a head out: the signature is the head's.
func digestOf(n Name, payload []byte) (d digest) {
	if n.Kind == KindHead {
		payload = BareHead(payload)
	}
	h := sha256.New()
	h.Write([]byte(n.String()))
	h.Write([]byte{0}) // no name has it, so name and payload cannot be divided otherwise
	h.Write(payload)
	h.Sum(d[:0])
	return d
}

func (v *Verifier) has(d digest) bool {
	if _, young := v.young[d]; young {
		return true
	}
	_, old := v.old[d]
	return old
}

func (v *Verifier) note(d digest) {
	if len(v.young) >= verifiedMost || v.young == nil {
		v.young, v.old = make(map[digest]struct{}), v.young
	}
	v.young[d] = struct{}{}
}

// A SharedVerifier is a [Verifier] for several goroutines, which check
// signatures side by side.
type SharedVerifier struct {
	mu sync.Mutex
	v  Verifier
}

// Open is [Open], with the signature checked once.
func (s *SharedVerifier) Open(n Name, payload []byte) (*Message, error) {
	if len(payload) > MaxPayload {
		return nil, ErrSize
	}
	d := digestOf(n, payload)
	s.mu.Lock()
	known := s.v.has(d)
	s.mu.Unlock()
	if known {
		return openVerified(n, payload)
	}
	m, err := Open(n, payload)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.v.note(d)
	s.mu.Unlock()
	return m, nil
}

// openVerified is [Open] for a message whose signature was checked before.
func openVerified(n Name, payload []byte) (*Message, error) {
	header, text, state, err := inspect(n, payload)
	if err != nil {
		return nil, err
	}
	m, err := decodeMessage(n, payload, header, text, state)
	return placed(m, n, err)
}
