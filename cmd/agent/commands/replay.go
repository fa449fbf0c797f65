package commands

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/detect"
	"banmesh/internal/printable"
)

// newReplayCommand lists the bans that would have been made.
func newReplayCommand(p *paths) *cobra.Command {
	var (
		asJSON bool
		only   []string
		now    string
	)
	c := &cobra.Command{
		Use:   "replay LOG",
		Short: "Say what a log would have got banned, and when; nothing is banned",
		Long: `Read a log from its beginning, with its own times as the clock, and say what each topic would
have banned, when and until when. Nothing is banned, saved or sent. LOG "-" is standard input.
` + cli.ExitHelp,
		Example: "  agent replay --topic sshd /var/log/auth.log\n  agent replay --json /var/log/auth.log.1",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			collectRarely()
			jails, err := detectingTopics(p, only)
			if err != nil {
				return err
			}
			at, err := parseMoment(now)
			if err != nil {
				return err
			}
			if at.IsZero() {
				at = time.Now()
			}
			in := c.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("opening the log: %w", err)
				}
				defer file.Close()
				in = file
			}
			return replay(c, jails, in, args[0], at, asJSON)
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print one JSON object for each ban")
	f.StringSliceVar(&only, "topic", nil, "ask these `topics` only")
	f.StringVar(&now, "now", "", "`time` that dates without a year are near to (RFC 3339 or seconds since 1970)")
	return c
}

// collectRarely lets the heap grow to some tens of megabytes before it is collected: a command
// that reads a log and ends need not be small, and collecting took a fifth of its time.
func collectRarely() {
	const growth = 400 // percent
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(growth)
	}
}

func replay(c *cobra.Command, jails []detect.Jail, in io.Reader, name string, at time.Time, asJSON bool) error {
	out := c.OutOrStdout()
	encoder := json.NewEncoder(printable.JSONWriter(out))
	encoder.SetEscapeHTML(false)
	bans := 0
	status, err := detect.Replay(c.Context(), detect.Options{Jails: jails}, in, name, at, func(v detect.Decision) error {
		bans++
		if asJSON {
			return encoder.Encode(v)
		}
		_, err := fmt.Fprintf(out, "%s  %-10s %-24s %3d hits (%s) since %s, until %s\n", v.Last.Local().Format(time.DateTime), v.Topic, v.Target,
			v.Hits, v.Class, v.First.Local().Format(time.TimeOnly), v.End.Local().Format(time.DateTime))
		return err
	})
	if err != nil || asJSON {
		return err
	}
	fmt.Fprintln(out)
	t := cli.NewTable(out, "TOPIC", "OFFENCES", "IGNORED", "BANS", "STILL COUNTED")
	for _, j := range status.Jails {
		if j.Found+j.Ignored > 0 {
			t.Row(string(j.Topic), fmt.Sprint(j.Found), fmt.Sprint(j.Ignored), fmt.Sprint(j.Banned), fmt.Sprint(j.Tracked))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	s := status.Sources[0]
	_, err = fmt.Fprintf(out, "%d lines: %d matched, %d ignored, %d unmatched; %s\n", s.Matched+s.Ignored+s.Unmatched, s.Matched, s.Ignored, s.Unmatched, plural(bans, "ban"))
	return err
}
