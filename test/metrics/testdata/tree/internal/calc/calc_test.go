package calc

import "testing"

// What Sum is for.
func TestSum(t *testing.T) {
	if Sum(1, 2) != 3 {
		t.Error("1 and 2 are not 3")
	}
	_ = half(2)
}
