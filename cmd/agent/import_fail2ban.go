package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/detect/span"
	"banmesh/topics"
)

// newImportCommand brings in what other programs were told.
func newImportCommand(p *paths) *cobra.Command {
	return group("import", "Take over the configuration of other programs", newImportFail2banCommand(p))
}

func newImportFail2banCommand(p *paths) *cobra.Command {
	var (
		dir            string
		dryRun, noBans bool
	)
	c := &cobra.Command{
		Use:   "fail2ban",
		Short: "Turn fail2ban's enabled jails into topics, and take over its bans",
		Long: `Read fail2ban's configuration and show what each enabled jail becomes: its topic, where its log is,
its thresholds, what is closed to offenders; and what cannot be carried over, and why. Then write
one definition for each jail, switch detection on for it, and take over the bans in force when
both fail2ban and the agent are running. fail2ban itself is left as it is: stop it afterwards.
` + cli.ExitHelp,
		Example: "  agent import fail2ban --dry-run\n  sudo agent import fail2ban && sudo agent reload && sudo systemctl disable --now fail2ban",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			all, err := detect.ImportJails(dir)
			if len(all) == 0 && err == nil {
				err = cli.Hint(fmt.Errorf("%s enables no jail", dir), "set enabled = true for the jails that you want in %s/jail.local", dir)
			}
			printImported(out, all)
			if dryRun || len(all) == 0 {
				return err
			}
			if writing := writeImported(out, p, all); writing != nil {
				return errors.Join(err, writing)
			}
			if !noBans {
				takeOverBans(c.Context(), out, p, all)
			}
			fmt.Fprintln(out, "\nNext: `agent reload`, and stop fail2ban when `agent status` shows what you expect.")
			if err != nil {
				return &cli.Error{Err: err, Code: cli.ExitPartly, Hint: "the other jails were imported"}
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", detect.DefaultFail2banDir, "`directory` of fail2ban's configuration")
	f.BoolVar(&dryRun, "dry-run", false, "show what would be done and change nothing")
	f.BoolVar(&noBans, "no-bans", false, "leave the bans in force alone")
	return c
}

func printImported(w io.Writer, all []detect.Imported) {
	for _, i := range all {
		d := i.Definition.Detect
		fmt.Fprintf(w, "jail %s -> topic %s\n", i.Jail, i.Definition.Name)
		if len(d.Journal) > 0 {
			fmt.Fprintf(w, "  journal    %s\n", strings.Join(d.Journal, " | "))
		}
		for _, path := range d.Files {
			note := ""
			if found, err := filepath.Glob(path); err == nil && len(found) == 0 {
				note = "   (no such file yet; it is waited for)"
			}
			fmt.Fprintf(w, "  file       %s%s\n", path, note)
		}
		fmt.Fprintf(w, "  offences   %d expressions (%s)\n", len(d.Rules[0].Regex), d.Rules[0].Class)
		fmt.Fprintf(w, "  ban        after %d within %s, for %s\n", d.MaxRetry, span.Format(d.FindTime.Duration()), banTimeText(d))
		fmt.Fprintf(w, "  closes     %s\n", closesText(i.Definition.Enforce))
		if len(d.IgnoreIP) > 0 {
			fmt.Fprintf(w, "  never      %s\n", strings.Join(d.IgnoreIP, " "))
		}
		for _, warning := range i.Warnings {
			fmt.Fprintf(w, "  warning    %s\n", cli.Printable(warning))
		}
	}
}

func banTimeText(d *topics.Detect) string {
	text := span.Format(d.BanTime.Duration())
	if d.BanTime.Duration() == span.Permanent {
		text = "ever"
	}
	if d.Increment.Enabled {
		text += ", longer each time"
	}
	return text
}

func closesText(e topics.Enforce) string {
	if e.AllPorts {
		return "all ports"
	}
	return strings.Join(e.Protocols, ",") + " " + strings.Join(e.Ports, ",")
}

// writeImported writes a definition for each jail, and switches detection on.
func writeImported(w io.Writer, p *paths, all []detect.Imported) error {
	dir := filepath.Join(p.config, "topics.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing definitions: %w", err)
	}
	const mode = 0o644
	for _, i := range all {
		text := topics.Format(i.Definition)
		path := filepath.Join(dir, string(i.Definition.Name)+".toml")
		if _, err := topics.Parse(path, text); err != nil {
			return fmt.Errorf("jail %s: %w", i.Jail, err)
		}
		if err := config.WriteAtomic(path, text, mode); err != nil {
			return err
		}
		fmt.Fprintf(w, "wrote %s\n", path)
	}
	path, err := config.EditDropIn(p.config, "fail2ban", func(tree map[string]any) error {
		for _, i := range all {
			config.Table(tree, "topics", string(i.Definition.Name))["detect"] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "wrote %s\n", path)
	return nil
}

// A ban in force, as `fail2ban-client get JAIL banip --with-time` prints it:
// "192.0.2.1 	2026-11-21 10:00:00 + 600 = 2026-11-21 10:10:00".
var banInForce = regexp.MustCompile(`^\s*(\S+)\s+\S+ \S+ \+ (-?\d+) = (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\s*$`)

// bansInForce reads that output.
func bansInForce(r io.Reader, now time.Time) (list []control.BanRequest) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		m := banInForce.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		target, err := ban.ParseTarget(m[1])
		if err != nil {
			continue
		}
		end, err := time.ParseInLocation(time.DateTime, m[3], time.Local)
		if err != nil {
			continue
		}
		left := end.Sub(now)
		const longest = 10 * 365 * 24 * time.Hour
		if m[2] == "-1" || left > longest {
			left = longest
		}
		if left > 0 {
			list = append(list, control.BanRequest{Target: target, For: int64(left.Seconds())})
		}
	}
	return list
}

// takeOverBans asks fail2ban for its bans and gives them to the agent.
func takeOverBans(ctx context.Context, w io.Writer, p *paths, all []detect.Imported) {
	if _, err := exec.LookPath("fail2ban-client"); err != nil {
		fmt.Fprintln(w, "no bans taken over: fail2ban-client is not installed")
		return
	}
	taken := 0
	for _, i := range all {
		if strings.HasPrefix(i.Jail, "-") {
			continue
		}
		out, err := exec.CommandContext(ctx, "fail2ban-client", "get", i.Jail, "banip", "--with-time").Output()
		if err != nil {
			fmt.Fprintf(w, "no bans taken over from jail %s: fail2ban is not running, or has no such jail\n", i.Jail)
			continue
		}
		class := i.Definition.Detect.Rules[0].Class
		for _, request := range bansInForce(strings.NewReader(string(out)), time.Now()) {
			request.Topic, request.Class = i.Definition.Name, &class
			if err := p.client().Post(ctx, "/v1/bans", request, nil); err != nil {
				fmt.Fprintf(w, "bans not taken over: %v; run this again while the agent runs\n", err)
				return
			}
			taken++
		}
	}
	fmt.Fprintf(w, "took over %d bans\n", taken)
}
