package commands

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/detect/f2bbans"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/settings"
	"banmesh/internal/span"
	"banmesh/topics"
)

// newImportCommand takes over the settings of other programs.
func newImportCommand(p *paths) *cobra.Command {
	return group("import", "Take over the configuration of other programs", newImportFail2banCommand(p))
}

func newImportFail2banCommand(p *paths) *cobra.Command {
	var (
		dir            string
		dryRun, noBans bool
		anyway         []string
	)
	c := &cobra.Command{
		Use:   "fail2ban",
		Short: "Turn fail2ban's enabled jails into topics, and take over its bans",
		Long: `Read fail2ban's configuration and show what each enabled jail becomes: its topic, where its log is,
its thresholds, what is closed to offenders; and what cannot be carried over, and why. Then write
one definition for each jail, switch detection on for it, tell a running agent, and give it the
bans in force: fail2ban's server is asked for them, or its database is read where it does not run.
A jail whose actions are not known to ban anybody (mail, reports, scripts of your own) finds and counts
offenders and bans nobody, unless --ban-anyway names it; one whose action lets offenders through is not
imported. Both are listed at the end, and the exit code is 3.
A definition that you wrote yourself is never replaced. fail2ban itself is left as it is: stop it
afterwards. To run its jails in place instead, set include = "` + detect.DefaultFail2banDir + `" in agent.toml.
` + cli.ExitHelp,
		Example: "  agent import fail2ban --dry-run\n  sudo agent import fail2ban && sudo systemctl disable --now fail2ban",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out := c.OutOrStdout()
			dir, err := filepath.Abs(dir) // definitions and the doctor name it
			if err != nil {
				return fmt.Errorf("finding %s: %w", dir, err)
			}
			jails, err := settings.Fail2banJails(dir, anyway...)
			if len(jails) == 0 && err == nil {
				err = cli.Hint(fmt.Errorf("%s enables no jail", dir), "set enabled = true for the jails that you want in %s/jail.local", dir)
			}
			if wrong := banAnyway(jails, anyway); wrong != nil {
				return wrong
			}
			all := slices.DeleteFunc(slices.Clone(jails), func(i detect.Imported) bool { return i.Refused.Given() })
			for i := range all {
				all[i].Refer()
			}
			printImported(out, all)
			err = errors.Join(err, printNotBanning(out, jails))
			if dryRun || len(all) == 0 {
				return err
			}
			written, path, writing := writeImported(out, p, dir, all)
			if len(written) > 0 {
				writing = errors.Join(writing, reload(c, p, path))
			}
			if !noBans && writing == nil {
				writing = takeOverBans(c.Context(), out, p, dir, written)
			}
			if partly := (*cli.Error)(nil); writing == nil && errors.As(err, &partly) && errors.Is(err, errNotBanning) {
				return err
			}
			if err = errors.Join(err, writing); err != nil {
				return &cli.Error{Err: err, Code: cli.ExitPartly, Hint: "what is named above as written was imported"}
			}
			fmt.Fprintln(out, "\nNext: see `agent status`, and stop fail2ban when it shows what you expect: systemctl disable --now fail2ban")
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", detect.DefaultFail2banDir, "`directory` of fail2ban's configuration")
	f.BoolVar(&dryRun, "dry-run", false, "show what would be done and change nothing")
	f.BoolVar(&noBans, "no-bans", false, "leave the bans in force alone")
	f.StringArrayVar(&anyway, "ban-anyway", nil, "ban whom this `jail` finds, on its ports, though the effect of its actions is not known")
	return c
}

// errNotBanning says that a jail was imported, or left out, without its bans.
var errNotBanning = errors.New("not banning")

// banAnyway checks the names that --ban-anyway gives.
func banAnyway(jails []detect.Imported, names []string) error {
	for _, name := range names {
		i := slices.IndexFunc(jails, func(j detect.Imported) bool { return j.Jail == name })
		switch {
		case i < 0:
			return cli.Usage("--ban-anyway: no jail %q is enabled", name)
		case jails[i].Refused.Given():
			return cli.Usage("--ban-anyway: jail %s: %s", name, jails[i].Refused)
		}
	}
	return nil
}

// printNotBanning lists the jails that ban nobody, with the reasons, and gives the
// error that says so.
func printNotBanning(w io.Writer, jails []detect.Imported) error {
	refused, found := detect.NotBanning(jails)
	printReasons(w, "Not imported:", refused.Lines(""))
	printReasons(w, "Found only; these find and count offenders and ban nobody:", found.Lines(""))
	switch {
	case found.Jails > 0:
		return &cli.Error{
			Err: fmt.Errorf("%s: %w", plural(found.Jails, "jail"), errNotBanning), Code: cli.ExitPartly,
			Hint: "import with --ban-anyway JAIL where offenders of a jail are to be banned on its ports",
		}
	case refused.Jails > 0:
		return &cli.Error{Err: fmt.Errorf("%s not imported: %w", plural(refused.Jails, "jail"), errNotBanning), Code: cli.ExitPartly}
	}
	return nil
}

func printReasons(w io.Writer, title string, lines []string) {
	if len(lines) > 0 {
		fmt.Fprintf(w, "\n%s\n", title)
	}
	for _, line := range lines {
		fmt.Fprintf(w, "  %s\n", cli.Printable(line))
	}
}

func printImported(w io.Writer, all []detect.Imported) {
	var doubtful, logless []string
	shared, alone := detect.SharedWarnings(all)
	for _, i := range all {
		if i.Doubtful {
			doubtful = append(doubtful, i.Jail)
		}
		note := ""
		if i.Shipped {
			note = ", the shipped one, which finds what the filter finds and more"
		}
		fmt.Fprintf(w, "jail %s -> topic %s%s\n", i.Jail, i.Definition.Name, note)
		if !printJail(w, i) {
			logless = append(logless, i.Jail)
		}
		for _, warning := range i.Warnings {
			if alone(warning) {
				fmt.Fprintf(w, "  warning    %s\n", cli.Printable(warning.String()))
			}
		}
	}
	for _, line := range shared {
		fmt.Fprintf(w, "warning: %s\n", cli.Printable(line))
	}
	if len(logless) > 0 {
		fmt.Fprintf(w, "warning: of %s (%s) no log is here, so nobody is found until one is; if the service logs to the journal, say backend = systemd in the jail and import again\n", plural(len(logless), "jail"), strings.Join(logless, ", "))
	}
	if why := detect.Unproven(doubtful); why != "" {
		fmt.Fprintf(w, "note: %s\n", why)
	}
}

// printJail shows where a jail's log is, its thresholds and its ports. It says whether
// there is a log.
func printJail(w io.Writer, i detect.Imported) bool {
	d := i.Definition.Detect
	if d == nil {
		fmt.Fprintf(w, "  ban        by hand\n  closes     %s\n", closesText(i.Definition.Enforce))
		return true
	}
	if len(d.Journal) > 0 {
		fmt.Fprintf(w, "  journal    %s\n", cli.Printable(journalText(d)))
	}
	here := len(d.Journal)
	for _, path := range d.Files {
		note := ""
		if found, err := filepath.Glob(path); err == nil && len(found) == 0 {
			note = "   (no such file yet; it is waited for)"
		} else {
			here++
		}
		fmt.Fprintf(w, "  file       %s%s\n", cli.Printable(path), note)
	}
	if d.Decisions {
		fmt.Fprintln(w, "  counts     the bans that this node decides in other topics")
	}
	switch {
	case d.Fail2ban != "":
		fmt.Fprintf(w, "  offences   of the filter %s, as it is whenever the agent starts or reloads\n", cli.Printable(d.Fail2ban))
	case i.Shipped:
		fmt.Fprintf(w, "  offences   %s\n", plural(len(d.Rules), "rule"))
	default:
		fmt.Fprintf(w, "  offences   %s (%s)%s\n", plural(len(d.Rules[0].Regex), "expression"), d.Rules[0].Class, frozenText(i))
	}
	if i.FoundOnly.Given() {
		fmt.Fprintf(w, "  ban        nobody, only found: after %d within %s\n", d.MaxRetry, span.Format(d.FindTime.Duration()))
	} else {
		fmt.Fprintf(w, "  ban        after %d within %s, for %s\n", d.MaxRetry, span.Format(d.FindTime.Duration()), banTimeText(d))
		fmt.Fprintf(w, "  closes     %s\n", closesText(i.Definition.Enforce))
	}
	if len(d.IgnoreIP) > 0 {
		fmt.Fprintf(w, "  never      %s\n", strings.Join(d.IgnoreIP, " "))
	}
	return here > 0 || len(d.Files) == 0
}

// journalText shows a definition's journal matches, and which journal they are looked
// for in where it is not this machine's own.
func journalText(d *topics.Detect) string {
	text := strings.Join(d.Journal, " | ")
	switch text {
	case topics.FilterJournal:
		text = "as the filter's journalmatch says"
	case "":
		text = "every message"
	}
	for _, in := range [][]string{{d.JournalNamespace}, d.JournalDirs, d.JournalFiles} {
		if in := strings.Join(in, " "); in != "" {
			text += ", of " + in
		}
	}
	return text
}

// frozenText says why the expressions are a copy, "" where they are none.
func frozenText(i detect.Imported) string {
	if i.Frozen == "" {
		return ""
	}
	return ", frozen as of today: " + i.Frozen
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
	protocols := e.Protocols
	if len(protocols) == 0 {
		protocols = []string{"tcp", "udp"}
	}
	return strings.Join(protocols, ",") + " " + strings.Join(e.Ports, ",")
}

// errOwn says that a file of the operator's own is in the way.
var errOwn = errors.New("it was not written by `agent import fail2ban` and is left as it is")

// writeImported writes a definition for each jail, and switches detection on
// for those. from is fail2ban's directory. Files that a person wrote are left alone and reported.
func writeImported(w io.Writer, p *paths, from string, all []detect.Imported) (written []detect.Imported, path string, err error) {
	dir := filepath.Join(p.config, settings.TopicDirectory)
	if err := config.MakeDirectory(dir); err != nil {
		return nil, "", fmt.Errorf("writing definitions: %w", err)
	}
	const mode = 0o644
	var faults []error
	for _, i := range all {
		text := settings.ImportedText(from, i, time.Now())
		path := filepath.Join(dir, string(i.Definition.Name)+".toml")
		if _, err := topics.Parse(path, topics.Format(i.Definition)); err != nil {
			faults = append(faults, fmt.Errorf("jail %s: %w", i.Jail, err))
			continue
		}
		before, err := os.ReadFile(path)
		switch {
		case err == nil && !bytes.HasPrefix(before, []byte(settings.ImportedHead)):
			faults = append(faults, fmt.Errorf("jail %s: %s: %w", i.Jail, path, errOwn))
			continue
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			faults = append(faults, fmt.Errorf("jail %s: %w", i.Jail, err))
			continue
		}
		if err := config.WriteAtomic(path, text, mode); err != nil {
			faults = append(faults, err)
			continue
		}
		fmt.Fprintf(w, "wrote %s\n", path)
		written = append(written, i)
	}
	if len(written) == 0 {
		return nil, "", errors.Join(faults...)
	}
	path, err = config.EditDropIn(p.config, "fail2ban", func(tree map[string]any) error {
		for _, i := range written {
			if i.Definition.Detect == nil {
				continue
			}
			topic := config.Table(tree, "topics", string(i.Definition.Name))
			topic["detect"] = true
			if delete(topic, "simulate"); i.FoundOnly.Given() {
				topic["simulate"] = true
			}
		}
		return nil
	})
	return written, path, errors.Join(append(faults, err)...)
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
		if m[2] == "-1" || left > f2bbans.Longest {
			left = f2bbans.Longest
		}
		if left > 0 {
			list = append(list, control.BanRequest{Target: target, For: int64(left.Seconds())})
		}
	}
	return list
}

