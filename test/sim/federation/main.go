// Federation simulates a network of operators who share bans, some of them
// hostile, with the policy and ledger code of the agent itself: real rules,
// budgets, holds, strikes and never-ban sets, on a simulated week. It prints
// how much of the attack the network keeps off, how soon, and whom it bans
// wrongly, with and without each sign and each defence.
//
//	go run ./test/sim/federation [-operators 30] [-out docs] [-check]
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	operators := flag.Int("operators", 30, "operators, of which a third is hostile")
	large := flag.Int("large", 200, "operators of the large network; 0 leaves it out")
	out := flag.String("out", "", "directory for simulation.md and simulation.svg; empty prints the page only")
	check := flag.Bool("check", false, "fail if the recommended rules miss their aims")
	flag.Parse()
	if err := run(*operators, *large, *out, *check); err != nil {
		fmt.Fprintln(os.Stderr, "federation: error:", err)
		os.Exit(1)
	}
}

func run(operators, large int, out string, check bool) error {
	p, err := simulateAll(operators, large)
	if err != nil {
		return err
	}
	text := p.markdown()
	if out == "" {
		fmt.Println(text)
	} else {
		err := errors.Join(
			os.WriteFile(filepath.Join(out, "simulation.svg"), []byte(plot(append(p.recommendedWeek(), p.plain...))), 0o644),
			os.WriteFile(filepath.Join(out, "simulation.md"), []byte(text), 0o644),
		)
		if err != nil {
			return err
		}
	}
	var missed []string
	for _, f := range p.figures() {
		fmt.Println(f)
		if f.missed() {
			missed = append(missed, f.name)
		}
	}
	if check && len(missed) > 0 {
		return fmt.Errorf("the recommended rules miss their aims: %v", missed)
	}
	return nil
}
