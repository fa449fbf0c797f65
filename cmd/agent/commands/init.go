package commands

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/detect"
	"banmesh/internal/doctor"
	"banmesh/internal/hostscan"
	"banmesh/internal/settings"
	"banmesh/internal/strict"
	"banmesh/topics"
)

// setup is the answers of a person, or of flags, to the questions of init.
type setup struct {
	yes, enforce, observe, noStart, noTest bool
	topics, publish, allow                 []string
	network                                string
	root                                   string // of the machine; for tests
}

func newInitCommand(p *paths) *cobra.Command {
	s := &setup{root: "/"}
	c := &cobra.Command{
		Use: "init", Short: "Look at this machine and set it up",
		Example: "  sudo banmesh init\n  sudo banmesh init --yes --enforce --allow 198.51.100.7\n  sudo banmesh init --network invitation.txt",
		Long: `Look at the services of this machine and their logs, propose which ones to watch, and write that into
conf.d/init.toml after showing it. The defaults are safe: offenders are found and shown and nobody is
banned until --enforce or ` + "`agent topics`" + ` says so, nothing is published, and no network is joined.
Run again it proposes the answers that were given before, and tells what is new. With systemd and as root it
starts the service, and at last bans an address for real, in a network that is made for it and taken away again.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return s.run(c, p) },
	}
	f := c.Flags()
	f.BoolVar(&s.yes, "yes", false, "take the proposed answers, ask nothing")
	f.BoolVar(&s.enforce, "enforce", false, "ban offenders; without it they are found, and nobody is banned")
	f.BoolVar(&s.observe, "observe", false, "find offenders and ban nobody, also where an earlier run said --enforce")
	f.BoolVar(&s.noStart, "no-start", false, "do not start the service")
	f.BoolVar(&s.noTest, "no-selftest", false, "do not ban an address in a network made for that at the end")
	f.StringSliceVar(&s.topics, "topics", nil, "watch these topics in place of those that are found")
	f.StringSliceVar(&s.publish, "publish", nil, "share this node's bans in these topics")
	f.StringSliceVar(&s.allow, "allow", nil, "addresses and networks that nobody may ban: your own")
	f.StringVar(&s.network, "network", "", "join a network: an invitation, or a file that holds one")
	c.MarkFlagsMutuallyExclusive("enforce", "observe")
	return c
}

// before holds the answers of an earlier run.
type initBefore struct {
	exists                 bool
	simulate               bool
	topics, publish, allow []string
}

func (s *setup) run(c *cobra.Command, p *paths) error {
	if _, err := settings.Load(p.config, p.state); err != nil {
		return err
	}
	was, err := s.earlier(p)
	if err != nil {
		return err
	}
	definitions, err := loadTopics(p)
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	report := hostscan.Look(s.root, definitions)
	chosen, err := s.propose(c.Context(), out, report, definitions, was)
	if err != nil {
		return err
	}
	q := newQuestions(c, s.yes)
	enforce := s.enforce || was.exists && !was.simulate && !s.observe
	if !s.enforce && !s.observe {
		enforce = q.ask("Ban offenders now? (no: find and show them, ban nobody)", enforce)
	}
	if !s.yes && len(s.allow) == 0 && q.terminal {
		s.allow = q.list("Addresses of yours that nobody may ever ban (logged-in administrators, gateways and resolvers are known already)")
	}
	s.remember(was)
	if !s.yes && len(s.publish) == 0 && len(chosen) > 0 && q.terminal &&
		q.ask("Share this server's bans with others? (address, class of the offence, a count, an end; no log line, user or host name)", false) {
		for _, f := range chosen {
			s.publish = append(s.publish, string(f.Definition.Name))
		}
	}
	if !s.yes && s.network == "" && q.terminal {
		s.network = q.line("Join a network of others? Paste its invitation, or nothing (a server of your own joins later, with `banmesh pair`)")
	}
	if len(chosen) == 0 {
		return cli.Hint(fmt.Errorf("no service with a log that a topic knows was found"), "`agent topics list` names the topics, and --topics sshd chooses one all the same")
	}
	fmt.Fprintf(out, "\nThis is written to %s/%s/init.toml:\n", p.config, config.DropInDirectory)
	tree, err := s.tree(chosen, enforce)
	if err != nil {
		return err
	}
	if err := printTree(out, tree); err != nil {
		return err
	}
	if !s.yes && !q.terminal || !q.ask("Write it?", true) {
		return &cli.Error{Err: fmt.Errorf("nothing was written"), Code: cli.ExitPartly, Hint: "--yes writes it without a question"}
	}
	written, err := p.edit("init", func(t map[string]any) error {
		clear(t)
		for k, v := range tree {
			t[k] = v
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := settings.Load(p.config, p.state); err != nil {
		return errors.Join(err, written.undo())
	}
	if err := written.takeOver(c, true); err != nil {
		return err
	}
	if s.network != "" {
		v, err := readInvitation(s.network)
		if err != nil {
			return err
		}
		if err := printInvitation(out, v); err != nil {
			return err
		}
		if !q.ask("Join this network, use these brokers and trust these operators?", s.yes) {
			return &cli.Error{Err: fmt.Errorf("the network was not joined"), Code: cli.ExitPartly}
		}
		if err := join(c, p, v, true); err != nil {
			return err
		}
	}
	err = errors.Join(s.start(c, p, enforce), s.selftest(c))
	if err == nil && s.network == "" {
		fmt.Fprintln(out, "another server of yours joins with `banmesh pair`")
	}
	return err
}

// remember takes the answers of before where nobody gave others.
func (s *setup) remember(was initBefore) {
	if len(s.publish) == 0 {
		s.publish = was.publish
		if len(s.topics) > 0 { // those that are watched no more have nothing to share
			s.publish = slices.DeleteFunc(slices.Clone(s.publish), func(name string) bool { return !slices.Contains(s.topics, name) })
		}
	}
	for _, x := range was.allow {
		if !slices.Contains(s.allow, x) {
			s.allow = append(s.allow, x)
		}
	}
}

// selftest shows that this machine's kernel bans.
func (s *setup) selftest(c *cobra.Command) error {
	switch {
	case s.noTest:
		return nil
	case os.Geteuid() != 0:
		fmt.Fprintln(c.OutOrStdout(), "`sudo banmesh selftest` bans an address for real, in a network that is made for it and taken away again")
		return nil
	}
	return newSelftestCommand().RunE(c, nil)
}

// earlier reads the files of an earlier run.
func (s *setup) earlier(p *paths) (b initBefore, err error) {
	_, err = config.EditDropIn(p.config, "init", func(tree map[string]any) error {
		b.exists = len(tree) > 0
		all, _ := tree["topics"].(map[string]any)
		for name, x := range all {
			b.topics = append(b.topics, name)
			t, _ := x.(map[string]any)
			b.simulate = b.simulate || t["simulate"] == true
			if t["publish"] == true {
				b.publish = append(b.publish, name)
			}
		}
		slices.Sort(b.topics)
		slices.Sort(b.publish)
		never, _ := tree["never_ban"].([]any)
		for _, x := range never {
			if entry, ok := x.(map[string]any); ok {
				b.allow = append(b.allow, fmt.Sprint(entry["target"]))
			}
		}
		return errLook
	})
	if errors.Is(err, errLook) {
		err = nil
	}
	slices.Sort(b.topics)
	return b, err
}

// errLook ends an edit that only reads.
var errLook = errors.New("only looked at")

// propose prints the findings and gives the topics to watch.
func (s *setup) propose(ctx context.Context, out io.Writer, report *hostscan.Report, definitions []*topics.Definition, was initBefore) (chosen []hostscan.Found, err error) {
	if len(s.topics) > 0 {
		for _, name := range s.topics {
			i := slices.IndexFunc(definitions, func(d *topics.Definition) bool { return string(d.Name) == name && d.Detect != nil })
			if i < 0 {
				return nil, &cli.Error{Err: fmt.Errorf("no topic %q finds offenders", name), Code: cli.ExitUsage, Hint: "see `agent topics list`"}
			}
			f := hostscan.Asked(s.root, definitions[i])
			if k := slices.IndexFunc(report.Topics, func(f hostscan.Found) bool { return f.Definition == definitions[i] }); k >= 0 {
				f = report.Topics[k]
			}
			chosen = append(chosen, f)
		}
	} else {
		for _, f := range report.Topics {
			if f.HasLog() {
				chosen = append(chosen, f)
			}
		}
		// A topic that was chosen before stays, whether its service is seen today or not.
		for _, name := range was.topics {
			i := slices.IndexFunc(definitions, func(d *topics.Definition) bool { return string(d.Name) == name && d.Detect != nil })
			if i >= 0 && !slices.ContainsFunc(chosen, func(f hostscan.Found) bool { return f.Definition == definitions[i] }) {
				f := hostscan.Asked(s.root, definitions[i])
				f.Why = "chosen before"
				chosen = append(chosen, f)
			}
		}
	}
	t := cli.NewTable(out, "TOPIC", "WHY", "LOG", "LAST LINES", "")
	for _, f := range report.Topics {
		if !f.HasLog() {
			t.Row(string(f.Definition.Name), f.Why, "none that the topic knows", "", "not watched")
		}
	}
	for _, f := range chosen {
		mark := ""
		if was.exists && !slices.Contains(was.topics, string(f.Definition.Name)) {
			mark = "new"
		}
		where, known := logOf(f), s.known(ctx, f, definitions)
		if os.Geteuid() == 0 && !f.Journal {
			if held := doctor.Withheld(f.Files); len(held) > 0 {
				known, mark = "the service may not read it", "fix: "+held[0].Fix
			}
		}
		t.Row(string(f.Definition.Name), f.Why, where, known, mark)
	}
	if err := t.Flush(); err != nil {
		return nil, err
	}
	for _, o := range report.Others {
		fmt.Fprintf(out, "%s %s\n", o.Name, o.Text)
	}
	if report.Docker != "" && report.Docker != "json-file" && report.Docker != "local" && report.Docker != "journald" {
		fmt.Fprintf(out, "Docker logs by its driver %q: see \"Containers\" in docs/recipes.md\n", report.Docker)
	}
	return chosen, nil
}

func logOf(f hostscan.Found) string {
	var list []string
	if f.Journal {
		list = append(list, "journal")
	} else {
		list = append(list, f.Files...)
	}
	for _, c := range f.Containers {
		list = append(list, "container "+c)
	}
	if len(list) > 2 {
		list = append(list[:2], fmt.Sprintf("and %d more", len(list)-2))
	}
	return strings.Join(list, ", ")
}

// trialBytes is how much of a log's end is tried.
const trialBytes = 256 << 10

// known tries the topic on the end of a log file.
func (s *setup) known(ctx context.Context, f hostscan.Found, definitions []*topics.Definition) string {
	if f.Journal || len(f.Files) == 0 {
		return ""
	}
	file, err := os.Open(f.Files[len(f.Files)-1])
	if err != nil {
		return "not readable"
	}
	defer file.Close()
	if end, err := file.Seek(0, io.SeekEnd); err == nil {
		if _, err := file.Seek(max(0, end-trialBytes), io.SeekStart); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(io.LimitReader(file, trialBytes))
	if err != nil {
		return "not readable"
	}
	t := detect.Trial{Spec: string(f.Definition.Name), Topics: definitions, Log: "-", In: bytes.NewReader(text), Fail2banDir: detect.DefaultFail2banDir}
	r, err := t.Run(ctx)
	if err != nil {
		return "the topic's filter does not run"
	}
	return fmt.Sprintf("%d lines, %d offences", r.Lines, r.Matched)
}

// tree is the drop-in file.
func (s *setup) tree(chosen []hostscan.Found, enforce bool) (map[string]any, error) {
	all := map[string]any{}
	for _, f := range chosen {
		one := map[string]any{"detect": true}
		if !enforce {
			one["simulate"] = true
		}
		// A service on another port than the topic's would be banned where it is not.
		if len(f.Ports) > 0 && !f.Definition.Enforce.AllPorts && f.Definition.Name == "sshd" && !slices.Equal(f.Ports, []uint16{22}) {
			ports := make([]any, len(f.Ports))
			for i, p := range f.Ports {
				ports[i] = int64(p)
			}
			one["ports"] = ports
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
		fmt.Fprintf(out, "the agent runs; %s\n", next)
		return nil
	case s.noStart || s.root != "/" || os.Geteuid() != 0 || systemd != nil || err != nil || p.config != "/etc/banmesh":
		fmt.Fprintf(out, "start it with `agent run`, or `systemctl enable --now banmesh-agent` where the package is installed\n")
		return nil
	}
	if text, err := exec.CommandContext(c.Context(), "systemctl", "enable", "--now", unit).CombinedOutput(); err != nil {
		return cli.Hint(fmt.Errorf("starting %s: %w: %s", unit, err, strings.TrimSpace(string(text))), "`journalctl -u banmesh-agent` says why")
	}
	fmt.Fprintf(out, "the service %s is started, and starts at every boot; %s\n", unit, next)
	return nil
}

// questions asks a person, or takes the proposed answers.
type questions struct {
	in       *bufio.Reader
	out      io.Writer
	terminal bool
	yes      bool
}

func newQuestions(c *cobra.Command, yes bool) *questions {
	q := &questions{in: bufio.NewReader(c.InOrStdin()), out: c.OutOrStdout(), yes: yes}
	if f, ok := c.InOrStdin().(*os.File); ok {
		q.terminal = term.IsTerminal(int(f.Fd()))
	}
	return q
}

// ask asks a question; without a terminal the answer is the proposed one.
func (q *questions) ask(text string, proposed bool) bool {
	if q.yes || !q.terminal {
		return proposed
	}
	choice := "[y/N]"
	if proposed {
		choice = "[Y/n]"
	}
	fmt.Fprintf(q.out, "%s %s ", text, choice)
	line, _ := q.in.ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true
	case "n", "no":
		return false
	}
	return proposed
}

// line asks for one line.
func (q *questions) line(text string) string {
	fmt.Fprintf(q.out, "%s: ", text)
	line, _ := q.in.ReadString('\n')
	return strings.TrimSpace(line)
}

// list asks for words.
func (q *questions) list(text string) []string {
	fmt.Fprintf(q.out, "%s: ", text)
	line, _ := q.in.ReadString('\n')
	return strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' })
}
