// Package lists reads public lists of addresses in the forms in which they are
// published: one a line (Spamhaus DROP, blocklist.de, FireHOL, Emerging Threats,
// CrowdSec, hosts files), JSON documents and JSON lines, DShield's ranges, ipsum's
// scores, CSV.
//
// A list is foreign bytes: whatever it holds, reading it takes bounded time and
// memory, and gives either an [Edition], each entry of which was checked, or an
// error. Nothing here opens a connection; package fetch does, in a process of its own.
package lists

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"

	"banmesh/internal/ban"
)

// Bounds of a list.
const (
	// MaxBytes is the largest list, also after decompression: four million addresses.
	MaxBytes = 64 << 20
	// MaxLine is the longest line that is read; of a longer one nothing is taken.
	MaxLine = 4096
	// MaxEntries is the largest budget; DefaultEntries is the usual one.
	MaxEntries     = 1_000_000
	DefaultEntries = 100_000
)

// Errors of [Read].
var (
	// ErrTooLarge says that a list has more than [MaxBytes].
	ErrTooLarge = fmt.Errorf("the list is larger than %d MiB", MaxBytes>>20)
	// ErrNoList says that most of it is no address: an error page, or another format.
	ErrNoList = errors.New("this is no list of addresses")
)

// Options say how a list is read. The zero value takes whatever addresses it has.
type Options struct {
	// Format is how it is written; "" finds out.
	Format Format
	// Column is the CSV column (name or number from 1) or JSON key with the address; ""
	// finds one.
	Column string
	// Score is the column or key with a number, and Minimum the least one that is taken.
	Score   string
	Minimum float64
	// Most is how many entries are taken, from the first on; 0 is [DefaultEntries].
	Most int
	// Floor4 and Floor6 are the shortest prefixes that are taken.
	Floor4, Floor6 int
	// Never says why a target must not be banned; nil protects nothing.
	Never func(ban.Target) (why string, ok bool)

	testingOnlyBytes int64 // in place of MaxBytes
}

// An Edition is a list as it was read once.
type Edition struct {
	Format  Format       `json:"format"`
	Targets []ban.Target `json:"targets,omitempty"` // each once, in the order of the list
	Lines   int          `json:"lines"`
	Tally
	// Refused are some of those that were not taken for a reason that a person should see.
	Refused []Refusal `json:"refused,omitempty"`
}

// A Tally counts those of a list that were not taken, by reason.
type Tally struct {
	Junk     int `json:"junk"`      // no address: a name, a word, a line that is too long
	Wide     int `json:"wide"`      // wider than the floor
	Never    int `json:"never"`     // never to be banned here
	Low      int `json:"low"`       // a score below the minimum
	Repeated int `json:"repeated"`  // an entry that was there already
	Beyond   int `json:"no_budget"` // more than the budget has room for
}

// A Refusal is an entry that was not taken. Text is foreign: at most 64 bytes.
type Refusal struct {
	Text string `json:"text"`
	Why  string `json:"why"`
}

// maxRefusals is how many refusals of a reason are kept to be shown.
const maxRefusals = 3

// Total is how many entries were refused: junk, wide prefixes, and those that are
// never banned.
func (t Tally) Total() int { return t.Junk + t.Wide + t.Never }

// Sum identifies the entries of an edition, in whatever order they are listed.
func (e *Edition) Sum() string { return Sum(e.Targets) }

