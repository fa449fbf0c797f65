package source

import (
	"fmt"
	"slices"
	"strings"
)

// maxTerms bounds a journal match, which an operator writes.
const maxTerms = 256

// A term is one "FIELD=value".
type term struct{ field, value string }

// A match is a journal match: alternatives of which each needs, for every
// field that it names, one of the values that it gives for it. No alternative
// at all matches everything, as journalctl without arguments does.
type match [][]term

// parseMatch reads the syntax of journalctl's arguments and of fail2ban's
// journalmatch: terms separated by blanks, "+" between alternatives, quotes
// around a term that holds blanks.
func parseMatch(text string) (match, error) {
	words, err := splitWords(text)
	if err != nil {
		return nil, fmt.Errorf("%w: journal match %s: %w", ErrSpec, quoted(text), err)
	}
	if len(words) > maxTerms {
		return nil, fmt.Errorf("%w: journal match with more than %d terms", ErrSpec, maxTerms)
	}
	var m match
	var all []term
	for i, word := range words {
		if word == "+" {
			if len(all) == 0 || i == len(words)-1 {
				return nil, fmt.Errorf("%w: journal match %s: \"+\" stands between terms", ErrSpec, quoted(text))
			}
			m, all = append(m, all), nil
			continue
		}
		field, value, ok := strings.Cut(word, "=")
		if !ok || !fieldName(field) {
			return nil, fmt.Errorf("%w: journal match %s: %s is not FIELD=value", ErrSpec, quoted(text), quoted(word))
		}
		all = append(all, term{field: field, value: value})
	}
	if len(all) > 0 {
		m = append(m, all)
	}
	return m, nil
}

// fieldName reports whether the journal allows s as a field's name
// (systemd.journal-fields(7)): upper-case letters, digits and "_", not
// beginning with a digit, at most 64 bytes.
func fieldName(s string) bool {
	if s == "" || len(s) > 64 || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// splitWords splits at blanks outside quotes.
func splitWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, byte(0)
	for i := range len(text) {
		c := text[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				word.WriteByte(c)
			}
		case c == '"' || c == '\'':
			quote, inWord = c, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c is not closed", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// holds evaluates the match; has says whether an entry has a term.
func (m match) holds(has func(term) bool) bool {
	if len(m) == 0 {
		return true
	}
	return slices.ContainsFunc(m, func(all []term) bool {
		for i, t := range all {
			if slices.ContainsFunc(all[:i], func(u term) bool { return u.field == t.field }) {
				continue // decided with the field's first term
			}
			if !slices.ContainsFunc(all[i:], func(u term) bool { return u.field == t.field && has(u) }) {
				return false
			}
		}
		return true
	})
}

// arguments are the words that make journalctl match any of ms.
func arguments(ms []match) []string {
	var words []string
	for _, m := range ms {
		if len(m) == 0 {
			return nil
		}
		for _, all := range m {
			if len(words) > 0 {
				words = append(words, "+")
			}
			for _, t := range all {
				words = append(words, t.field+"="+t.value)
			}
		}
	}
	return words
}
