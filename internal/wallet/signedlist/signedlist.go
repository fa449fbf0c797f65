// Package signedlist reads and writes lists of wallets that their operator signed,
// so that they can be passed on in any way and say why a wallet is on them: a
// note, evidence, and where the listed may object.
package signedlist

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"banmesh/internal/ban"
	"banmesh/internal/wallet"
)

// Limits of a list.
const (
	// MaxFile is the longest file in bytes, MaxEntries the most entries.
	MaxFile    = 32 << 20
	MaxEntries = 100_000
	// MaxText bounds each text for people, in bytes: one line that prints.
	MaxText = 300
	// maxLife is the longest time from a list's issue to its end.
	maxLife = 400 * 24 * time.Hour
)

// Format is the first member of every list's file.
const Format = "banmesh-list-1"

// A Kind says of whom a list is and which end it serves.
type Kind string

// The kinds of lists.
const (
	DenyGateways      Kind = "deny-gateways"      // broadcasters that orchestrators do not serve
	AllowGateways     Kind = "allow-gateways"     // known gateways and testers, whom no peer may deny
	DenyOrchestrators Kind = "deny-orchestrators" // orchestrators that gateways do not use
)

// A List is a list's contents.
type List struct {
	Format   string       `json:"format"`
	Kind     Kind         `json:"kind"`
	Topic    ban.Topic    `json:"topic"` // the category
	Name     string       `json:"list"`  // for people
	Contact  string       `json:"contact,omitempty"`
	Criteria string       `json:"criteria,omitempty"` // a URL, or a sentence
	Operator ban.Operator `json:"operator"`
	Key      string       `json:"key"`     // the operator's root public key, base64
	Edition  uint64       `json:"edition"` // a later one has a greater number
	Issued   time.Time    `json:"issued"`
	Until    time.Time    `json:"until"` // entries end then at the latest
	Entries  []Entry      `json:"entries"`
	// Signature is over signContext and the file's bytes as they are with
	// nothing between its quotes.
	Signature string `json:"signature"`
}

// An Entry is one wallet of a list.
type Entry struct {
	Address string `json:"address"` // EIP-55
	Reason  string `json:"reason"`  // a class
	Details
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until"`
}

// Details are for people.
type Details struct {
	Note     string `json:"note,omitempty"`
	Evidence string `json:"evidence,omitempty"` // an http(s) address, or sha256: and 64 hex digits
}

// Errors that callers branch on.
var (
	ErrList      = errors.New("not a signed list")
	ErrSignature = errors.New("the signature does not hold")
)

// signContext keeps a list's signature from being one of anything else.
const signContext = "banmesh wallet list 1\n"

// head and tail are how every file begins and ends; a signature has 88 characters.
const (
	head = "{\n  \"format\": \"" + Format + "\",\n"
	tail = "\"\n}\n"
)

// Is says whether a file means to be a signed list.
func Is(b []byte) bool { return bytes.Contains(b[:min(len(b), 200)], []byte(`"`+Format+`"`)) }

// Sign gives a list's file. Format, Operator, Key and Signature are set from the
// key, and the entries are put in order.
func Sign(root ed25519.PrivateKey, l List) ([]byte, error) {
	key, _ := root.Public().(ed25519.PublicKey)
	l.Format, l.Operator, l.Key, l.Signature = Format, ban.OperatorOf(key), base64.StdEncoding.EncodeToString(key), ""
	l.Entries = slices.Clone(l.Entries)
	slices.SortFunc(l.Entries, func(a, b Entry) int { return strings.Compare(strings.ToLower(a.Address), strings.ToLower(b.Address)) })
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(l); err != nil {
		return nil, fmt.Errorf("encoding the list: %w", err)
	}
	b := out.Bytes()
	signature := base64.StdEncoding.EncodeToString(ed25519.Sign(root, append([]byte(signContext), b...)))
	b = append(append(bytes.Clone(b[:len(b)-len(tail)]), signature...), tail...)
	if _, err := Open(b); err != nil {
		return nil, err // others would refuse it
	}
	return b, nil
}

