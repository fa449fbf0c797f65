package pickle

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// protocol5 is a request as Python 3.11 writes it, with a repeated word
// remembered: ["set", "sshd", "banip", "sshd"].
const protocol5 = "\x80\x05\x95\x1c\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c\x03set\x94\x8c\x04sshd\x94\x8c\x05banip\x94h\x02e."

func TestPicklesOfPython(t *testing.T) {
	for in, want := range map[string]string{
		protocol5: "[set sshd banip sshd]",
		"\x80\x05\x95\x15\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c\x04ping\x94G?\xb9\x99\x99\x99\x99\x99\x9ae.": "[ping 0.1]",
		"\x80\x02](X\x06\x00\x00\x00statuse.":                          "[status]", // as Go's og-rek writes it
		"\x80\x02]q\x00X\x04\x00\x00\x00pingq\x01a.":                   "[ping]",
		"\x80\x02](](X\x01\x00\x00\x00aK\x07e\x88NJ\xff\xff\xff\xffe.": "[[a 7] true <nil> -1]",
	} {
		got, err := Parse([]byte(in))
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: %v %v, want %s", in, got, err, want)
		}
	}
}

// Whatever names or calls something, is too deep, too long, or refers to itself
// is refused.
func TestPickleBombsAreRefused(t *testing.T) {
	for name, in := range map[string]string{
		"a call":                  "\x80\x05cposix\nsystem\n(X\x02\x00\x00\x00idtR.",
		"a class from the stack":  "\x80\x05(\x8c\x02os\x8c\x06system\x93.",
		"an object":               "\x80\x02(ios\nsystem\n.",
		"an extension":            "\x80\x02\x82\x01.",
		"built state":             "\x80\x02]}b.",
		"depth 3":                 "\x80\x02](](](ee" + "e.",
		"a list in itself":        "\x80\x02]q\x00(h\x00e.",
		"a dictionary":            "\x80\x02}.",
		"a frame beyond the end":  "\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\x7f].",
		"a text beyond the end":   "\x80\x02](X\xff\xff\xff\xffae.",
		"protocol 6":              "\x80\x06].",
		"no end":                  "\x80\x02]",
		"bytes behind the end":    "\x80\x02].]",
		"two values":              "\x80\x02]].",
		"a mark that stays":       "\x80\x02](.",
		"append to nothing":       "\x80\x02a.",
		"append to a text":        "\x80\x02\x8c\x01a\x8c\x01ba.",
		"a word alone":            "\x80\x02\x8c\x01a.",
		"too many words":          "\x80\x02](" + strings.Repeat("N", maxWords) + "e.",
		"too many remembered":     "\x80\x02]" + strings.Repeat("\x94", maxWords+1) + ".",
		"too long":                "\x80\x02](X" + "\x00\x00\x01\x00" + strings.Repeat("a", 1<<16) + "e.",
		"remembered out of sight": "\x80\x02](h\x09e.",
	} {
		if got, err := Parse([]byte(in)); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	// The limits themselves are within.
	if _, err := Parse([]byte("\x80\x02](" + strings.Repeat("N", maxWords-2) + "e.")); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, in := range []string{protocol5, "\x80\x02](X\x06\x00\x00\x00statuse.", "\x80\x02](](X\x01\x00\x00\x00aK\x07e\x88NJ\xff\xff\xff\xffe.", "\x80\x05cposix\nsystem\n(X\x02\x00\x00\x00idtR."} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		words, err := Parse(in)
		if err == nil && len(words) > maxWords {
			t.Errorf("%d words", len(words))
		}
	})
}
