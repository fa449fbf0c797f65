// Package calc adds what it is given.
package calc

// Sum adds.
func Sum(a, b int) int {
	return a + b
}

func Double(a int) int {
	return Sum(a, a)
}

func half(a int) int {
	return a / 2
}

// Limit and Step belong together.
const (
	Limit = 10
	Step  = 2
)

type Bare struct{}

func (Bare) String() string { return "" }
