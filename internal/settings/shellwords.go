package settings

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// shellCommands splits the text of an action into the commands of a shell, each as
// its words: quotes and escapes are resolved, comments and redirections dropped.
func shellCommands(text string) [][]string {
	var out [][]string
	var words []string
	var word strings.Builder
	started := false // a word has begun, if only by quotes
	endWord := func() {
		if started {
			words = append(words, word.String())
		}
		word.Reset()
		started = false
	}
	endCommand := func() {
		endWord()
		if w := withoutRedirections(words); len(w) > 0 {
			out = append(out, w)
		}
		words = nil
	}
	for i := 0; i < len(text); i++ {
		ch := text[i]
		switch {
		case ch == '\\' && i+1 < len(text):
			if i++; text[i] != '\n' {
				started = true
				word.WriteByte(text[i])
			}
		case (ch == '\'' || ch == '"') && strings.IndexByte(text[i+1:], ch) >= 0:
			end := i + 1 + strings.IndexByte(text[i+1:], ch)
			started = true
			word.WriteString(text[i+1 : end])
			i = end
		case ch == '#' && !started:
			if end := strings.IndexByte(text[i:], '\n'); end >= 0 {
				i += end - 1
			} else {
				i = len(text)
			}
		case ch == '&' && (i > 0 && text[i-1] == '>' || i+1 < len(text) && text[i+1] == '>'):
			started = true
			word.WriteByte(ch)
		case strings.IndexByte(";\n&|", ch) >= 0:
			endCommand()
		case ch == ' ' || ch == '\t' || ch == '\r':
			endWord()
		default:
			started = true
			word.WriteByte(ch)
		}
	}
	endCommand()
	return out
}

var redirection = regexp.MustCompile(`^(?:\d*|&)>{1,2}(.*)$`)

func withoutRedirections(words []string) (out []string) {
	for i := 0; i < len(words); i++ {
		if m := redirection.FindStringSubmatch(words[i]); m == nil {
			out = append(out, words[i])
		} else if m[1] == "" {
			i++ // its file
		}
	}
	return out
}

// program gives the name of the program that a command runs on this machine, and its
// arguments; "" where that is not known, as of what ssh runs elsewhere, or where the command only
// is a condition.
func program(words []string) (name string, arguments []string) {
	for len(words) > 0 && (slices.Contains([]string{"then", "do", "else", "{", "(", "exec", "command", "sudo", "-n"}, words[0]) || assignment.MatchString(words[0])) {
		words = words[1:]
	}
	if len(words) == 0 {
		return "", nil
	}
	return path.Base(words[0]), words[1:]
}

var assignment = regexp.MustCompile(`^[A-Za-z_]\w*=`)
