// Package hostile makes long lines that cost a matcher much: each is a sample of
// a topic's up to some place, then one piece again and again, then the rest.
package hostile

import (
	"slices"
	"strings"

	"banmesh/topics"
)

// pieces of no topic's own: words, rows of one character, parts of addresses,
// quotes, brackets, characters beyond ASCII, bytes that are no text.
var pieces = []string{
	"a ", " ", " \t", "\"", "'", "a", "1", "1.", "9.9.9.9 ", "192.0.2.1", " from 192.0.2.1 port 1", "f:", "::", "a.", "\u00e9", "\u4e16", "\xff", "(", "[", "]: ", ": ",
	">", "=", "x=\"1\" ", "/", "%41", "\\", "{", "error: ",
}

// places are where a line is cut, at the ends of words.
const places = "\"'([:=, "

// Lines gives lines of a size in bytes, of at most each places of each sample. Several
// are of a text that only nearly matches.
func Lines(d *topics.Definition, size, each int, do func(topics.Sample)) {
	for _, s := range d.Samples {
		if s.Target == "" && s.Success == "" {
			continue
		}
		var cuts []int
		for i := min(16, len(s.Line)); i <= len(s.Line); i++ {
			if i == len(s.Line) || strings.ContainsRune(places, rune(s.Line[i])) {
				cuts = append(cuts, i)
			}
		}
		for n := range min(each, len(cuts)) {
			at := cuts[len(cuts)-1-n*len(cuts)/min(each, len(cuts))]
			for _, piece := range ofLine(s.Line, at) {
				for _, end := range []string{"", s.Line[at:], s.Line[at:] + "x"} {
					if room := size - at - len(end); room > 0 && piece != "" {
						long := s
						long.Line = s.Line[:at] + strings.Repeat(piece, room/len(piece)) + end
						do(long)
					}
				}
			}
		}
	}
}

// ofLine gives pieces that bring an expression back to where it was.
func ofLine(line string, at int) []string {
	rest, before := line[at:], line[:at]
	list := append(slices.Clone(pieces), before, before[max(0, at-24):])
	if rest != "" {
		list = append(list, rest, rest[:len(rest)-1], rest[:(len(rest)+1)/2], rest[:min(len(rest), 24)], rest[:min(len(rest), 12)])
	}
	return list
}
