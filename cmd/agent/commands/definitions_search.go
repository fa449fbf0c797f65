package commands

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/doctor"
	"banmesh/internal/settings"
	"banmesh/topics"
)

// An offered definition is one that can be installed: shipped with this program, or
// published by an operator that the node knows.
type offered struct {
	Topic    ban.Topic `json:"topic"`
	By       string    `json:"by"` // an operator's name here; "shipped"
	Category string    `json:"category,omitempty"`
	Title    string    `json:"title,omitempty"`
	// Number and Issued are the edition's, of a published one.
	Number uint64    `json:"number,omitempty"`
	Issued time.Time `json:"issued,omitzero"`
	// State says how it stands here: "in use", "newer edition", "" for not installed.
	State string `json:"state,omitempty"`
	// Fault says why it cannot be used.
	Fault string `json:"fault,omitempty"`

	text []byte
}

// byShipped is the [offered.By] of the program's own definitions.
const byShipped = "shipped"

// offers lists the definitions that can be installed: published ones where an agent runs,
// and the shipped ones. Of published ones the form is checked; [offered.prove] does the rest.
func offers(ctx context.Context, p *paths) ([]offered, error) {
	list, set, err := published(ctx, p)
	if errors.Is(err, control.ErrNotRunning) {
		err = nil // nobody tells of others', and ours are here
	}
	if err != nil {
		return nil, err
	}
	var out []offered
	for _, x := range list {
		o := offered{Topic: x.Topic, By: set.NameOf(x.Operator), Number: x.Number, Issued: x.Issued, text: []byte(x.Text)}
		if d, err := o.definition(); err != nil {
			o.fail(err)
		} else {
			o.Category, o.Title = d.CategoryOf(), d.Title
		}
		o.State = o.standing(p.config)
		out = append(out, o)
	}
	for _, d := range topics.Builtin() {
		text, _ := topics.Shipped(d.Name)
		o := offered{Topic: d.Name, By: byShipped, Category: d.CategoryOf(), Title: d.Title, text: text}
		if _, err := os.Stat(definitionFile(p.config, d.Name)); errors.Is(err, os.ErrNotExist) {
			o.State = "in use"
		} else {
			o.State = o.standing(p.config)
		}
		out = append(out, o)
	}
	slices.SortStableFunc(out, func(a, b offered) int { return strings.Compare(string(a.Topic), string(b.Topic)) })
	return out, nil
}

// definition gives an offered definition as it will be here: of a topic that this
// program ships, all that it does not name stays as it is shipped.
func (o *offered) definition() (*topics.Definition, error) {
	d, err := topics.Parse(string(o.Topic), o.text)
	if err != nil {
		return nil, err
	}
	if d.Name != o.Topic {
		return nil, fmt.Errorf("it is about %q", d.Name)
	}
	if shipped := topics.Find(o.Topic); shipped != nil && o.By != byShipped {
		d = shipped
		err = topics.Override(string(o.Topic), o.text, d)
	}
	return d, err
}

// prove compiles a published definition, and checks its expressions and runs its
// samples, by itself and as it will be here: up to a second of work for a large one.
func (o *offered) prove() {
	if o.Fault != "" || o.By == byShipped {
		return
	}
	if _, err := usable(string(o.Topic), o.text); err != nil {
		o.fail(err)
		return
	}
	d, err := o.definition()
	if err == nil {
		err = proven(string(o.Topic), o.text, d)
	}
	if err != nil {
		o.fail(err)
	}
}

func (o *offered) fail(err error) {
	o.Fault, _, _ = strings.Cut(err.Error(), "\n")
}

func definitionFile(config string, topic ban.Topic) string {
	return filepath.Join(config, settings.TopicDirectory, string(topic)+".toml")
}

// installed is the line that begins an installed definition.
var installed = regexp.MustCompile(`^# Installed by .agent topics install. from "(.*)", edition (\d+) of (\S+)\.\n`)

// withOrigin gives an offered text with that line.
func (o *offered) withOrigin() []byte {
	issued := o.Issued.UTC().Format(time.DateOnly)
	if o.By == byShipped {
		issued = "this-version"
	}
	return append(fmt.Appendf(nil, "# Installed by `agent topics install` from %q, edition %d of %s.\n", o.By, o.Number, issued), o.text...)
}

