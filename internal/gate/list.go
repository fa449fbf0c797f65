package gate

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"
)

// The list's file: the magic line, the length of the header as four bytes (all
// numbers are big-endian), the header as JSON, one record a wallet in ascending
// order, and the SHA-256 of all before.
const (
	magic      = "banmesh gate 1\n"
	recordSize = 20 + 4 + 2 // wallet, end in Unix seconds, index into Reasons
	// maxHeader bounds the header: a few hundred reasons.
	maxHeader = 1 << 20
	// MaxWallets bounds a list: 52 MB, which the gate holds twice while it
	// reads a new one.
	MaxWallets = 2 << 20
	maxFile    = len(magic) + 4 + maxHeader + MaxWallets*recordSize + sha256.Size
	// maxReasons bounds the reasons, which records name with two bytes.
	maxReasons = 1 << 12
	// MaxMessage bounds a text for the denied, in bytes.
	MaxMessage = 500
)

// A Header is everything in a list's file but the wallets.
type Header struct {
	// Path is the secret path of the gate's URL, without a slash: see [LoadPath].
	Path string `json:"path"`
	// Written is when the agent made the list.
	Written time.Time `json:"written"`
	// DryRun logs refusals and refuses nothing.
	DryRun bool `json:"dry_run,omitempty"`
	// Message is for the denied; "" means [DefaultMessage].
	Message string `json:"message,omitempty"`
	// Chain is the webhook that the operator used before, or "": calls that
	// the gate allows are asked there too.
	Chain string `json:"chain,omitempty"`
	// ChainAllows says that a chained webhook that fails or is late counts as
	// one that allows.
	ChainAllows bool `json:"chain_allows,omitempty"`
	// Reasons are those that the records name by their index.
	Reasons []Reason `json:"reasons"`
}

// A Reason is the common part of many denials.
type Reason struct {
	Topic string `json:"topic"`
	Class string `json:"class"`
	// Contact is where the denied may object, "" where the list names none.
	Contact string `json:"contact,omitempty"`
}

// An Entry is one denied wallet.
type Entry struct {
	Wallet [20]byte
	Until  time.Time
	Reason
}

// A Denial is why a wallet is denied.
type Denial struct {
	Reason
	Until time.Time
}

// A List is a list of denied wallets that was read whole. The zero List denies
// nobody.
type List struct {
	Header
	records []byte
	sum     [sha256.Size]byte
	chain   *url.URL
}

// Encode gives the bytes of a list's file; h.Reasons is made of the entries. Of
// two entries of a wallet the later end wins; one whose end is not after h.Written
// is left out.
func Encode(h Header, entries []Entry) ([]byte, error) {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(bytes.Compare(a.Wallet[:], b.Wallet[:]), b.Until.Compare(a.Until), cmp.Compare(a.Topic, b.Topic))
	})
	entries = slices.CompactFunc(entries, func(a, b Entry) bool { return a.Wallet == b.Wallet })
	if len(entries) > MaxWallets {
		return nil, fmt.Errorf("%d denied wallets are more than the gate holds (%d)", len(entries), MaxWallets)
	}
	h.Reasons = []Reason{}
	known := map[Reason]uint16{}
	records := make([]byte, 0, len(entries)*recordSize)
	for _, e := range entries {
		if !e.Until.After(h.Written) {
			continue
		}
		i, ok := known[e.Reason]
		if !ok {
			if len(h.Reasons) == maxReasons {
				return nil, fmt.Errorf("the denied wallets have more than %d reasons", maxReasons)
			}
			i = uint16(len(h.Reasons))
			known[e.Reason] = i
			h.Reasons = append(h.Reasons, e.Reason)
		}
		records = append(records, e.Wallet[:]...)
		records = binary.BigEndian.AppendUint32(records, secondsUp(e.Until))
		records = binary.BigEndian.AppendUint16(records, i)
	}
	head, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encoding the list's header: %w", err)
	}
	b := append([]byte(magic), binary.BigEndian.AppendUint32(nil, uint32(len(head)))...)
	b = append(append(b, head...), records...)
	sum := sha256.Sum256(b)
	b = append(b, sum[:]...)
	if _, err := Decode(b); err != nil {
		return nil, err // the gate would refuse it, so it is not written
	}
	return b, nil
}

// secondsUp gives a time in whole Unix seconds; a part of one counts as a whole.
func secondsUp(t time.Time) uint32 {
	return uint32(min(max(t.Add(time.Second-1).Unix(), 0), math.MaxUint32))
}

