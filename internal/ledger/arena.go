package ledger

// pieceSize is how many elements a piece of an arena has. With 36, 16 and 64
// bytes an element a piece fills whole pages of the allocator.
const pieceSize = 2048

// An arena is an array that grows by a piece: a million elements are never
// copied, no room waits for a million more, and an element keeps its address.
type arena[T any] struct {
	pieces []*[pieceSize]T
	n      uint32
}

func (a *arena[T]) len() uint32 { return a.n }

// at gives an element, which there must be.
func (a *arena[T]) at(i uint32) *T { return &a.pieces[i/pieceSize][i%pieceSize] }

// add appends a zero element and gives its place.
func (a *arena[T]) add() uint32 {
	if int(a.n) == len(a.pieces)*pieceSize {
		a.pieces = append(a.pieces, new([pieceSize]T))
	}
	a.n++
	return a.n - 1
}
