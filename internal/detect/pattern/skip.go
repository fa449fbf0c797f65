package pattern

import "encoding/binary"

// A skipper finds texts in a line without looking at each place: of every text it knows the
// first few pieces of four bytes, so that one of them stands at one of the places that are
// looked at. No look waits for the one before, as an automaton's steps do.
type skipper struct {
	stride int
	enough int // hits that say all there is to say
	// table holds the index in pieces of the text with four bytes of that slot, 0 for nothing.
	table  [1 << slotBits]uint16
	pieces [][]piece
}

// A piece is four bytes of a text that are looked for.
type piece struct {
	text string // the whole text, in lower case
	from int    // where in it the piece stands
	hit  hit
}

const (
	pieceSize = 4
	slotBits  = 12
	maxStride = 8
	// maxCompared bounds the bytes that are compared, for each of a line.
	maxCompared = 8
	// maxPieces bounds the pieces of one skipper: with more, too many places look like one.
	maxPieces = 1 << slotBits / 8
)

// slot gives four bytes' place in the table. Letters are folded, and so are some other
// characters, which costs a comparison.
func slot(b []byte) uint32 {
	return (binary.LittleEndian.Uint32(b) | 0x20202020) * 0x9E3779B1 >> (32 - slotBits)
}

// newSkipper gives nil for texts that it cannot look for. from of the pieces is not set yet.
func newSkipper(texts []piece, enough int) *skipper {
	if len(texts) == 0 || len(texts) > maxPieces {
		return nil
	}
	k := &skipper{stride: maxStride, enough: enough, pieces: [][]piece{nil}}
	for _, t := range texts {
		k.stride = min(k.stride, len(t.text)-pieceSize+1)
	}
	if k.stride = min(k.stride, maxPieces/len(texts)); k.stride < 1 {
		return nil
	}
	for _, t := range texts {
		for t.from = range k.stride {
			place := &k.table[slot([]byte(t.text[t.from:]))]
			if *place == 0 {
				*place = uint16(len(k.pieces))
				k.pieces = append(k.pieces, nil)
			}
			k.pieces[*place] = append(k.pieces[*place], t)
		}
	}
	return k
}

// scan takes the hits of all texts in line. It gives up, false, at a line made for it: one
// that takes many comparisons a byte.
func (k *skipper) scan(line []byte, h *Hits) bool {
	left, wanted := maxCompared*len(line), k.enough
	for at := 0; at+pieceSize <= len(line); at += k.stride {
		found := k.table[slot(line[at:])]
		if found == 0 {
			continue
		}
		for i := range k.pieces[found] {
			p := &k.pieces[found][i]
			from := at - p.from
			to := from + len(p.text)
			if left--; left < 0 {
				return false
			}
			// Many texts begin alike; fewer end alike.
			if from < 0 || to > len(line) || line[to-1]|0x20 != p.text[len(p.text)-1]|0x20 {
				continue
			}
			left -= len(p.text)
			if holdsFold(line[from:to], p.text) && h.take(&p.hit) {
				if wanted--; wanted == 0 {
					return true
				}
			}
		}
	}
	return true
}

// holdsFold says that a line's part is a text in lower case, as long as it is.
func holdsFold(part []byte, text string) bool {
	for i, c := range part {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != text[i] {
			return false
		}
	}
	return true
}
