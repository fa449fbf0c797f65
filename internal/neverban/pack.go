package neverban

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// A Pack is a list that an operator signed, so that it can be passed on by any
// way: a file of text that begins with its header, goes on as [ReadList] reads
// it and ends with the signature.
//
//	banmesh-pack: 1
//	name: crawlers
//	kind: never-ban
//	serial: 7
//	issued: 2026-03-01T00:00:00Z
//	expires: 2026-06-01T00:00:00Z
//	key: (the operator's root public key, base64)
//
//	66.249.64.0/19 # a crawler
//
//	signature: (Ed25519, base64)
//
// The signature covers packContext and every byte before its own line.
type Pack struct {
	Name     string
	Kind     PackKind
	Serial   uint64 // a later edition of the pack has a greater one
	Issued   time.Time
	Expires  time.Time // its entries end then at the latest
	Operator ban.Operator
	Entries  []Entry
}

// PackKind is the kind of a pack's entries.
type PackKind string

// The kinds of packs.
const (
	PackNeverBan PackKind = "never-ban" // nobody bans them
	PackShared   PackKind = "shared"    // many people share them: peers' claims are watched, for a short time
)

// Limits of packs. Whoever signs one can shield addresses from bans here, so
// that it must not reach far, and never-ban entries are in the kernel too.
const (
	// MaxPack is the longest pack in bytes.
	MaxPack = 4 << 20
	// MaxPacks is how many packs a node uses.
	MaxPacks = 8
	// MaxPackEntries bounds a never-ban pack; MaxPacks of them leave room in
	// the kernel's list for entries that the node finds by itself.
	MaxPackEntries = 2_000
	// maxPackAddresses is how much IPv4 a pack covers, by its kind: a /8, or for
	// watched ranges all the same a /4; maxPackNets6 the same in IPv6 /64s.
	maxPackAddresses, maxSharedAddresses = 1 << 24, 1 << 28
	maxPackNets6, maxSharedNets6         = 1 << 45, 1 << 48
	// maxPackLife is the longest time from its issue to its end.
	maxPackLife = 400 * 24 * time.Hour
	// packContext keeps a pack's signature from being one of anything else.
	packContext   = "banmesh pack 1\n"
	packSignature = "\nsignature: "
)

// Errors of packs that callers branch on.
var (
	ErrPack          = errors.New("not a pack")
	ErrPackSignature = errors.New("the signature does not hold")
)

// packFields are the header's, in their order.
var packFields = [...]string{"banmesh-pack", "name", "kind", "serial", "issued", "expires", "key"}

// SignPack gives the file of a pack with the entries of a list, as
// [ReadList] reads it. Operator and Entries of p are set from the others.
func SignPack(root ed25519.PrivateKey, p Pack, list []byte) ([]byte, error) {
	var b bytes.Buffer
	key, _ := root.Public().(ed25519.PublicKey)
	for i, value := range []string{
		"1", p.Name, string(p.Kind), strconv.FormatUint(p.Serial, 10), p.Issued.UTC().Format(time.RFC3339), p.Expires.UTC().Format(time.RFC3339),
		base64.StdEncoding.EncodeToString(key),
	} {
		fmt.Fprintf(&b, "%s: %s\n", packFields[i], value)
	}
	b.WriteString("\n")
	b.Write(bytes.TrimRight(list, "\n"))
	b.WriteString("\n")
	signature := ed25519.Sign(root, append([]byte(packContext), b.Bytes()...))
	out := fmt.Appendf(b.Bytes(), "%s%s\n", packSignature, base64.StdEncoding.EncodeToString(signature))
	if _, err := OpenPack(out); err != nil {
		return nil, err
	}
	return out, nil
}

