package desired

import (
	"math/rand/v2"
	"unsafe"
)

// A permutation maps numbers to others, one to one, in an order that cannot be
// foreseen.
type permutation[K uint32 | uint64] struct {
	add      K
	multiply [3]K // odd numbers, drawn at random
	inverse  [3]K
}

func (s *permutation[K]) draw() {
	s.add = K(rand.Uint64())
	for i := range s.multiply {
		m := K(rand.Uint64()) | 1
		inverse := m // right in three bits; each round doubles them
		for range 5 {
			inverse *= 2 - m*inverse
		}
		s.multiply[i], s.inverse[i] = m, inverse
	}
}

func (s *permutation[K]) of(x K) K {
	half := 4 * unsafe.Sizeof(x)
	x = (x + s.add) * s.multiply[0]
	x ^= x >> half
	x *= s.multiply[1]
	x ^= x >> half
	return x * s.multiply[2]
}

func (s *permutation[K]) back(x K) K {
	half := 4 * unsafe.Sizeof(x)
	x *= s.inverse[2]
	x ^= x >> half
	x *= s.inverse[1]
	x ^= x >> half
	return x*s.inverse[0] - s.add
}
