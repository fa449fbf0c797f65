package commands

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
)

// maxTargets bounds the lines of one --from-file.
const maxTargets = 1_000_000

// targetsOf reads the targets of a command: its arguments, and the lines of a
// file ("-": standard input) with one target each, comments after "#". Each
// target stands once in the result. All faults are in the error.
func targetsOf(c *cobra.Command, args []string, file string) (list []ban.Target, err error) {
	var faults []error
	for _, a := range args {
		t, err := parseTarget(a)
		if err != nil {
			faults = append(faults, err)
		}
		list = append(list, t)
	}
	if file != "" {
		read, err := readTargets(c, file)
		list, faults = append(list, read...), append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	slices.SortFunc(list, ban.Target.Compare)
	return slices.Compact(list), nil
}

func readTargets(c *cobra.Command, file string) (list []ban.Target, err error) {
	in, name := c.InOrStdin(), "standard input"
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in, name = f, file
	}
	lines := bufio.NewScanner(io.LimitReader(in, 128*maxTargets))
	var faults []error
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		t, err := ban.ParseTarget(text)
		switch {
		case err != nil && len(faults) < 10:
			faults = append(faults, &cli.Error{Err: fmt.Errorf("%s:%d: %w", name, n, err), Code: cli.ExitUsage})
		case len(list) == maxTargets:
			return nil, cli.Usage("%s has more than %d targets", name, maxTargets)
		case err == nil:
			list = append(list, t)
		}
	}
	if err := errors.Join(append(faults, lines.Err())...); err != nil {
		return nil, err
	}
	return list, nil
}

// anyTargets wants targets as arguments, from a file or all of them.
func anyTargets(file *string, all *bool) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		named := len(args) > 0 || *file != ""
		switch {
		case all != nil && *all && named:
			return cli.Usage("targets and --all: give one of the two")
		case !named && (all == nil || !*all):
			return &cli.Error{Err: errors.New("no target is given"), Code: cli.ExitUsage, Hint: fmt.Sprintf("see `%s --help`", c.CommandPath())}
		}
		return nil
	}
}

// parts gives a list in pieces of one request each.
func parts[T any](list []T) func(func([]T) bool) { return slices.Chunk(list, control.MaxBulk) }

// banAll asks for bans, many in a request. With an error the answer says how
// many are in force all the same.
func banAll(ctx context.Context, client *control.Client, bans []control.BanRequest) (all control.BanAllAnswer, err error) {
	for part := range parts(bans) {
		var a control.BanAllAnswer
		if err := client.Post(ctx, "/v1/bans/all", control.BanAllRequest{Bans: part}, &a); err != nil {
			return all, err
		}
		all.Banned, all.Cut, all.Refused = all.Banned+a.Banned, all.Cut+a.Cut, append(all.Refused, a.Refused...)
		all.Kernel = cmp.Or(a.Kernel, all.Kernel)
	}
	return all, nil
}
