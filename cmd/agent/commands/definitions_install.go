package commands

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/settings"
	"banmesh/internal/span"
	"banmesh/topics"
)

func newTopicsShowCommand(p *paths) *cobra.Command {
	var from string
	c := &cobra.Command{
		Use: "show TOPIC [--from NAME]", Short: "Show a topic definition that can be installed, and its effect",
		Example: "  agent topics show jellyfin\n  agent topics show games --from alice",
		Long:    "Show the text of a definition, shipped or published, and the effect that it has here where it is detected.\n" + cli.ExitHelp,
		Args:    exactly(1, "a topic"),
		RunE: func(c *cobra.Command, args []string) error {
			o, err := offer(c, p, args[0], from)
			if err != nil {
				return err
			}
			printForeign(c.OutOrStdout(), string(o.text))
			return printConsequences(c.OutOrStdout(), o)
		},
	}
	c.Flags().StringVar(&from, "from", "", "the operator whose definition it is, or \"shipped\"")
	return c
}

func newTopicsDiffCommand(p *paths) *cobra.Command {
	var from string
	c := &cobra.Command{
		Use: "diff TOPIC [--from NAME]", Short: "Compare a topic definition that can be installed with the one in use",
		Example: "  agent topics diff jellyfin --from alice",
		Long:    "Print the lines that an installation of the definition would take away (-) and bring (+). Nothing is printed where there are none.\n" + cli.ExitHelp,
		Args:    exactly(1, "a topic"),
		RunE: func(c *cobra.Command, args []string) error {
			o, err := offer(c, p, args[0], from)
			if err != nil {
				return err
			}
			old, err := os.ReadFile(definitionFile(p.config, o.Topic))
			if errors.Is(err, os.ErrNotExist) {
				old, _ = topics.Shipped(o.Topic)
			} else if err != nil {
				return err
			}
			if m := installed.Find(old); m != nil {
				old = old[len(m):]
			}
			for _, line := range difference(string(old), string(o.text)) {
				fmt.Fprintln(c.OutOrStdout(), cli.Printable(line))
			}
			return nil
		},
	}
	c.Flags().StringVar(&from, "from", "", "the operator whose definition it is, or \"shipped\"")
	return c
}

// maxCompared bounds the lines that are compared each with each; of longer texts
// all that lies between the lines that both begin and end with is shown as changed.
const maxCompared = 2_000

// difference gives the lines that are in one text alone, in order, by their longest
// common subsequence.
func difference(old, now string) (out []string) {
	a, b := strings.Split(strings.TrimRight(old, "\n"), "\n"), strings.Split(strings.TrimRight(now, "\n"), "\n")
	if old == "" {
		a = nil
	}
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if max(len(a), len(b)) > maxCompared {
		for _, line := range a {
			out = append(out, "-"+line)
		}
		for _, line := range b {
			out = append(out, "+"+line)
		}
		return out
	}
	longest := make([][]int, len(a)+1)
	for i := range longest {
		longest[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			} else {
				longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && longest[i+1][j] >= longest[i][j+1]:
			out = append(out, "-"+a[i])
			i++
		default:
			out = append(out, "+"+b[j])
			j++
		}
	}
	return out
}

func newTopicsInstallCommand(p *paths) *cobra.Command {
	var from string
	var yes bool
	c := &cobra.Command{
		Use: "install TOPIC [--from NAME]", Short: "Show a topic definition and its effect and, when you agree, use it", Aliases: []string{"adopt"},
		Example: "  agent topics install jellyfin --from alice\n  agent topics install sshd --from shipped",
		Long: `Show the definition of a topic as an operator publishes it, and its effect here, and, when you agree, write it below the
configuration directory. It says which logs of this machine are read and what in them is an offence, so read it. A later edition of
the operator's is not taken over by itself: ` + "`agent topics search`" + ` says that there is one, ` + "`agent topics diff`" + ` shows it, and installing again
takes it. With --from shipped this program's own definition is written there, a file of the same form to be changed.
` + cli.ExitHelp,
		Args: exactly(1, "a topic"),
		RunE: func(c *cobra.Command, args []string) error {
			o, err := offer(c, p, args[0], from)
			if err != nil {
				return err
			}
			if o.Fault != "" {
				return fmt.Errorf("the definition of %s cannot be used: %s", o.By, o.Fault)
			}
			path, text, out := definitionFile(p.config, o.Topic), o.withOrigin(), c.OutOrStdout()
			printForeign(out, string(o.text))
			if err := printConsequences(out, o); err != nil {
				return err
			}
			if old, err := os.ReadFile(path); err == nil && !bytes.Equal(old, text) {
				fmt.Fprintf(out, "\nThis replaces %s.\n", path)
			}
			if !yes {
				fmt.Fprint(out, "\nUse this definition here? [y/N] ")
				line := bufio.NewScanner(io.LimitReader(c.InOrStdin(), 64))
				line.Scan()
				if answer := strings.ToLower(strings.TrimSpace(line.Text())); answer != "y" && answer != "yes" {
					return &cli.Error{Err: errors.New("nothing was changed"), Code: cli.ExitError, Hint: "say yes, or use --yes where nobody can answer"}
				}
			}
			if err := config.WriteAtomic(path, text, 0o644); err != nil {
				return err
			}
			if _, err := settings.Load(p.config, p.state); err != nil {
				return err
			}
			fmt.Fprintf(out, "%s is defined as %s publishes it; next: `agent topics subscribe %s`, `agent topics detect %s`\n", o.Topic, o.By, o.Topic, o.Topic)
			return reload(c, p, path)
		},
	}
	c.Flags().StringVar(&from, "from", "", "the operator whose definition it is, or \"shipped\"")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// printConsequences tells the effects of a definition in use: which logs it reads,
// whom it bans when, for how long, and which ports it closes.
func printConsequences(w io.Writer, o offered) error {
	d, err := o.definition()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nWhere it is used:\n  closes     %s\n", closesText(d.Enforce))
	if topics.Find(o.Topic) != nil && o.By != byShipped {
		fmt.Fprintf(w, "  changes    the shipped definition of %s: all that it does not name stays as it is\n", o.Topic)
	}
	x := d.Detect
	if x == nil {
		fmt.Fprintln(w, "  finds      nobody: it names no log")
		return nil
	}
	for _, l := range []struct {
		what   string
		values []string
	}{{"journal", x.Journal}, {"file", x.Files}, {"container", x.Docker}, {"listens at", x.Syslog}} {
		if len(l.values) > 0 {
			fmt.Fprintf(w, "  %-10s %s\n", l.what, cli.Printable(strings.Join(l.values, " | ")))
		}
	}
	if x.Decisions {
		fmt.Fprintln(w, "  counts     the bans that this node decides in other topics")
	}
	if x.UseDNS {
		fmt.Fprintln(w, "  looks up   host names in its lines")
	}
	fmt.Fprintf(w, "  ban        after %d within %s, for %s\n", x.MaxRetry, span.Format(x.FindTime.Duration()), banTimeText(x))
	if len(x.IgnoreIP) > 0 {
		fmt.Fprintf(w, "  never      %s\n", cli.Printable(strings.Join(x.IgnoreIP, " ")))
	}
	if len(x.Success) > 0 || x.GuestBytes > 0 {
		fmt.Fprintln(w, "  guests     who logs in or works there, whom no peer then bans")
	}
	return nil
}