// Sum identifies a set of targets.
func Sum(targets []ban.Target) string {
	sorted := slices.SortedFunc(slices.Values(targets), ban.Target.Compare)
	h := sha256.New()
	for _, t := range sorted {
		io.WriteString(h, t.String())
		h.Write([]byte{'\n'})
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Read reads a list, which may be compressed by gzip. It fails with [ErrTooLarge],
// [ErrNoList] or the error of r, wrapped.
func Read(r io.Reader, o Options) (*Edition, error) {
	if o.Most <= 0 || o.Most > MaxEntries {
		o.Most = DefaultEntries
	}
	most := cmp.Or(o.testingOnlyBytes, MaxBytes)
	in := &bounded{r: r, left: most}
	whole := bufio.NewReaderSize(in, 64<<10)
	if head, _ := whole.Peek(2); len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(whole)
		if err != nil {
			return nil, fmt.Errorf("unpacking the list: %w", err)
		}
		whole = bufio.NewReaderSize(&bounded{r: z, left: most}, 64<<10)
	}
	if head, _ := whole.Peek(3); string(head) == "\xef\xbb\xbf" {
		_, _ = whole.Discard(3) // it was peeked
	}
	c := &collector{o: o, edition: &Edition{Format: o.Format}, seen: map[ban.Key]struct{}{}}
	if c.edition.Format == "" {
		head, err := whole.Peek(whole.Size())
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		c.edition.Format = detect(head)
	}
	if err := c.read(whole); err != nil {
		return nil, err
	}
	return c.edition, c.judge()
}

// bounded fails with [ErrTooLarge] after so many bytes.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (n int, err error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err = b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}

// collector takes the entries of a list.
type collector struct {
	o       Options
	edition *Edition
	seen    map[ban.Key]struct{}
	sound   int    // entries that are addresses, taken or not
	first   string // the first that is none
	kept    map[string]int
}

// judge refuses a list most of which is no address: an error page has a word here and
// there that looks like one.
func (c *collector) judge() error {
	if c.edition.Junk > c.sound {
		return fmt.Errorf("%w: %d of its %d entries are none, the first is %q", ErrNoList, c.edition.Junk, c.edition.Junk+c.sound, c.first)
	}
	return nil
}

// Why entries are refused, beside the reasons of [Options.Never].
const (
	noAddress = "no address"
	hostName  = "the name of a host: names are not looked up, list its addresses"
	wide      = "wider than the list may ban"
)

func (c *collector) junk(text []byte) {
	if c.edition.Junk++; c.edition.Junk == 1 {
		c.first = clip(text)
	}
	if isHostName(text) {
		c.refuse(text, hostName)
	} else {
		c.refuse(text, noAddress)
	}
}

// refuse keeps an entry to be shown, with few others of the same kind of reason.
func (c *collector) refuse(text []byte, why string) {
	if c.kept == nil {
		c.kept = map[string]int{}
	}
	kind := why
	if why != noAddress && why != hostName && why != wide {
		kind = "never"
	}
	if c.kept[kind]++; c.kept[kind] <= maxRefusals {
		c.edition.Refused = append(c.edition.Refused, Refusal{Text: clip(text), Why: why})
	}
}

// take takes the entry that a text is: an address, a prefix or a range.
func (c *collector) take(text []byte) {
	pieces, err := parseEntry(text)
	switch err {
	case nil:
		c.sound++
	case errPieces:
		c.sound++
		c.edition.Wide++
		c.refuse(text, wide)
	default:
		c.junk(text)
	}
	for _, p := range pieces {
		c.takePrefix(text, p)
	}
}

// takeScored takes an entry whose score is the minimum at least.
func (c *collector) takeScored(text, score []byte) {
	n, err := strconv.ParseFloat(string(score), 64)
	switch {
	case err != nil:
		c.junk(text)
	case n < c.o.Minimum:
		c.sound++
		c.edition.Low++
	default:
		c.take(text)
	}
}

// takePrefix takes a prefix, unless it is one of those that are refused.
func (c *collector) takePrefix(text []byte, p netip.Prefix) {
	t, err := ban.TargetOfPrefix(p)
	if err != nil {
		c.sound--
		c.junk(text)
		return
	}
	p, _ = t.Prefix()
	floor := c.o.Floor6
	if p.Addr().Is4() {
		floor = c.o.Floor4
	}
	if p.Bits() < floor || p.Bits() == 0 {
		c.edition.Wide++
		c.refuse(text, wide)
		return
	}
	if c.o.Never != nil {
		if why, never := c.o.Never(t); never {
			c.edition.Never++
			c.refuse(text, why)
			return
		}
	}
	key := ban.KeyOf(t)
	if _, again := c.seen[key]; again {
		c.edition.Repeated++
		return
	}
	if len(c.edition.Targets) >= c.o.Most {
		c.edition.Beyond++
		return
	}
	c.seen[key] = struct{}{}
	c.edition.Targets = append(c.edition.Targets, t)
}

// clip bounds foreign text that a person is shown.
func clip(b []byte) string {
	const most = 64
	if len(b) > most {
		b = b[:most]
	}
	return string(slices.Clone(b))
}
