// Federation simulates a network of operators who share bans, some of them
// hostile, with the policy and ledger code of the agent itself: real rules,
// budgets, holds, strikes and never-ban sets, on a simulated week. It prints
// how much of the attack the network keeps off, how soon, and whom it bans
// wrongly, with and without each defence.
//
//	go run ./test/sim/federation [-operators 30] [-out docs]
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

func main() {
	operators := flag.Int("operators", 30, "operators, of which a third is hostile")
	large := flag.Int("large", 200, "operators of the large network; 0 leaves it out")
	out := flag.String("out", "", "directory for simulation.md and simulation.svg; empty prints the table only")
	check := flag.Bool("check", false, "fail if the recommended rules miss their aims")
	flag.Parse()
	if err := run(*operators, *large, *out, *check); err != nil {
		fmt.Fprintln(os.Stderr, "federation: error:", err)
		os.Exit(1)
	}
}

// The rows that the aims are about.
const (
	recommended = "recommended"
	everybody   = "recommended, everybody named"
)

func run(operators, large int, out string, check bool) error {
	rows := scenarios(operators)
	if large > 0 {
		s := scenarios(large)[0]
		s.name = fmt.Sprintf("recommended, %d operators", large)
		s.attackers, s.innocents = 40, 500
		rows = append(rows, s)
	}
	results := make([]result, 0, len(rows))
	for _, s := range rows {
		start := time.Now()
		r, err := simulate(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %.1f s\n", s.name, time.Since(start).Seconds())
		results = append(results, r)
	}
	table := markdown(results)
	fmt.Println(table)
	if out != "" {
		if err := os.WriteFile(filepath.Join(out, "simulation.svg"), []byte(plot(results)), 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, "simulation.md"), []byte(page(operators, table)), 0o644); err != nil {
			return err
		}
	}
	for _, r := range results {
		name := map[string]string{recommended: "sim", everybody: "sim_everybody_named"}[r.name]
		if name == "" {
			continue
		}
		fmt.Printf("figure %s_attackers_met_protected %.1f %% aim 60\n", name, r.coverage())
		fmt.Printf("figure %s_innocents_banned_by_peers %d addresses aim 0\n", name, r.innocents)
		fmt.Printf("figure %s_innocents_banned_here_for_one_typo %d addresses aim -\n", name, r.typos)
		fmt.Printf("figure %s_critical_banned %d addresses aim 0\n", name, r.critical)
		fmt.Printf("figure %s_time_to_protection_median %.0f s aim -\n", name, r.median().Seconds())
		if check && (r.coverage() < 60 || r.innocents > 0 || r.critical > 0) {
			return fmt.Errorf("the default rules miss their aims (%s): %+v", r.name, r.summary())
		}
	}
	return nil
}
