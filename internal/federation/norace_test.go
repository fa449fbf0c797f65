//go:build !race

package federation

// hostileRounds is how many times rapid's hundred seeds are tried.
const hostileRounds = 20
