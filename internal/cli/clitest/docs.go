// Package clitest checks that the commands that the documentation shows
// exist.
package clitest

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// CheckCommands fails t for every command line of root's name in the code of
// the Markdown files that root has no such command or flag for.
func CheckCommands(t *testing.T, root *cobra.Command, files []string) {
	t.Helper()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	seen := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range commandLines(root.Name(), string(text)) {
			seen++
			if err := exists(root, line.words); err != nil {
				t.Errorf("%s:%d: `%s %s`: %v", file, line.number, root.Name(), strings.Join(line.words, " "), err)
			}
		}
	}
	if seen == 0 {
		t.Errorf("no command of %s is in %v: the test looks in the wrong place", root.Name(), files)
	}
}

type commandLine struct {
	number int
	words  []string
}

// code is the text between backquotes; ends is where a shell's command ends.
var (
	code = regexp.MustCompile("`+([^`]+)`+")
	ends = regexp.MustCompile(`[|;&<>()]|\s#|$`)
)

// commandLines finds command lines in fenced blocks and code spans.
func commandLines(name, text string) (list []commandLine) {
	start := regexp.MustCompile(`(?:^|[$#>]\s+|^\s*|(?:sudo|bin/)\s*)` + name + ` +`)
	fenced := false
	number := 0
	for line := range strings.Lines(text) {
		number++
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		pieces := []string{line}
		if !fenced {
			pieces = nil
			for _, m := range code.FindAllStringSubmatch(line, -1) {
				pieces = append(pieces, m[1])
			}
		}
		for _, piece := range pieces {
			at := start.FindStringIndex(piece)
			if at == nil {
				continue
			}
			rest := piece[at[1]:]
			rest = rest[:ends.FindStringIndex(rest)[0]]
			list = append(list, commandLine{number, strings.Fields(rest)})
		}
	}
	return list
}

// word is how commands are spelled; anything else is an argument.
var word = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

func exists(root *cobra.Command, words []string) error {
	command := root
	i := 0
	for ; i < len(words) && command.HasSubCommands() && word.MatchString(strings.TrimSuffix(words[i], ",")); i++ {
		next, _, err := command.Find([]string{strings.TrimSuffix(words[i], ",")})
		if err != nil || next == command {
			return fmt.Errorf("there is no command %q", words[i])
		}
		command = next
		if strings.HasSuffix(words[i], ",") { // a list of commands: the first speaks for them
			return nil
		}
	}
	for _, w := range words[i:] {
		flag, ok := strings.CutPrefix(strings.Trim(w, "[],"), "--")
		if !ok || flag == "" {
			continue
		}
		flag, _, _ = strings.Cut(flag, "=")
		if find(command, flag) == nil && flag != "help" && flag != "version" {
			return fmt.Errorf("%s has no flag --%s", command.CommandPath(), flag)
		}
	}
	return nil
}

func find(c *cobra.Command, flag string) *pflag.Flag {
	if f := c.Flags().Lookup(flag); f != nil {
		return f
	}
	if f := c.PersistentFlags().Lookup(flag); f != nil {
		return f
	}
	return c.InheritedFlags().Lookup(flag)
}