// standing says whether a definition is the one in use, or newer than that.
func (o *offered) standing(config string) string {
	text, err := os.ReadFile(definitionFile(config, o.Topic))
	m := installed.FindSubmatch(text)
	if err != nil || m == nil {
		return ""
	}
	by, _ := strconv.Unquote(`"` + string(m[1]) + `"`)
	number, _ := strconv.ParseUint(string(m[2]), 10, 64)
	switch rest := text[len(m[0]):]; {
	case by != o.By:
		return ""
	case o.Number > number || o.By == byShipped && !bytes.Equal(rest, o.text):
		return newerEdition
	}
	return "in use"
}

// newerEditions gives the offered definitions of which an earlier edition is
// installed. Without an agent that runs, only the shipped ones are known.
func (p *paths) newerEditions(ctx context.Context) (newer []doctor.Edition) {
	list, err := offers(ctx, p)
	if err != nil {
		return nil // another finding says why the agent or its configuration cannot be asked
	}
	for _, o := range list {
		if o.State == newerEdition && o.Fault == "" {
			newer = append(newer, doctor.Edition{Topic: o.Topic, By: o.By})
		}
	}
	return newer
}

// newerEdition is the [offered.State] of a later edition than the installed one.
const newerEdition = "newer edition"

// offer finds the definition of a topic, of an operator where from names one. Of
// several it is a fault to name none.
func offer(c *cobra.Command, p *paths, topic, from string) (offered, error) {
	list, err := offers(c.Context(), p)
	if err != nil {
		return offered{}, err
	}
	list = slices.DeleteFunc(list, func(o offered) bool {
		return string(o.Topic) != topic || from != "" && o.By != from
	})
	switch {
	case len(list) == 0 && from != "":
		return offered{}, &cli.Error{Err: fmt.Errorf("%q publishes no definition of %q", from, topic), Code: cli.ExitError, Hint: "see `agent topics search`"}
	case len(list) == 0:
		return offered{}, &cli.Error{Err: fmt.Errorf("nobody offers a definition of %q", topic), Code: cli.ExitError, Hint: "see `agent topics search`"}
	case len(list) > 1:
		var by []string
		for _, o := range list {
			by = append(by, o.By)
		}
		return offered{}, cli.Usage("several offer a definition of %q: say --from %s", topic, strings.Join(by, " or --from "))
	}
	list[0].prove()
	return list[0], nil
}

func newTopicsSearchCommand(p *paths) *cobra.Command {
	var asJSON bool
	var category string
	c := &cobra.Command{
		Use: "search [WORD...]", Short: "List the topic definitions that can be installed", Aliases: []string{"published"},
		Example: "  agent topics search\n  agent topics search --category scanners\n  agent topics search nextcloud",
		Long: `List the definitions that ship with this program and those that operators you know publish, by category: ` + strings.Join(topics.Categories, ", ") + `.
With words, those whose name or title has one of them. A published definition is compiled, its expressions and sample
lines are checked and its cost is bounded before it is offered; one that fails says why. A newer edition of one that is installed is
said and never taken by itself.
` + cli.ExitHelp,
		RunE: func(c *cobra.Command, words []string) error {
			if category != "" && !slices.Contains(topics.Categories, category) {
				return cli.Usage("--category is one of %s", strings.Join(topics.Categories, ", "))
			}
			list, err := offers(c.Context(), p)
			if err != nil {
				return err
			}
			list = slices.DeleteFunc(list, func(o offered) bool {
				text := strings.ToLower(string(o.Topic) + " " + o.Title)
				return category != "" && o.Category != category || len(words) > 0 && !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, strings.ToLower(w)) })
			})
			for i := range list {
				list[i].prove()
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			if !slices.ContainsFunc(list, func(o offered) bool { return o.By != byShipped }) {
				fmt.Fprintln(c.OutOrStdout(), "nobody whom this node knows publishes a definition of these")
			}
			t := cli.NewTable(c.OutOrStdout(), "TOPIC", "CATEGORY", "BY", "SIGNED", "HERE", "WHAT")
			for _, o := range list {
				signed, what := "-", o.Title
				if !o.Issued.IsZero() {
					signed = o.Issued.Format(time.DateOnly)
				}
				if o.Fault != "" {
					what = "it cannot be used: " + o.Fault
				}
				t.Row(string(o.Topic), o.Category, o.By, signed, o.State, cli.Printable(what))
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&category, "category", "", "only those of this category")
	return c
}
