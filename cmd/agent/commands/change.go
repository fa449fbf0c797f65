package commands

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/settings"
)

// A change is a drop-in file that a command has changed, and that the running
// agent has not read yet.
type change struct {
	p      *paths
	path   string
	old    []byte             // nil: there was no file
	before *settings.Settings // nil: it could not be read
	// also puts back a second file that the change wrote; may be nil.
	also func() error
}

// edit changes a drop-in file. The result is undone or taken over by its
// methods.
func (p *paths) edit(name string, f func(tree map[string]any) error) (*change, error) {
	x := &change{p: p, path: filepath.Join(p.config, config.DropInDirectory, name+".toml")}
	x.before, _ = settings.Load(p.config, p.state)
	var err error
	if x.old, err = os.ReadFile(x.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var before, after map[string]string
	if _, err := config.EditDropIn(p.config, name, func(tree map[string]any) error {
		before = switchesIn(tree)
		defer func() { after = switchesIn(tree) }()
		return f(tree)
	}); err != nil {
		return nil, err
	}
	for key, value := range after {
		topic, field, _ := strings.Cut(key, " ")
		if before[key] == value {
			continue
		}
		if err := x.overrule(topic, field); err != nil {
			return nil, errors.Join(err, x.undo())
		}
	}
	return x, nil
}

// switchesIn gives the switches of topics in a drop-in file, by topic and name.
func switchesIn(tree map[string]any) map[string]string {
	list := map[string]string{}
	topics, _ := tree["topics"].(map[string]any)
	for topic, keys := range topics {
		keys, _ := keys.(map[string]any)
		for _, field := range []string{"detect", "subscribe", "publish"} {
			if value, ok := keys[field]; ok {
				list[topic+" "+field] = fmt.Sprint(value)
			}
		}
	}
	return list
}

// overrule takes a switch that was set on the page away, where it would win over the file
// that a person has a command write now.
func (x *change) overrule(topic, field string) error {
	before, err := config.SetSwitch(x.p.state, topic, field, nil)
	if errors.Is(err, fs.ErrPermission) {
		return cli.Hint(err, "a switch that was set on the page wins over the configuration, and you may not take it away: use sudo. Nothing was changed")
	}
	if err != nil || before == nil {
		return err
	}
	also := x.also
	x.also = func() error {
		_, err := config.SetSwitch(x.p.state, topic, field, before)
		if also != nil {
			err = errors.Join(err, also())
		}
		return err
	}
	return nil
}

// undo puts the file back as it was.
func (x *change) undo() error {
	err := restoreFile(x.path, x.old)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if x.also != nil {
		err = errors.Join(err, x.also())
	}
	return err
}

// takeOver tells the effect of the change, asks where it ends more than a
// handful of bans, and lets the running agent follow. Where the answer is no the
// file is as it was before. An agent that does not run reads the file when it
// starts.
func (x *change) takeOver(c *cobra.Command, yes bool) error {
	return x.takeOverBeyond(c, yes, control.Handful, math.MaxInt)
}

// takeOverBeyond is [change.takeOver], and asks where the change ends or begins more bans
// than that.
func (x *change) takeOverBeyond(c *cobra.Command, yes bool, ends, begins int) error {
	var e control.Effect
	err := x.p.client().Post(c.Context(), "/v1/reload", control.ReloadRequest{Dry: true}, &e)
	switch {
	case errors.Is(err, control.ErrNotRunning):
		if after, err := settings.Load(x.p.config, x.p.state); err == nil {
			printRuleChanges(c.OutOrStdout(), rulesBetween(x.before, after))
		}
		return reload(c, x.p, x.path)
	case err != nil:
		return notTaken(x.path, err)
	}
	printEffect(c.OutOrStdout(), e)
	if !yes && (e.End > ends || e.Begin > begins) {
		text := fmt.Sprintf("this ends %s", plural(e.End, "ban"))
		if e.Begin > begins {
			text = fmt.Sprintf("this begins %s and ends %d", plural(e.Begin, "ban"), e.End)
		}
		if err := ask(c, text); err != nil {
			return errors.Join(err, x.undo())
		}
	}
	return reload(c, x.p, x.path)
}

// reload tells a running agent that a file changed, the effect of which is known
// to the person; one that does not run reads it when it starts.
func reload(c *cobra.Command, p *paths, path string) error {
	var e control.Effect
	err := p.client().Post(c.Context(), "/v1/reload", control.ReloadRequest{Yes: true}, &e)
	switch {
	case errors.Is(err, control.ErrNotRunning):
		fmt.Fprintf(c.OutOrStdout(), "written to %s; the agent is not running and will read it when it starts\n", path)
		return nil
	case err != nil:
		return notTaken(path, err)
	}
	fmt.Fprintf(c.OutOrStdout(), "written to %s; the running agent follows\n", path)
	printKernelLags(c.OutOrStdout(), e.Kernel)
	return nil
}

// notTaken is the fault of a file that is written, and that the running agent refused.
func notTaken(path string, err error) error {
	if errors.Is(err, control.ErrUnanswered) {
		return cli.Hint(fmt.Errorf("written to %s, and the running agent did not say whether it follows: %w", path, err), "an agent reads the file when it starts, or by `agent reload`")
	}
	hint := "see `agent check`"
	if refused, ok := errors.AsType[*control.RefusedError](err); ok && refused.Hint != "" {
		hint = refused.Hint
	}
	return cli.Hint(fmt.Errorf("written to %s, but the running agent did not take it: %w", path, err), "%s", hint)
}

// wantsRestart says whether a running agent refused a change because only a restart
// brings it about.
func wantsRestart(err error) bool {
	refused, ok := errors.AsType[*control.RefusedError](err)
	return ok && refused.Code == control.CodeRestart
}

func rulesBetween(before, after *settings.Settings) (list []control.RuleChange) {
	for _, x := range settings.RuleChanges(before, after) {
		list = append(list, control.RuleChange{Topic: x.Topic, Before: control.Rules(x.Before), After: control.Rules(x.After)})
	}
	return list
}

// printEffect says which rules change and how many bans begin and end.
func printEffect(w io.Writer, e control.Effect) {
	printRuleChanges(w, e.Rules)
	switch {
	case e.Begin+e.End+e.Watched+e.Unwatched > 0:
		fmt.Fprintf(w, "now %s and %s", verb(e.Begin, "ban begins", "bans begin"), verb(e.End, "ends", "end"))
		if e.Watched+e.Unwatched > 0 {
			fmt.Fprintf(w, "; %s watched, %s no longer", verb(e.Watched, "target is", "targets are"), verb(e.Unwatched, "is", "are"))
		}
		fmt.Fprintln(w)
	case len(e.Rules) > 0:
		fmt.Fprintln(w, "no ban begins or ends by that now")
	}
	for _, b := range e.Begins {
		fmt.Fprintf(w, "  begins  %s in %s: %s\n", b.Target, b.Topic, because(b))
	}
	for _, b := range e.Ends {
		fmt.Fprintf(w, "  ends    %s in %s: %s\n", b.Target, b.Topic, because(b))
	}
}

func because(b control.EffectBan) string {
	if b.Rule == "" {
		return cli.Printable(b.Sentence)
	}
	return cli.Printable(b.Sentence + ": " + b.Rule)
}

// printRuleChanges says rules before and after, those that differ.
func printRuleChanges(w io.Writer, list []control.RuleChange) {
	for _, x := range list {
		switch {
		case !x.After.Accept:
			fmt.Fprintf(w, "%s: nothing of others counts any more\n", x.Topic)
			continue
		case !x.Before.Accept:
			fmt.Fprintf(w, "%s: claims of others count from now on\n", x.Topic)
		default:
			fmt.Fprintf(w, "%s: the rules change\n", x.Topic)
		}
		for _, r := range []struct{ key, before, after string }{
			{"ban", x.Before.Ban, x.After.Ban},
			{"watch", x.Before.Watch, x.After.Watch},
			{"suspect", x.Before.Suspect, x.After.Suspect},
			{"require", x.Before.Require, x.After.Require},
		} {
			switch {
			case r.before == r.after:
			case !x.Before.Accept:
				fmt.Fprintf(w, "  %-8s %s\n", r.key, rule(r.after))
			default:
				fmt.Fprintf(w, "  %-8s was %s\n  %-8s is  %s\n", r.key, rule(r.before), "", rule(r.after))
			}
		}
	}
}

// rule says an expression, or that there is none.
func rule(s string) string {
	if s == "" {
		return "nobody"
	}
	return cli.Printable(s)
}
