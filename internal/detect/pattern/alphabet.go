package pattern

import (
	"slices"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// The machine runs on bytes, and beyond ASCII a byte stands for a class of
// characters that an expression cannot tell apart. Without characters of its
// own beyond ASCII an expression sees a letter, a digit, a space, or something
// else. The characters that fold to an ASCII letter have a byte each. The
// ranges that the expression names follow, with four bytes each.
const (
	wideWord     = 0x80 // by kind, as \w, \d, \s take characters outside ranges
	wideFolds    = 0x84
	wideRanges   = 0x88
	kinds        = 4
	maxSignature = (0x100 - wideRanges) / kinds
)

// kinds of characters, as bits below a class's first byte.
const (
	kindWord = iota
	kindDigit
	kindSpace
	kindOther
)

// folds are the characters beyond ASCII that equal an ASCII letter where case
// is ignored, as Python's re has them; foldTo are those letters.
var folds = [...]rune{'\u017f', '\u212a', '\u0130', '\u0131'}

const foldTo = "skii"

// kindTable holds the kinds of the characters of the basic plane, in blocks that are
// made when a character of them is first met: Unicode's own tables are searched.
var kindTable [256]atomic.Pointer[[256]byte]

func kindOf(r rune) byte {
	if r < 0 || r > 0xffff {
		return searchKind(r)
	}
	block := kindTable[r>>8].Load()
	if block == nil {
		block = new([256]byte)
		for i := range block {
			block[i] = searchKind(r&^0xff | rune(i))
		}
		kindTable[r>>8].Store(block)
	}
	return block[r&0xff]
}

func searchKind(r rune) byte {
	switch {
	case unicode.IsDigit(r):
		return kindDigit
	case isWord(r):
		return kindWord
	case isSpace(r):
		return kindSpace
	}
	return kindOther
}

// samples are characters of each kind that no expression's range is likely to
// name; they stand for a class where a set is made.
var samples = [kinds]rune{kindWord: '\u4e00', kindDigit: '\u0663', kindSpace: '\u2003', kindOther: '\u2014'}

// isWordClass says that a byte as the machine sees it is a word character.
func isWordClass(c byte) bool {
	switch {
	case c < utf8.RuneSelf:
		return isNameByte(c)
	case c >= wideFolds && c < wideRanges:
		return true
	}
	return c%kinds <= kindDigit
}

// An alphabet maps characters beyond ASCII to the classes of one expression.
type alphabet struct {
	// starts are where ranges of equal signature begin, ascending; signature
	// numbers from 1, 0 is in no range that the expression names.
	starts     []rune
	signatures []byte
	atoms      []*node       // literals and sets that name characters beyond ASCII
	reps       [][kinds]rune // of each signature, 0 where it has none of the kind
}

// foldsAtMost bounds a range that is expanded by the cases of its letters.
const foldsAtMost = 2000

// newAlphabet gives the alphabet of an expression, nil where it names more
// ranges than bytes are left for.
func newAlphabet(root *node) *alphabet {
	a := &alphabet{}
	cuts := []rune{}
	cut := func(low, high rune) {
		if high >= utf8.RuneSelf {
			cuts = append(cuts, max(low, utf8.RuneSelf), high+1)
		}
	}
	ok := true
	walk(root, func(n *node) {
		before := len(cuts)
		switch n.op {
		case opLiteral:
			cut(n.r, n.r)
			if n.fold {
				eachFold(n.r, func(r rune) { cut(r, r) })
			}
		case opClass:
			for _, x := range n.class.ranges {
				cut(x.low, x.high)
				switch {
				case !n.fold || x.high < utf8.RuneSelf:
				case x.high-x.low > foldsAtMost:
					ok = false
				default:
					for r := x.low; r <= x.high; r++ {
						eachFold(r, func(f rune) { cut(f, f) })
					}
				}
			}
		}
		if len(cuts) > before {
			a.atoms = append(a.atoms, n)
		}
	})
	if !ok || len(cuts) > 1<<16 {
		return nil
	}
	slices.Sort(cuts)
	if !a.sign(slices.Compact(cuts)) {
		return nil
	}
	return a
}

// sign numbers the ranges between cuts by which atoms take them.
func (a *alphabet) sign(cuts []rune) bool {
	known := map[string]byte{}
	for i, low := range cuts {
		signature := byte(0)
		if i+1 < len(cuts) {
			var key strings.Builder
			none := true
			for _, n := range a.atoms {
				in := n.names(low)
				none = none && !in
				key.WriteByte("01"[b2i(in)])
			}
			if !none {
				var ok bool
				if signature, ok = known[key.String()]; !ok {
					if len(known)+1 >= maxSignature {
						return false
					}
					signature = byte(len(known) + 1)
					known[key.String()] = signature
					a.reps = append(a.reps, [kinds]rune{})
				}
				reps := &a.reps[signature-1]
				for r := low; r < cuts[i+1]; r++ {
					if k := kindOf(r); reps[k] == 0 {
						reps[k] = r
					}
					if reps[0] != 0 && reps[1] != 0 && reps[2] != 0 && reps[3] != 0 {
						break
					}
				}
			}
		}
		a.starts = append(a.starts, low)
		a.signatures = append(a.signatures, signature)
	}
	return true
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// eachFold gives the other cases of a letter.
func eachFold(r rune, f func(rune)) {
	for x := unicode.SimpleFold(r); x != r; x = unicode.SimpleFold(x) {
		f(x)
	}
	switch r {
	case 'i', 'I', '\u0130', '\u0131':
		for _, x := range "iI\u0130\u0131" {
			f(x)
		}
	}
}

// class gives the byte that stands for a character beyond ASCII.
func (a *alphabet) class(r rune) byte {
	for i, f := range folds {
		if r == f {
			return wideFolds + byte(i)
		}
	}
	if len(a.starts) > 0 {
		i, found := slices.BinarySearch(a.starts, r)
		if !found {
			i--
		}
		if i >= 0 && a.signatures[i] > 0 {
			return wideRanges + kinds*(a.signatures[i]-1) + kindOf(r)
		}
	}
	return wideWord + kindOf(r)
}

// each calls f with every class in use and a character of it.
func (a *alphabet) each(f func(class byte, r rune)) {
	for k, r := range samples {
		// One that the expression names stands for its range, not for the rest.
		for a.class(r) != wideWord+byte(k) && r < unicode.MaxRune {
			for r++; kindOf(r) != byte(k) && r < unicode.MaxRune; r++ {
			}
		}
		f(wideWord+byte(k), r)
	}
	for i, r := range folds {
		f(wideFolds+byte(i), r)
	}
	for s, reps := range a.reps {
		for k, r := range reps {
			if r != 0 {
				f(wideRanges+byte(kinds*s+k), r)
			}
		}
	}
}

// encode writes s as the machine sees it, and where each byte came from. One
// that is no UTF-8 is a character of its own, U+FFFD.
func (a *alphabet) encode(s, out []byte, offsets []int32) ([]byte, []int32) {
	out, offsets = slices.Grow(out, len(s)), slices.Grow(offsets, len(s)+1)
	last, class := rune(-1), byte(0)
	for i := 0; i < len(s); {
		offsets = append(offsets, int32(i))
		if s[i] < utf8.RuneSelf {
			out = append(out, s[i])
			i++
			continue
		}
		r, width := utf8.DecodeRune(s[i:])
		if r != last {
			last, class = r, a.class(r)
		}
		out = append(out, class)
		i += width
	}
	return out, append(offsets, int32(len(s)))
}

// takes says that a one-character node matches r.
func (n *node) takes(r rune) bool {
	switch n.op {
	case opAny:
		return n.dotAll || r != '\n'
	case opLiteral:
		return r == n.r || n.fold && foldsTo(r, func(x rune) bool { return x == n.r })
	}
	in := n.class.holds(r) || n.fold && foldsTo(r, n.class.holds)
	return in != n.class.negative
}

// names says that a literal is r, or that a range of a set holds it.
func (n *node) names(r rune) bool {
	if n.op == opLiteral {
		return n.takes(r)
	}
	ranged := class{ranges: n.class.ranges}
	return ranged.holds(r) || n.fold && foldsTo(r, ranged.holds)
}

func foldsTo(r rune, f func(rune) bool) (yes bool) {
	eachFold(r, func(x rune) { yes = yes || f(x) })
	return yes
}

// holds says that a set names r, whatever its sign.
func (c *class) holds(r rune) bool {
	for _, x := range c.ranges {
		if r >= x.low && r <= x.high {
			return true
		}
	}
	for _, e := range c.escapes {
		if escapeTakes(e, r) {
			return true
		}
	}
	return false
}

func escapeTakes(e byte, r rune) bool {
	switch e {
	case 'd':
		return unicode.IsDigit(r)
	case 'D':
		return !unicode.IsDigit(r)
	case 'w':
		return isWord(r)
	case 'W':
		return !isWord(r)
	case 's':
		return isSpace(r)
	}
	return !isSpace(r)
}

// isWord says that Python's \w takes r: str.isalnum or the underscore.
func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) }

// isSpace says that Python's \s takes r.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f
}