// takeOverBans gives fail2ban's bans to the agent. Its server's answer comes
// first; where it does not run, its database says the same.
func takeOverBans(ctx context.Context, w io.Writer, p *paths, dir string, all []detect.Imported) error {
	now := time.Now()
	of, from, err := currentBans(ctx, dir, all, now)
	if err != nil {
		fmt.Fprintf(w, "no bans taken over: %v\n", err)
		return nil
	}
	var bans []control.BanRequest
	for _, i := range all {
		if i.FoundOnly.Given() {
			continue // nobody says that these were bans
		}
		class := ban.ClassAuth
		if d := i.Definition.Detect; d != nil && len(d.Rules) > 0 {
			class = d.Rules[0].Class
		}
		for _, request := range of[i.Jail] {
			request.Topic, request.Class, request.By = i.Definition.Name, &class, "fail2ban"
			bans = append(bans, request)
		}
	}
	answer, err := banAll(ctx, p.client(), bans)
	switch {
	case errors.Is(err, control.ErrNotRunning):
		fmt.Fprintln(w, "no bans taken over: the agent is not running; import again when it is")
		return nil
	case err != nil:
		return fmt.Errorf("taking over bans: %w", err)
	}
	for _, x := range answer.Refused {
		fmt.Fprintf(w, "ban of %s not taken over: %s\n", x.Target, x.Error)
	}
	cut := 0
	for _, b := range bans {
		if b.For >= int64(f2bbans.Longest/time.Second) {
			cut++
		}
	}
	if cut > 0 {
		fmt.Fprintf(w, "%s asked for longer than 90 days, the most that is kept, and end then\n", plural(cut, "ban"))
	}
	fmt.Fprintf(w, "took over %s from %s", plural(answer.Banned, "ban"), from)
	if len(answer.Refused) > 0 {
		fmt.Fprintf(w, ", %d refused", len(answer.Refused))
	}
	fmt.Fprintln(w)
	return nil
}