// Open checks a list's file and gives its contents. Whether its operator is one
// to be believed is for the caller to know. It fails with [ErrList] or
// [ErrSignature], wrapped, and gives nothing then.
func Open(b []byte) (*List, error) {
	fault := func(format string, args ...any) (*List, error) {
		return nil, fmt.Errorf("%w: %s", ErrList, fmt.Sprintf(format, args...))
	}
	const length = 88 // of a signature in base64
	switch {
	case len(b) > MaxFile:
		return fault("longer than %d MB", MaxFile>>20)
	case !bytes.HasPrefix(b, []byte(head)), !bytes.HasSuffix(b, []byte(tail)), len(b) < len(head)+length+len(tail):
		return fault("it does not begin or end as one")
	}
	cut := len(b) - len(tail) - length
	signed := slices.Concat([]byte(signContext), b[:cut], []byte(tail))
	signature, err := base64.StdEncoding.Strict().DecodeString(string(b[cut : cut+length]))
	if err != nil {
		return fault("its signature is none")
	}
	var l List
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return fault("%v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fault("bytes behind it")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(l.Key)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return fault("its key is none")
	}
	if l.Signature != string(b[cut:cut+length]) || !ed25519.Verify(key, signed, signature) {
		return nil, ErrSignature
	}
	if ban.OperatorOf(key) != l.Operator {
		return nil, fmt.Errorf("%w: the key is another operator's", ErrSignature)
	}
	if err := l.check(); err != nil {
		return fault("%v", err)
	}
	return &l, nil
}

// check finds faults of a list that its operator signed.
func (l *List) check() error {
	switch l.Kind {
	case DenyGateways, AllowGateways, DenyOrchestrators:
	default:
		return fmt.Errorf("%.32q is no kind of list", l.Kind)
	}
	if _, err := ban.ParseTopic(string(l.Topic)); err != nil {
		return err
	}
	for _, s := range []string{l.Name, l.Contact, l.Criteria} {
		if err := CheckText(s); err != nil {
			return err
		}
	}
	switch {
	case l.Name == "":
		return errors.New("it has no name")
	case len(l.Entries) > MaxEntries:
		return fmt.Errorf("it has more than %d entries", MaxEntries)
	case !l.Until.After(l.Issued) || l.Until.Sub(l.Issued) > maxLife:
		return errors.New("it ends before it begins, or after 400 days")
	}
	seen := make(map[[20]byte]bool, len(l.Entries))
	for _, e := range l.Entries {
		w, err := wallet.Parse(e.Address)
		switch {
		case err != nil:
			return err
		case e.Address != wallet.Format(w):
			return fmt.Errorf("%s is not spelt as EIP-55 wants", e.Address)
		case seen[w]:
			return fmt.Errorf("%s stands there twice", e.Address)
		}
		seen[w] = true
		if _, err := ban.ParseClass(e.Reason); err != nil {
			return fmt.Errorf("%s: %w", e.Address, err)
		}
		if err := e.Details.Check(); err != nil {
			return fmt.Errorf("%s: %w", e.Address, err)
		}
	}
	return nil
}

// Check finds out whether details can be shown to people.
func (d Details) Check() error {
	if err := CheckText(d.Note); err != nil {
		return fmt.Errorf("the note: %w", err)
	}
	if err := CheckText(d.Evidence); err != nil {
		return fmt.Errorf("the evidence: %w", err)
	}
	if sum, ok := strings.CutPrefix(d.Evidence, "sha256:"); ok {
		if raw, err := hex.DecodeString(sum); err != nil || len(raw) != 32 {
			return errors.New("the evidence: sha256: and 64 hex digits")
		}
		return nil
	}
	if u, err := url.Parse(d.Evidence); d.Evidence != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		return errors.New("the evidence is neither an http address nor sha256: and 64 hex digits")
	}
	return nil
}

// CheckText finds out whether a text is one line of at most [MaxText] bytes that
// prints.
func CheckText(s string) error {
	if len(s) > MaxText || !utf8.ValidString(s) {
		return fmt.Errorf("a text has more than %d bytes, or is no UTF-8", MaxText)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%q is not printable", r)
		}
	}
	return nil
}

// Blocklist gives the addresses as go-livepeer's -orchBlocklist takes them.
func (l *List) Blocklist() string {
	var list []string
	for _, e := range l.Entries {
		list = append(list, e.Address)
	}
	return strings.Join(list, ",")
}
