package printable

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// hostile are characters that move the cursor, turn the direction of writing
// round or hide themselves.
var hostile = []rune{
	0, '\a', '\b', '\x1b', '\r', 0x7f, 0x85, 0x9b, 0xad, 0x061c, 0x180e, 0x200b, 0x200d, 0x200e, 0x200f, 0x2028, 0x2029,
	0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2060, 0x2066, 0x2067, 0x2068, 0x2069, 0xfeff, 0xfff9, 0xe000, 0xe0041, 0x10fffe,
}

func TestHostileCharactersAreNeverShown(t *testing.T) {
	for _, r := range hostile {
		for name, f := range map[string]func(string) string{"Text": Text, "Lines": Lines} {
			if got := f("a" + string(r) + "b"); got != "a?b" {
				t.Errorf("%s of U+%04X is %q", name, r, got)
			}
		}
		b, err := json.Marshal("a" + string(r) + "b")
		if err != nil {
			t.Fatal(err)
		}
		shown := JSON(b)
		if bytes.ContainsRune(shown, r) {
			t.Errorf("JSON of U+%04X holds it: %s", r, shown)
		}
		var back string
		if err := json.Unmarshal(shown, &back); err != nil || back != "a"+string(r)+"b" {
			t.Errorf("JSON of U+%04X reads back as %q, %v", r, back, err)
		}
	}
}

func TestHonestTextStays(t *testing.T) {
	for _, s := range []string{"plain", "Ünï çödé", "日本語", "сервер", "שלום", "1\u00a0000", "naïve—dash “quoted” …", "🔒"} {
		if Text(s) != s || Lines(s) != s || string(JSON([]byte(s))) != s {
			t.Errorf("%q became %q, %q, %q", s, Text(s), Lines(s), JSON([]byte(s)))
		}
	}
	if got := Lines("a\n\tb\r\n"); got != "a\n\tb?\n" {
		t.Errorf("lines became %q", got)
	}
	if got := Text("a\n\tb"); got != "a??b" {
		t.Errorf("a line became %q", got)
	}
	if got := Text("a\xff\xc3b"); got != "a??b" {
		t.Errorf("bytes that are no UTF-8 became %q", got)
	}
}

func FuzzJSON(f *testing.F) {
	f.Add("plain")
	f.Add(string(hostile))
	f.Add("\xff\u202e\U000e0041\"\\")
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		e := json.NewEncoder(JSONWriter(&out))
		e.SetEscapeHTML(false)
		if err := e.Encode(map[string]any{s: []any{s, 1.5}}); err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(out.Bytes()) {
			t.Fatalf("%q is not UTF-8", out.Bytes())
		}
		if strings.ContainsFunc(strings.TrimSuffix(out.String(), "\n"), func(r rune) bool { return !Shown(r) }) {
			t.Fatalf("%q shows a character that may not be", out.String())
		}
		var back map[string]any
		if err := json.Unmarshal(out.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		want := strings.ToValidUTF8(s, "\ufffd")
		if len(back) != 1 || utf8.ValidString(s) && !reflect.DeepEqual(back, map[string]any{want: []any{want, 1.5}}) {
			t.Fatalf("%q reads back as %v", out.Bytes(), back)
		}
	})
}

func TestAWriterSeesCharactersThatComeInPieces(t *testing.T) {
	const text = "a\u202eb\u00fc\n\t\xff\U000e0041日\x1b[31m"
	for size := 1; size < 6; size++ {
		var out bytes.Buffer
		w := Writer(&out)
		for b := []byte(text); len(b) > 0; {
			n := min(size, len(b))
			if m, err := w.Write(b[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			b = b[n:]
		}
		if want := "a?bü\n\t??日?[31m"; out.String() != want {
			t.Errorf("in pieces of %d: %q, want %q", size, out.String(), want)
		}
	}
}