// currentBans gives the bans in force by jail, and who says so.
func currentBans(ctx context.Context, dir string, all []detect.Imported, now time.Time) (of map[string][]control.BanRequest, from string, err error) {
	of = map[string][]control.BanRequest{}
	if clientAnswers(ctx, dir) {
		for _, i := range all {
			if strings.HasPrefix(i.Jail, "-") {
				continue // would be an option
			}
			out, err := exec.CommandContext(ctx, fail2banClient, "-c", dir, "get", i.Jail, "banip", "--with-time").Output()
			if err == nil {
				of[i.Jail] = bansInForce(bytes.NewReader(out), now)
			}
		}
		return of, "fail2ban's server", nil
	}
	path, err := f2bconf.Database(dir)
	if err != nil {
		return nil, "", err
	}
	list, err := f2bbans.Read(path)
	if err != nil {
		return nil, "", fmt.Errorf("fail2ban does not run, and its database tells nothing: %w", err)
	}
	for _, b := range list {
		if left, ok := b.Left(now); ok {
			if target, err := ban.ParseTarget(b.IP); err == nil {
				of[b.Jail] = append(of[b.Jail], control.BanRequest{Target: target, For: int64(left.Seconds())})
			}
		}
	}
	return of, path, nil
}

// fail2banClient asks fail2ban's server.
const fail2banClient = "fail2ban-client"

// clientAnswers says that the server of a configuration runs.
func clientAnswers(ctx context.Context, dir string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, fail2banClient, "-c", dir, "ping").Run() == nil
}