// OpenPack checks a pack and gives its contents. Whether its operator is one to
// be believed is for the caller to know. It fails with [ErrPack] or
// [ErrPackSignature], wrapped, and gives nothing then.
func OpenPack(b []byte) (*Pack, error) {
	if len(b) > MaxPack {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrPack, MaxPack)
	}
	at := bytes.LastIndex(b, []byte(packSignature))
	if at < 0 {
		return nil, fmt.Errorf("%w: it has no signature", ErrPack)
	}
	signed, last := b[:at], strings.TrimSuffix(string(b[at+len(packSignature):]), "\n")
	signature, err := base64.StdEncoding.Strict().DecodeString(last)
	if err != nil || len(signature) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: its last line is no signature", ErrPack)
	}
	head, list, ok := bytes.Cut(signed, []byte("\n\n"))
	if !ok {
		return nil, fmt.Errorf("%w: no empty line ends its header", ErrPack)
	}
	lines := strings.Split(string(head), "\n")
	var value [len(packFields)]string
	for i, field := range packFields {
		if i >= len(lines) || !strings.HasPrefix(lines[i], field+": ") {
			return nil, fmt.Errorf("%w: line %d is not %q", ErrPack, i+1, field)
		}
		value[i] = lines[i][len(field)+2:]
	}
	if len(lines) != len(packFields) || value[0] != "1" {
		return nil, fmt.Errorf("%w of version 1", ErrPack)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(value[6])
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: its key is none", ErrPack)
	}
	if !ed25519.Verify(key, append([]byte(packContext), signed...), signature) {
		return nil, ErrPackSignature
	}
	return packOf(value, ban.OperatorOf(key), list)
}

// packOf reads the values of a header whose signature holds, and the list.
func packOf(value [len(packFields)]string, operator ban.Operator, list []byte) (p *Pack, err error) {
	p = &Pack{Kind: PackKind(value[2]), Operator: operator}
	name, err := ban.ParseTopic(value[1]) // the same spelling: it becomes a file's name
	if err != nil {
		return nil, fmt.Errorf("%w: its name: %w", ErrPack, err)
	}
	p.Name = string(name)
	source, most, most4, most6 := SourcePack, MaxPackEntries, uint64(maxPackAddresses), uint64(maxPackNets6)
	switch p.Kind {
	case PackNeverBan:
	case PackShared:
		source, most, most4, most6 = SourceCaution, maxListEntries, maxSharedAddresses, maxSharedNets6
	default:
		return nil, fmt.Errorf("%w: its kind is neither %s nor %s", ErrPack, PackNeverBan, PackShared)
	}
	var err1, err2 error
	p.Serial, err = strconv.ParseUint(value[3], 10, 63)
	p.Issued, err1 = time.Parse(time.RFC3339, value[4])
	p.Expires, err2 = time.Parse(time.RFC3339, value[5])
	if err := errors.Join(err, err1, err2); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPack, err)
	}
	if life := p.Expires.Sub(p.Issued); life <= 0 || life > maxPackLife {
		return nil, fmt.Errorf("%w: it lives for %s, and not for up to %d days", ErrPack, life, maxPackLife/(24*time.Hour))
	}
	if p.Entries, err = ReadList(bytes.NewReader(list), source); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPack, err)
	}
	if len(p.Entries) == 0 || len(p.Entries) > most {
		return nil, fmt.Errorf("%w: it has %d entries, and not 1 to %d", ErrPack, len(p.Entries), most)
	}
	for i := range p.Entries {
		e := &p.Entries[i]
		if e.Until.IsZero() || e.Until.After(p.Expires) {
			e.Until = p.Expires
		}
		e.Reason = strings.TrimSuffix("pack "+p.Name+": "+e.Reason, ": ")
	}
	if four, six := covered(p.Entries); four > most4 || six > most6 {
		return nil, fmt.Errorf("%w: it covers %d IPv4 addresses and %d IPv6 /64s, more than %d and %d", ErrPack, four, six, most4, most6)
	}
	return p, nil
}

// covered is how much address space entries cover: IPv4 addresses and IPv6
// /64s.
func covered(entries []Entry) (four, six uint64) {
	outer := ban.NewPrefixes(func(yield func(netip.Prefix, struct{}) bool) {
		for _, e := range entries {
			if !yield(e.Prefix, struct{}{}) {
				return
			}
		}
	})
	for p := range outer.All() {
		if p.Addr().Is4() {
			four += 1 << (32 - p.Bits())
		} else {
			six += 1 << max(0, 64-p.Bits())
		}
	}
	return four, six
}
