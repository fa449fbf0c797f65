package commands

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/span"
)

func newBanCommand(p *paths) *cobra.Command {
	var asJSON bool
	var topic, lasts, class, by, file string
	var hits int
	c := &cobra.Command{
		Use:   "ban TARGET...",
		Short: "Ban addresses, prefixes or wallets by hand",
		Example: "  agent ban 203.0.113.7\n  agent ban 203.0.113.0/24 --topic sshd --for 2d\n" +
			"  scanner --list | agent ban --from-file - --by scanner --hits 5 --class scan",
		Long: `Ban addresses, prefixes or wallets by hand, in a topic. It is shared if the topic is published. What is
on the never-ban list is refused. Times read as fail2ban's: 90s, 10m, 6h, 2d, 1w, 1mo, 1y; 90 days are the most.

--from-file reads one target a line, comments after #; "-" is standard input. --by says which program bans: only its own
bans can be withdrawn with ` + "`agent withdraw --by`" + `, a person's unban beats it, and to others it is another program's ban and
not a person's decision. --hits is how often the target offended.
` + cli.ExitHelp,
		Args: anyTargets(&file, nil),
		RunE: func(c *cobra.Command, args []string) error {
			targets, err := targetsOf(c, args, file)
			if err != nil {
				return err
			}
			q := control.BanRequest{By: by, Hits: hits}
			if q.Topic, err = ban.ParseTopic(topic); err != nil {
				return cli.Usage("--topic: %v", err)
			}
			if q.For, err = seconds("--for", lasts); err != nil {
				return err
			}
			if hits < 0 || hits > ban.MaxHits {
				return cli.Usage("--hits: %d is not within 0 and %d", hits, ban.MaxHits)
			}
			if class != "" {
				v, err := ban.ParseClass(class)
				if err != nil {
					return cli.Usage("--class: %v", err)
				}
				q.Class = &v
			}
			if len(targets) == 1 && file == "" {
				q.Target = targets[0]
				return banOne(c, p, q, asJSON)
			}
			return banMany(c, p, q, targets, asJSON)
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.StringVar(&topic, "topic", "sshd", "the topic")
	f.StringVar(&lasts, "for", "", "how long (default: the topic's ban time)")
	f.StringVar(&class, "class", "", "class of offence (default: manual)")
	f.IntVar(&hits, "hits", 0, "how many offences were seen")
	f.StringVar(&by, "by", "", "the program that bans (default: a person)")
	f.StringVar(&file, "from-file", "", "a file with one target a line, or - for standard input")
	return c
}

// cutAt is said where a ban lasts less than was asked for.
const cutAt = "90 days, the longest that a ban lasts"

func banOne(c *cobra.Command, p *paths, q control.BanRequest, asJSON bool) error {
	var b control.Ban
	if err := p.client().Post(c.Context(), "/v1/bans", q, &b); err != nil {
		return err
	}
	if asJSON {
		return cli.JSON(c.OutOrStdout(), b)
	}
	fmt.Fprintf(c.OutOrStdout(), "banned %s in %s until %s\n", b.Target, b.Topic, clock(b.Until))
	if b.Cut {
		fmt.Fprintf(c.OutOrStdout(), "that is after %s\n", cutAt)
	}
	printKernelLags(c.OutOrStdout(), b.Kernel)
	return nil
}

// printKernelLags says why the kernel lags behind a command's output, if it does.
func printKernelLags(w io.Writer, why string) {
	if why != "" {
		fmt.Fprintln(w, cli.Wrap(w, 0, "  ", cli.Printable(why)))
	}
}

func banMany(c *cobra.Command, p *paths, q control.BanRequest, targets []ban.Target, asJSON bool) error {
	bans := make([]control.BanRequest, 0, len(targets))
	for _, t := range targets {
		q.Target = t
		bans = append(bans, q)
	}
	all, err := banAll(c.Context(), p.client(), bans)
	if err != nil {
		if all.Banned == 0 {
			return err
		}
		return &cli.Error{Err: fmt.Errorf("after %d of %d: %w", all.Banned, len(targets), err), Code: cli.ExitPartly, Hint: "it can be repeated: what is banned already stays as it is"}
	}
	if asJSON {
		if err := cli.JSON(c.OutOrStdout(), all); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.OutOrStdout(), "banned %s in %s\n", plural(all.Banned, "target"), q.Topic)
		if all.Cut > 0 {
			fmt.Fprintf(c.OutOrStdout(), "%s of them until %s\n", strconv.Itoa(all.Cut), cutAt)
		}
		printKernelLags(c.OutOrStdout(), all.Kernel)
	}
	return partly(all.Refused, len(targets))
}

// partly says which entries of a list were refused, the first few of them.
func partly(refused []control.Refusal, of int) error {
	if len(refused) == 0 {
		return nil
	}
	var errs []error
	for i, r := range refused {
		if i == 10 {
			break
		}
		errs = append(errs, &cli.Error{Err: errors.New(r.Error), Hint: r.Hint, Code: cli.ExitPartly})
	}
	return errors.Join(append(errs, &cli.Error{Err: fmt.Errorf("%d of %s refused", len(refused), plural(of, "target")), Code: cli.ExitPartly})...)
}

func parseTarget(s string) (ban.Target, error) {
	t, err := ban.ParseTarget(s)
	if err != nil {
		return t, &cli.Error{Err: err, Code: cli.ExitUsage, Hint: "give an address (203.0.113.7), a prefix (2001:db8::/64) or a wallet (0x and 40 hex digits)"}
	}
	return t, nil
}

// seconds reads a length of time in fail2ban's abbreviations; "" is 0.
func seconds(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	d, err := span.Parse(s)
	if err != nil {
		return 0, cli.Usage("%s: %v", flag, err)
	}
	if d < time.Second {
		return 0, cli.Usage("%s: %s is too short", flag, s)
	}
	return int64(d / time.Second), nil
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// exactly is cobra.ExactArgs with a sentence that names the missing argument.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return &cli.Error{Err: fmt.Errorf("want %s, got %s", what, plural(len(args), "argument")), Code: cli.ExitUsage, Hint: fmt.Sprintf("see `%s --help`", c.CommandPath())}
		}
		return nil
	}
}
