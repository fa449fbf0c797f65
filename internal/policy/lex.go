package policy

import (
	"fmt"
	"strconv"
	"strings"

	"banmesh/internal/strict"
)

// maxExpression bounds an expression's length, and with it its depth.
const maxExpression = 4000

// word is a lexical unit of an expression; column counts from 1.
type word struct {
	text   string
	column int
}

// lex splits an expression into words, numbers with units, and ( ) , : >=.
func lex(s string) []word {
	var words []word
	for i := 0; i < len(s); {
		start := i
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case isWordByte(c):
			for i < len(s) && isWordByte(s[i]) {
				i++
			}
		case c == '>' && i+1 < len(s) && s[i+1] == '=':
			i += 2
		default:
			i++
			for i < len(s) && s[i]&0xc0 == 0x80 { // keep a UTF-8 character whole
				i++
			}
		}
		words = append(words, word{s[start:i], start + 1})
	}
	return words
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
}

// reserved words cannot name operators or groups.
var reserved = []string{
	"any", "all", "of", "or", "and", "within", "weight", "weak", "follow", "depth", "most", "never", "everyone",
	"hits", "tcp", "not", "ban", "watch", "suspect",
}

// parser reads one expression. The first fault stops it.
type parser struct {
	key   string
	text  string
	words []word
	at    int
	names names
	fault *strict.Fault
	// warning is something that is allowed and hardly meant.
	warning *strict.Fault
}

// names resolves the names that expressions use.
type names interface {
	// resolve gives the group of a name, or of several together.
	resolve(of []string) *group
	known(name string) bool
	all() []string
}

func newParser(key, text string, n names) *parser {
	p := &parser{key: key, text: text, names: n}
	if len(text) > maxExpression {
		p.text = clip(text)
		p.fail(word{"", 1}, fmt.Sprintf("an expression has at most %d bytes", maxExpression), "use groups")
		return p
	}
	p.words = lex(text)
	return p
}

func (p *parser) fail(at word, message, hint string) {
	if p.fault == nil {
		p.fault = p.faultAt(at, message, hint)
	}
	p.at = len(p.words)
}

// faultAt is a fault at a word.
func (p *parser) faultAt(w word, message, hint string) *strict.Fault {
	return &strict.Fault{Path: p.key, Column: w.column, Text: message, Excerpt: strict.Underline(p.text, w.column, len(w.text)), Hint: hint}
}

// peek gives the next word, or an empty one at the end of the text.
func (p *parser) peek() word {
	if p.at < len(p.words) {
		return p.words[p.at]
	}
	return word{"", len(p.text) + 1}
}

func (p *parser) next() word {
	w := p.peek()
	p.at++
	return w
}

func (p *parser) accept(text string) bool {
	if p.peek().text == text {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(text, hint string) {
	if w := p.peek(); !p.accept(text) {
		p.fail(w, fmt.Sprintf("expected %q, got %s", text, quote(w)), hint)
	}
}

// since gives the text from a word to the one before the next.
func (p *parser) since(from word) string {
	if p.fault != nil || p.at == 0 || p.at > len(p.words) {
		return ""
	}
	last := p.words[p.at-1]
	return strings.Join(strings.Fields(p.text[from.column-1:last.column-1+len(last.text)]), " ")
}

func quote(w word) string {
	if w.text == "" {
		return "the end"
	}
	return strconv.Quote(clip(w.text))
}
