//go:build race

package federation

// hostileRounds is small under the race detector, which makes signatures ten
// times slower and finds nothing in a test of one goroutine.
const hostileRounds = 1
