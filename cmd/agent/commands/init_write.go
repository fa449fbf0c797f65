package commands

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/hostscan"
	"banmesh/internal/strict"
)

// tree is the drop-in file.
func (s *setup) tree(chosen []hostscan.Found, enforce bool) (map[string]any, error) {
	all := map[string]any{}
	for _, f := range chosen {
		one := map[string]any{"detect": true}
		if !enforce {
			one["observe"] = true
		}
		if ports := f.Elsewhere(); len(ports) > 0 {
			one["ports"] = ports
		}
		if journal := journaled(f); len(journal) > 0 {
			one["journal"], one["both"] = slices.Concat(shippedJournal(f), journal), true
		}
		all[string(f.Definition.Name)] = one
	}
	for _, name := range s.publish {
		topic, err := ban.ParseTopic(name)
		if err != nil {
			return nil, &cli.Error{Err: err, Code: cli.ExitUsage}
		}
		one, ok := all[string(topic)].(map[string]any)
		if !ok {
			return nil, &cli.Error{Err: fmt.Errorf("%s is not watched here, so there is nothing to publish", topic), Code: cli.ExitUsage}
		}
		one["publish"] = true
	}
	tree := map[string]any{"topics": all}
	var never []any
	for _, text := range s.allow {
		target, err := ban.ParseTarget(strings.TrimSpace(text))
		if err != nil {
			return nil, &cli.Error{Err: fmt.Errorf("--allow %s: %w", text, err), Code: cli.ExitUsage}
		}
		never = append(never, map[string]any{"target": target.String(), "comment": "said at init"})
	}
	if never != nil {
		tree["never_ban"] = never
	}
	return tree, nil
}

// printTree shows the file as it will be.
func printTree(out io.Writer, tree map[string]any) error {
	b, err := strict.Encode(tree)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		fmt.Fprintf(out, "  %s", line)
	}
	return nil
}

// unit is the service of the agent.
const unit = "banmesh-agent.service"

// start starts the service where systemd rules this machine and has it.
func (s *setup) start(c *cobra.Command, p *paths, enforce bool) error {
	out := c.OutOrStdout()
	next := "`agent status` shows it"
	if !enforce {
		next += "; `agent bans` whom it would ban. `banmesh init --enforce` bans them"
	}
	running := p.client().Get(c.Context(), "/v1/status", nil, &struct{}{}) == nil
	_, systemd := os.Stat("/run/systemd/system")
	_, err := exec.LookPath("systemctl")
	switch {
	case running:
		say(out, "the agent runs; %s", next)
		return nil
	case s.noStart || s.root != "/" || os.Geteuid() != 0 || systemd != nil || err != nil || p.config != "/etc/banmesh":
		say(out, "start it with `agent run`, or `systemctl enable --now banmesh-agent` where the package is installed")
		return nil
	}
	if text, err := exec.CommandContext(c.Context(), "systemctl", "enable", "--now", unit).CombinedOutput(); err != nil {
		return cli.Hint(fmt.Errorf("starting %s: %w: %s", unit, err, strings.TrimSpace(string(text))), "`journalctl -u banmesh-agent` says why")
	}
	say(out, "the service %s is started, and starts at every boot; %s", unit, next)
	return nil
}

// selftest shows that this machine's kernel bans.
func (s *setup) selftest(c *cobra.Command) error {
	switch {
	case s.noTest:
		return nil
	case os.Geteuid() != 0:
		say(c.OutOrStdout(), "`sudo banmesh selftest` bans an address for real, in a network that is made for it and taken away again")
		return nil
	}
	return newSelftestCommand().RunE(c, nil)
}
