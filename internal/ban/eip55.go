package ban

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// FormatWallet gives an Ethereum address in the spelling of EIP-55: a letter is a
// capital where the hash of the lower-case text has a high digit.
func FormatWallet(w [20]byte) string {
	text := []byte("0x" + hex.EncodeToString(w[:]))
	sum := keccak256(text[2:])
	for i := range text[2:] {
		digit := sum[i/2] >> (4 * (1 - i%2)) & 15
		if c := &text[2+i]; *c >= 'a' && digit >= 8 {
			*c -= 'a' - 'A'
		}
	}
	return string(text)
}

// rate is how many bytes Keccak-256 takes in a round.
const rate = 136

// keccak256 is Keccak as Ethereum has it, before SHA-3 changed the padding, of a
// text shorter than one round takes.
func keccak256(text []byte) (sum [32]byte) {
	var block [rate]byte
	copy(block[:], text)
	block[len(text)] = 1
	block[rate-1] |= 0x80
	var a [25]uint64
	for i := range rate / 8 {
		a[i] = binary.LittleEndian.Uint64(block[8*i:])
	}
	keccakF(&a)
	for i := range 4 {
		binary.LittleEndian.PutUint64(sum[8*i:], a[i])
	}
	return sum
}

// keccakF is the permutation of FIPS 202, section 3. Its round constants come of
// the linear register of section 3.2.5.
func keccakF(a *[25]uint64) {
	register := uint8(1)
	for range 24 {
		var c [5]uint64
		for x := range 5 {
			c[x] = a[x] ^ a[x+5] ^ a[x+10] ^ a[x+15] ^ a[x+20]
		}
		for x := range 5 {
			d := c[(x+4)%5] ^ bits.RotateLeft64(c[(x+1)%5], 1)
			for y := 0; y < 25; y += 5 {
				a[x+y] ^= d
			}
		}
		x, y, last := 1, 0, a[1]
		for t := range 24 {
			x, y = y, (2*x+3*y)%5
			a[x+5*y], last = bits.RotateLeft64(last, (t+1)*(t+2)/2), a[x+5*y]
		}
		for y := 0; y < 25; y += 5 {
			row := [5]uint64(a[y : y+5])
			for x := range 5 {
				a[x+y] = row[x] ^ ^row[(x+1)%5]&row[(x+2)%5]
			}
		}
		for j := range 7 {
			if register&1 != 0 {
				a[0] ^= 1 << (1<<j - 1)
			}
			high := register >> 7
			register <<= 1
			if high != 0 {
				register ^= 0x71
			}
		}
	}
}
