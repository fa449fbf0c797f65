package wallet

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// vectors are the test cases of EIP-55: two all capital, two all lower, four
// mixed.
var vectors = []string{
	"0x52908400098527886E0F7030069857D2E4169EE7",
	"0x8617E340B3D01FA5F11F306F4090FD50E238070D",
	"0xde709f2102306220921060314715629080e2fb77",
	"0x27b1fdb04752bbc536007a920d24acb045561c26",
	"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
	"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
	"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
	"0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
}

func TestTheVectorsOfEIP55ReadAndWrite(t *testing.T) {
	for _, v := range vectors {
		w, err := Parse(v)
		if err != nil {
			t.Errorf("Parse(%s): %v", v, err)
			continue
		}
		if got := Format(w); got != v {
			t.Errorf("Format gives %s, want %s", got, v)
		}
		for _, same := range []string{strings.ToLower(v), "0x" + strings.ToUpper(v[2:])} {
			if got, err := Parse(same); err != nil || got != w {
				t.Errorf("Parse(%s) = %x, %v; want %x", same, got, err, w)
			}
		}
	}
}

func TestWhatIsRefusedSaysWhy(t *testing.T) {
	for s, want := range map[string]error{
		"":             ErrEmpty,
		"vitalik.eth":  ErrName,
		"sub.name.eth": ErrName,
		"default":      ErrPrefix,
		"5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed":     ErrPrefix,
		"0X5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed":   ErrPrefix,
		" 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed":  ErrPrefix,
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe":    ErrLength,
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed0":  ErrLength,
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\n": ErrLength,
		"0x": ErrLength,
		"0x5gAeb6053F3E94C9b9A09f33669435E7Ef1BeAed": ErrDigit,
		"0x5aeb6053F3E94C9b9A09f33669435E7Ef1BeAed ": ErrDigit,
		// A letter's case, a digit, and two digits changed places.
		"0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed": ErrChecksum,
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAec": ErrChecksum,
		"0x5aAeb6035F3E94C9b9A09f33669435E7Ef1BeAed": ErrChecksum,
		"0x" + strings.Repeat("0", 40):               ErrZero,
		strings.Repeat("0x", 1<<16):                  ErrLength,
	} {
		w, err := Parse(s)
		if !errors.Is(err, want) {
			t.Errorf("Parse(%.60q) = %v, want %v", s, err, want)
			continue
		}
		if w != ([20]byte{}) {
			t.Errorf("Parse(%.60q) gives an address beside its error", s)
		}
		if len(err.Error()) > 300 {
			t.Errorf("the error repeats %d bytes of foreign text", len(err.Error()))
		}
	}
}

func FuzzAnAddressReadsBackAsItself(f *testing.F) {
	for _, v := range vectors {
		f.Add(v)
	}
	f.Add("0x")
	f.Add("name.eth")
	f.Fuzz(func(t *testing.T, s string) {
		w, err := Parse(s)
		if err != nil {
			return
		}
		if !strings.EqualFold(s, "0x"+hex.EncodeToString(w[:])) {
			t.Fatalf("%q was read as %x", s, w)
		}
		if back, err := Parse(Format(w)); err != nil || back != w {
			t.Fatalf("%q -> %s -> %x, %v", s, Format(w), back, err)
		}
	})
}
