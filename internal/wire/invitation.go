package wire

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// Limits of an invitation: it must fit a line of a mail or a QR code.
const (
	maxInvitationBrokers = 8
	maxInvitationTopics  = 16
	maxInvitationTrusted = 16
	maxInvitation        = 4 << 10
)

// InvitationPrefix begins the text of an invitation.
const InvitationPrefix = "banmesh:"

// An Invitation tells a newcomer all that joining a network takes: where its
// brokers are and whom its author suggests to trust. It is signed by the
// inviting operator's root key, and shown to a person before anything is done.
//
//	note text | expires u32 | brokers uvarint, texts | topics uvarint, texts |
//	operators uvarint | each: operator 16, weight u8, name text
type Invitation struct {
	Network  string       // from the header
	Operator ban.Operator // who invites
	Issued   time.Time

	Note    string
	Expires time.Time
	Brokers []string // addresses of one broker each, divided by spaces
	Topics  []ban.Topic
	Trusted []Trusted
}

// Kind implements [Body].
func (*Invitation) Kind() Kind { return KindInvitation }

// Append implements [Body].
func (v *Invitation) Append(b []byte) []byte {
	b = appendText(b, v.Note)
	b = binary.BigEndian.AppendUint32(b, Seconds(v.Expires))
	b = binary.AppendUvarint(b, uint64(len(v.Brokers)))
	for _, s := range v.Brokers {
		b = appendText(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(v.Topics)))
	for _, s := range v.Topics {
		b = appendText(b, string(s))
	}
	return (&Trust{v.Trusted}).Append(b)
}

func decodeInvitation(d *Decoder) *Invitation {
	v := &Invitation{Note: d.line(MaxText), Expires: d.time()}
	for i, n := 0, int(d.Uvarint(maxInvitationBrokers)); i < n && d.err == nil; i++ {
		v.Brokers = append(v.Brokers, d.line(MaxText))
	}
	for i, n := 0, int(d.Uvarint(maxInvitationTopics)); i < n && d.err == nil; i++ {
		t, err := ban.ParseTopic(d.text(ban.MaxTopic))
		if err != nil {
			d.fail(err)
		}
		v.Topics = append(v.Topics, t)
	}
	v.Trusted = decodeTrust(d).Operators
	if d.err == nil && len(v.Trusted) > maxInvitationTrusted {
		d.fail(errors.New("it names too many operators"))
	}
	return v
}

// Sign gives the invitation as text that begins with [InvitationPrefix].
func (v *Invitation) Sign(root ed25519.PrivateKey) (string, error) {
	h := Header{Kind: KindInvitation, Network: v.Network, Number: 1, Issued: v.Issued}
	b, err := signDocument(root, h, v)
	if err != nil {
		return "", err
	}
	text := InvitationPrefix + base64.RawURLEncoding.EncodeToString(b)
	if len(text) > maxInvitation {
		return "", fmt.Errorf("signing the invitation: it has %d characters, %d are the limit", len(text), maxInvitation)
	}
	return text, nil
}

// ErrInvitationExpired says that an invitation's time is over.
var ErrInvitationExpired = errors.New("the invitation has expired")

// ParseInvitation reads the text of an invitation. The signature says that
// Operator wrote it, not that Operator deserves any trust.
func ParseInvitation(text string, now time.Time) (*Invitation, error) {
	text = strings.TrimSpace(text)
	encoded, ok := strings.CutPrefix(text, InvitationPrefix)
	if !ok || len(text) > maxInvitation {
		return nil, fmt.Errorf("%w: an invitation begins with %s and has at most %d characters", ErrFormat, InvitationPrefix, maxInvitation)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	h, err := Peek(b)
	if err != nil {
		return nil, err
	}
	if err := CheckNetwork(h.Network); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	m, err := Open(Name{Network: h.Network, Kind: KindInvitation, Operator: h.Operator}, b)
	if err != nil {
		return nil, err
	}
	v := m.Body.(*Invitation)
	v.Network, v.Operator, v.Issued = h.Network, h.Operator, h.Issued
	if now.After(v.Expires) {
		return v, fmt.Errorf("%w: on %s", ErrInvitationExpired, v.Expires.Format(time.DateOnly))
	}
	return v, nil
}