// ErrDamaged says that a file is no whole list.
var ErrDamaged = errors.New("not a whole list")

// Decode reads a list's file strictly: a byte that is missing, changed or too
// many is an [ErrDamaged], wrapped. The list keeps b.
func Decode(b []byte) (*List, error) {
	damaged := func(format string, args ...any) (*List, error) {
		return nil, fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
	}
	if len(b) > maxFile || len(b) < len(magic)+4+sha256.Size || string(b[:len(magic)]) != magic {
		return damaged("%d bytes, or another beginning", len(b))
	}
	content := b[:len(b)-sha256.Size]
	l := &List{sum: sha256.Sum256(content)}
	if !bytes.Equal(l.sum[:], b[len(content):]) {
		return damaged("the checksum is another")
	}
	rest := content[len(magic):]
	size := binary.BigEndian.Uint32(rest)
	rest = rest[4:]
	if size > maxHeader || int(size) > len(rest) {
		return damaged("the header has %d bytes", size)
	}
	d := json.NewDecoder(bytes.NewReader(rest[:size]))
	d.DisallowUnknownFields()
	if err := d.Decode(&l.Header); err != nil {
		return damaged("the header: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return damaged("bytes behind the header's object")
	}
	l.records = rest[size:]
	if err := l.check(); err != nil {
		return damaged("%v", err)
	}
	return l, nil
}

// check finds faults of a list whose checksum is right: another program's.
func (l *List) check() (err error) {
	if !validPath(l.Path) {
		return fmt.Errorf("the path: %w", errPath)
	}
	if l.chain, err = ParseChain(l.Chain); err != nil {
		return err
	}
	if err := CheckMessage(l.Message); err != nil {
		return fmt.Errorf("the message: %w", err)
	}
	if len(l.Reasons) > maxReasons {
		return errors.New("too many reasons")
	}
	for _, r := range l.Reasons {
		if err := errors.Join(CheckMessage(r.Contact), CheckMessage(r.Topic), CheckMessage(r.Class)); err != nil {
			return fmt.Errorf("a reason: %w", err)
		}
	}
	if len(l.records)%recordSize != 0 {
		return errors.New("a record is cut off")
	}
	// A starting gate waits for this loop over a million, so it looks at the first
	// eight bytes alone where they tell.
	for at := 0; at < len(l.records); at += recordSize {
		r := l.records[at:][:recordSize]
		if at > 0 {
			last := l.records[at-recordSize:][:recordSize]
			if a, b := binary.BigEndian.Uint64(last), binary.BigEndian.Uint64(r); a > b || a == b && bytes.Compare(last[:20], r[:20]) >= 0 {
				return errors.New("the wallets are not in order")
			}
		}
		if int(binary.BigEndian.Uint16(r[24:])) >= len(l.Reasons) {
			return errors.New("a record names a reason that is not there")
		}
	}
	return nil
}

// ParseChain reads the URL of a chained webhook; nil is none.
func ParseChain(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // none is no fault
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("the chained webhook is not an http or https URL")
	}
	return u, nil
}

// CheckMessage finds out whether a text can be shown to the denied: one line
// of at most [MaxMessage] bytes that prints.
func CheckMessage(s string) error {
	switch {
	case len(s) > MaxMessage:
		return fmt.Errorf("%d bytes are more than %d", len(s), MaxMessage)
	case !utf8.ValidString(s):
		return errors.New("it is not UTF-8")
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%q is not printable", r)
		}
	}
	return nil
}

// Len gives the number of listed wallets, those whose time is over included.
func (l *List) Len() int { return len(l.records) / recordSize }

// Sum gives the list's checksum in hex: two gates with one sum answer alike.
func (l *List) Sum() string { return hex.EncodeToString(l.sum[:]) }

// Denied says whether a wallet is denied at a time, however old the list is.
func (l *List) Denied(w [20]byte, now time.Time) (d Denial, denied bool) {
	low, high := 0, l.Len()
	for low < high {
		middle := int(uint(low+high) / 2)
		r := l.records[middle*recordSize:][:recordSize]
		switch c := bytes.Compare(r[:20], w[:]); {
		case c < 0:
			low = middle + 1
		case c > 0:
			high = middle
		default:
			until := int64(binary.BigEndian.Uint32(r[20:]))
			if until <= now.Unix() {
				return Denial{}, false
			}
			return Denial{l.Reasons[binary.BigEndian.Uint16(r[24:])], time.Unix(until, 0).UTC()}, true
		}
	}
	return Denial{}, false
}
