package fields

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"banmesh/internal/detect/pattern"
)

// A Set is a list of texts that a condition looks for in a field, all in one
// pass: "uri in secrets". Case and percent-encoding make no difference, nor
// do several slashes in place of one. A text that begins with "^" stands where
// the field begins, and one that ends with "$" where the field or its path
// ends: before "?" or "#". A Set is immutable.
type Set struct {
	path    bool // of the field only the part before "?" is looked at
	texts   []setText
	scanner *pattern.Scanner
	hits    sync.Pool // of *pattern.Hits
}

type setText struct {
	text       string
	begin, end bool
}

// Limits of a set: the longest that is shipped has a tenth of it.
const (
	maxTexts = 5000
	maxText  = 200
	minText  = 3 // shorter ones are everywhere
)

// Texts are a [Set]'s source. With Path they are looked for before the "?" of a
// field, so that a search term is no path.
type Texts struct {
	Path  bool
	Texts []string
}

// NewSet makes a set, and says which of its texts is wrong.
func NewSet(name string, x Texts) (*Set, error) {
	texts := x.Texts
	if len(texts) == 0 || len(texts) > maxTexts {
		return nil, fmt.Errorf("set %q: it has %d texts, want 1 to %d", name, len(texts), maxTexts)
	}
	s := &Set{path: x.Path}
	literals := make([][]string, 0, len(texts))
	for _, source := range texts {
		t := setText{text: strings.ToLower(source)}
		t.text, t.begin = strings.CutPrefix(t.text, "^")
		t.text, t.end = strings.CutSuffix(t.text, "$")
		if len(t.text) < minText || len(t.text) > maxText || t.text != plainURI(t.text) {
			return nil, fmt.Errorf("set %q: %q has not %d to %d bytes, or is written with an escape or several slashes, which are taken out of the field", name, source, minText, maxText)
		}
		s.texts = append(s.texts, t)
		literals = append(literals, []string{t.text})
	}
	s.scanner = pattern.NewScanner([]pattern.Group{{Literals: literals}})
	s.hits.New = func() any { return s.scanner.NewHits() }
	return s, nil
}

// Holds says that a field has one of the texts.
func (s *Set) Holds(value string) bool {
	if s.path {
		value, _, _ = strings.Cut(value, "?")
	}
	value = plainURI(strings.ToLower(value))
	hits, ok := s.hits.Get().(*pattern.Hits)
	if !ok {
		hits = s.scanner.NewHits()
	}
	defer s.hits.Put(hits)
	if !s.scanner.Scan([]byte(value), hits) {
		return false
	}
	for word, found := range hits.Candidates(0) {
		for bit := 0; found != 0; bit, found = bit+1, found>>1 {
			if found&1 != 0 && s.texts[word*64+bit].stands(value) {
				return true
			}
		}
	}
	return false
}

// stands says that a text that is somewhere in a value stands where it must.
func (t setText) stands(value string) bool {
	if t.begin && !strings.HasPrefix(value, t.text) {
		return false
	}
	for at := 0; t.end; {
		i := strings.Index(value[at:], t.text)
		if i < 0 {
			return false
		}
		at += i + len(t.text)
		if (at == len(value) || value[at] == '?' || value[at] == '#') && (!t.begin || at == len(t.text)) {
			return true
		}
		at -= len(t.text) - 1
	}
	return true
}

// literals gives for each text its longest part that every line which holds the
// text has as it is, and "%", which may hide any.
func (s *Set) literals() []string {
	out := []string{"%"}
	for _, t := range s.texts {
		part := longestPart(t.text)
		if part == "" {
			return nil
		}
		if !slices.Contains(out, part) {
			out = append(out, part)
		}
	}
	return out
}

// longestPart gives the longest part of a text that has neither a slash, of
// which there may be several, nor what formats escape; "" where it says too
// little.
func longestPart(text string) (longest string) {
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(`/\"<>&`, r) || r >= 0x80 || r < ' ' }) {
		if len(part) > max(len(longest), 1) {
			longest = part
		}
	}
	return longest
}

// maxDecodings is how many times over a request may be percent-encoded.
const maxDecodings = 3

// plainURI takes percent-encoding out of a request, and slashes that stand for
// one; those of "http://" stay.
func plainURI(s string) string {
	for range maxDecodings {
		next := percentDecoded(s)
		if next == s {
			break
		}
		s = strings.ToLower(next)
	}
	for i := 1; i < len(s); i++ {
		if s[i] != '/' || s[i-1] != '/' || i > 1 && s[i-2] == ':' {
			continue
		}
		b := append(make([]byte, 0, len(s)), s[:i]...)
		for ; i < len(s); i++ {
			if s[i] != '/' || b[len(b)-1] != '/' || len(b) > 1 && b[len(b)-2] == ':' {
				b = append(b, s[i])
			}
		}
		return string(b)
	}
	return s
}

func percentDecoded(s string) string {
	at := strings.IndexByte(s, '%')
	if at < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:at]...)
	for i := at; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if high, low := hex(s[i+1]), hex(s[i+2]); high >= 0 && low >= 0 {
				b = append(b, byte(high<<4|low))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
