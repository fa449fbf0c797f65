// Package guides runs the commands of the guides on booted hosts, and compares
// the answers that a guide shows with the real ones.
package guides

import (
	"fmt"
	"regexp"
	"strings"
)

// A step is one thing that a guide has done on a host.
type step struct {
	host   string // "" for the first
	script string // of bash
	to     string // not empty: the file of the host that script names is copied to this one
	hidden bool   // of the guide's world, which a reader does not see
	beside bool   // goes on beside those that follow, on a terminal whose transcript is /root/beside
	line   int    // in the guide, counted from 1
	// wanted is the answer that the guide shows, nil where it shows none;
	// first and last are its lines in the guide, counted from 0, half open.
	wanted      []string
	first, last int
}

// A guide is a Markdown file with its steps.
type guide struct {
	hosts   []string // at least one
	bare    bool     // the hosts begin without the package
	steps   []step
	skipped []string // reasons of blocks that are not run
}

var (
	fence   = regexp.MustCompile("^( *)```([a-z]*)$")
	prompt  = regexp.MustCompile(`^([a-z]*)([#$]) (.+)$`)
	target  = regexp.MustCompile(`^(?:#|//) (?:([a-z]+):)?(/[^ ]+)$`)
	comment = regexp.MustCompile(`^<!-- (hosts|bare|copy|run|beside|not run)(?: ([a-z]+))?:?(?: (.*))?$`)
)

// parse reads a guide. Blocks of console have commands behind prompts, "# " for
// root or "NAME# " for root of another host, "NAME$ " likewise, and the answers
// below them; blocks of sh are run whole; other blocks whose first line is a
// comment with a path are added to that file. Comments of HTML prepare the
// guide's world: "hosts: a b", "run [HOST]:" with a script, "copy: HOST:PATH HOST", "beside" before a block of
// a command that waits for later ones, "not run:" with the reason before a block.
func parse(text string) (g guide, err error) {
	lines := strings.Split(text, "\n")
	skip, beside := false, false
	for i := 0; i < len(lines); i++ {
		if m := comment.FindStringSubmatch(lines[i]); m != nil {
			number, body := i+1, m[3]
			for !strings.HasSuffix(body, "-->") {
				if i++; i == len(lines) {
					return g, fmt.Errorf("line %d: a comment without an end", number)
				}
				body += "\n" + lines[i]
			}
			body = strings.TrimSpace(strings.TrimSuffix(body, "-->"))
			switch m[1] {
			case "hosts":
				g.hosts = strings.Fields(m[2] + " " + body)
			case "bare":
				g.bare = true
			case "copy": // "one:/root/file two": to the same place
				from, to, _ := strings.Cut(body, " ")
				host, path, _ := strings.Cut(from, ":")
				g.steps = append(g.steps, step{host: host, script: path, to: to, hidden: true, line: number})
			case "run":
				g.steps = append(g.steps, step{host: m[2], script: body, hidden: true, line: number})
			case "beside":
				beside = true
			case "not run":
				g.skipped = append(g.skipped, body)
				skip = true
			}
			continue
		}
		m := fence.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		first := i + 1
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
		}
		if i == len(lines) {
			return g, fmt.Errorf("line %d: a block without an end", first)
		}
		before := len(g.steps)
		if !skip {
			g.block(m[2], lines[first:i], first, m[1])
		}
		for k := before; beside && k < len(g.steps); k++ {
			g.steps[k].beside = true
		}
		skip, beside = false, false
	}
	if len(g.hosts) == 0 {
		g.hosts = []string{"server"}
	}
	return g, nil
}

// block takes a fenced block; first is its first line, counted from 0.
func (g *guide) block(kind string, lines []string, first int, indent string) {
	switch kind {
	case "":
		return
	case "console":
		for i, line := range lines {
			line = strings.TrimPrefix(line, indent)
			if m := prompt.FindStringSubmatch(line); m != nil {
				g.steps = append(g.steps, step{host: m[1], script: m[3], line: first + i + 1, first: first + i + 1, last: first + i + 1})
				continue
			}
			if len(g.steps) > 0 {
				s := &g.steps[len(g.steps)-1]
				s.wanted = append(s.wanted, line)
				s.last = first + i + 1
			}
		}
	case "sh":
		g.steps = append(g.steps, step{script: strings.Join(lines, "\n"), line: first + 1})
	default:
		m := target.FindStringSubmatch(lines[0])
		if m == nil {
			g.skipped = append(g.skipped, "an example of "+kind+" without a path")
			return
		}
		text := strings.Join(lines[1:], "\n")
		g.steps = append(g.steps, step{host: m[1], line: first + 1, script: fmt.Sprintf("mkdir -p $(dirname %[1]s) && cat >>%[1]s <<'END OF FILE'\n%[2]s\nEND OF FILE", m[2], text)})
	}
}

// changing are the words of an answer that differ from run to run.
var changing = []struct {
	re *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?: UTC|Z)?`), "TIME"},
	{regexp.MustCompile(`\b[a-z2-7]{26}\b`), "IDENTITY"},
	{regexp.MustCompile(`\b[a-z2-7]{16}\b`), "NODE"},
	{regexp.MustCompile(`\b\d+(?:\.\d+)? (?:ms|s|min|h|d|MiB|KiB|kB)(?: \d+ (?:s|min|h))?\b`), "N UNIT"},
	{regexp.MustCompile(`https?://127\.0\.0\.1:\d+/[0-9a-zA-Z_/-]{16,}`), "SECRET URL"},
	{regexp.MustCompile(`[0-9A-Za-z_-]{43,}`), "SECRET"},
	{regexp.MustCompile(`\b[a-z]{5}(?:-[a-z]{5}){7}\b`), "WORDS"},
	{regexp.MustCompile(`\bop-[a-z2-7]{8}\b`), "OPERATOR"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d`), "DAY"},
	{regexp.MustCompile(`\[\d+\]`), "[PROCESS]"},
	{regexp.MustCompile(`(\d\.\d+\.\d+\.\d+):\d{4,5}\b`), "$1:PORT"},
	{regexp.MustCompile(`\b\d+ packets`), "N packets"},
	{regexp.MustCompile(`\b\d+ lines, \d+ offences`), "N lines, N offences"},
	{regexp.MustCompile(`\b\d+ entries found`), "N entries found"},
	{regexp.MustCompile(` {2,}`), "  "},
}

func plain(line string) string {
	line = strings.TrimRight(line, " ")
	for _, c := range changing {
		line = c.re.ReplaceAllString(line, c.by)
	}
	return line
}

// same says whether an answer is the one that a guide shows: the same lines but
// for times, keys, lengths of time and the width of columns. A line "..." stands
// for any number of lines.
func same(wanted []string, answer string) bool {
	got := strings.Split(strings.TrimRight(answer, "\n"), "\n")
	return match(wanted, got)
}

func match(wanted, got []string) bool {
	if len(wanted) == 0 {
		return len(got) == 0
	}
	if strings.TrimSpace(wanted[0]) == "..." {
		for i := range len(got) + 1 {
			if match(wanted[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && plain(wanted[0]) == plain(got[0]) && match(wanted[1:], got[1:])
}
