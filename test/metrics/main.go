// Metrics prints figures about the code itself: long functions, exported names
// without a comment, the words of comments, the size of every package, which
// parts of the agent hold all of it, and how many deliberately broken lines the
// tests notice. Each figure is a line "figure NAME VALUE UNIT aim AIM".
//
//	go run ./test/metrics [-root .] [-mutants=false]
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
)

// baseLines is the result of [tree.lines] at commit 602824f, before the packages
// were rearranged. The rearrangement alone was to save 1,500 lines; features
// that came after it are in the figure too.
const baseLines = 62_284

func main() {
	root := flag.String("root", ".", "the repository")
	mutants := flag.Bool("mutants", true, "run the tests against every broken line of test/metrics/mutants")
	list := flag.Bool("list", false, "list the places that the figures count")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *root, *mutants, *list); err != nil {
		fmt.Fprintln(os.Stderr, "metrics: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, root string, mutants, list bool) error {
	t, err := read(root)
	if err != nil {
		return err
	}
	t.print(out, list)
	if !mutants {
		return nil
	}
	return printMutants(ctx, out, root)
}

func (t *tree) print(out io.Writer, list bool) {
	places := func(title string, all []string) {
		if !list {
			return
		}
		for _, p := range all {
			fmt.Fprintf(out, "%s: %s\n", title, p)
		}
	}
	fmt.Fprintln(out, "lines\tfiles\tpackage")
	for _, dir := range slices.SortedFunc(maps.Keys(t.packages), cmp.Compare[string]) {
		p := t.packages[dir]
		fmt.Fprintf(out, "%d\t%d\t%s\n", p.lines, p.files, dir)
	}
	places("long function", t.long)
	places("exported without comment", t.undocumented)
	places("what", t.whats)
	places("holds *agent", t.holders)
	fmt.Fprintf(out, "figure functions_over_60_lines %.1f per_1000 aim -\n", perThousand(len(t.long), t.functions))
	fmt.Fprintf(out, "figure exported_without_doc %d names aim 0\n", len(t.undocumented))
	fmt.Fprintf(out, "figure what_in_comments %.1f per_1000_words aim 2\n", perThousand(len(t.whats), t.words))
	fmt.Fprintf(out, "figure agent_parts_holding_agent %d types aim 0\n", len(t.holders))
	fmt.Fprintf(out, "figure packages %d packages aim -\n", len(t.packages))
	fmt.Fprintf(out, "figure go_lines_outside_tests %d lines aim %d\n", t.lines(), baseLines-1500)
	fmt.Fprintf(out, "figure go_lines_outside_tests_base %d lines aim -\n", baseLines)
}

func perThousand(n, of int) float64 { return 1000 * float64(n) / float64(max(1, of)) }

// printMutants runs every list of broken lines and prints how many the tests
// noticed.
func printMutants(ctx context.Context, out io.Writer, root string) error {
	lists, err := filepath.Glob(filepath.Join(root, "test", "metrics", "mutants", "*.txt"))
	if err != nil {
		return err
	}
	for _, path := range lists {
		name, records, err := readMutants(path)
		if err != nil {
			return err
		}
		if err := passes(ctx, root, records); err != nil {
			return err
		}
		caught := 0
		for _, m := range records {
			noticed, err := m.run(ctx, root)
			if err != nil {
				return fmt.Errorf("%s: %w", m.place, err)
			}
			if noticed {
				caught++
			} else {
				fmt.Fprintf(out, "not noticed: %s: %s: %q for %q\n", m.place, m.file, m.with, m.line)
			}
		}
		fmt.Fprintf(out, "figure mutants_caught_%s %d of_%d aim %d\n", name, caught, len(records), len(records))
	}
	return nil
}
