package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// reference writes docs/reference.md: every key of every file.
func reference(agent, broker, topic []Key) string {
	var b strings.Builder
	b.WriteString(`# Reference of every key

Generated from the program's own structs (` + "`go run ./deploy/docgen`" + `); a test compares them. Durations are written ` + "`30s`, `10m`, `72h`, `30d`" + `.
A key that is not listed is an error, with its line and the nearest name. ` + "`agent check` and `broker check`" + ` read the files without any effect.

## agent.toml
In /etc/banmesh, with conf.d/*.toml laid over it, which the commands write. Everything is optional.

`)
	table(&b, agent)
	b.WriteString("## broker.toml\nIn /etc/banmesh-broker; `broker init` writes one.\n\n")
	table(&b, broker)
	b.WriteString("## topics.d/TOPIC.toml\nA topic definition. A file of a shipped topic's name changes the keys that it names.\n\n")
	table(&b, topic)
	return b.String()
}

// table writes the keys that are no tables, then each table under its heading.
func table(b *strings.Builder, keys []Key) {
	if plain := only(keys, false); len(plain) > 0 {
		b.WriteString("| key | kind | meaning |\n|---|---|---|\n")
		for _, k := range plain {
			name := last(k.Path)
			if strings.HasSuffix(k.Kind, "s by name") {
				name += ".NAME"
			}
			fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, k.Kind, strings.ReplaceAll(k.Text, "|", "\\|"))
		}
		b.WriteString("\n")
	}
	for _, k := range only(keys, true) {
		fmt.Fprintf(b, "### %s\n%s\n\n", head(k), k.Text)
		table(b, k.Keys)
	}
}

func only(keys []Key, tables bool) (list []Key) {
	for _, k := range keys {
		if (k.Keys != nil) == tables {
			list = append(list, k)
		}
	}
	return list
}

func last(path string) string {
	path = strings.TrimSuffix(path, ".NAME")
	return path[strings.LastIndexByte(path, '.')+1:]
}

// head is how a table begins in a file.
func head(k Key) string {
	if path, ok := strings.CutSuffix(k.Path, "[]"); ok {
		return "[[" + strings.ReplaceAll(path, "[]", "") + "]]"
	}
	return "[" + strings.ReplaceAll(k.Path, "[]", "") + "]"
}

// sample writes a file with every key in comments; the name stands for a table
// that may have any.
func sample(first string, keys []Key) string {
	var b strings.Builder
	b.WriteString(first)
	lines(&b, keys)
	return b.String()
}

func lines(b *strings.Builder, keys []Key) {
	for _, k := range only(keys, false) {
		comment(b, k.Text)
		if table, ok := strings.CutSuffix(k.Path, ".NAME"); ok { // lists by name
			fmt.Fprintf(b, "#%s.NAME = %s\n\n", last(table), k.Sample)
			continue
		}
		fmt.Fprintf(b, "#%s = %s\n\n", last(k.Path), k.Sample)
	}
	for _, k := range only(keys, true) {
		b.WriteString("\n")
		comment(b, k.Text)
		fmt.Fprintf(b, "#%s\n\n", head(k))
		lines(b, k.Keys)
	}
}

func comment(b *strings.Builder, text string) {
	line := "##"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > 100 {
			b.WriteString(line + "\n")
			line = "##"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

// commands writes docs/commands.md: every command with its flags.
func commands(roots ...*cobra.Command) string {
	var b strings.Builder
	b.WriteString("# Reference of every command\n\nGenerated from the programs (`go run ./deploy/docgen`); a test compares them. `banmesh` has every command: those of `agent` at its top,\nthose of `broker` below `banmesh broker`.\n")
	for _, root := range roots {
		fmt.Fprintf(&b, "\n## %s\n", root.CommandPath())
		var walk func(c *cobra.Command)
		walk = func(c *cobra.Command) {
			if c.Hidden || c.Name() == "help" || c.Name() == "completion" && c.HasParent() {
				return
			}
			if c.Runnable() && !c.HasSubCommands() {
				command(&b, c)
			}
			for _, sub := range c.Commands() {
				walk(sub)
			}
		}
		walk(root)
		fmt.Fprintf(&b, "\n### Flags of every `%s` command\n", root.CommandPath())
		flags(&b, root.PersistentFlags())
	}
	return b.String()
}

func command(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "\n### %s\n%s.\n\n```\n%s\n```\n", c.CommandPath(), strings.TrimSuffix(c.Short, "."), c.UseLine())
	flags(b, c.LocalNonPersistentFlags())
}

func flags(b *strings.Builder, set *pflag.FlagSet) {
	n := 0
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			return
		}
		if n == 0 {
			b.WriteString("\n")
		}
		n++
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if kind != "" {
			name += " " + strings.ToUpper(kind)
		}
		fmt.Fprintf(b, "- `%s` %s\n", name, usage)
	})
}
