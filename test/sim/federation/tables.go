package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// The rows that the aims are about.
const recommended = "recommended"

// seeds are the weeks of the recommended rules: no aim hangs on one of them.
var seeds = [...]uint64{firstSeed, 8, 9, 10, 11}

// policyRow is a row of the table of policies by conduct, conductColumn a
// column of it.
type (
	policyRow struct {
		name   string
		full   bool // all columns; otherwise only some
		change func(*scenario)
	}
	conductColumn struct {
		name    string
		full    bool // only for rows that have all
		liars   int
		conduct conduct
	}
)

func (p policyRow) scenario(n int, c conductColumn) scenario {
	s := recommendedRow(n)
	low, pace := s.conduct.lowRate, s.conduct.pace
	s.conduct = c.conduct
	s.conduct.lowRate, s.conduct.pace = low, pace
	s.coreHostile = c.liars
	p.change(&s)
	s.name = p.name + ", " + c.name
	return s
}

func policies() []policyRow {
	return []policyRow{
		{recommended, true, func(*scenario) {}},
		{"4 of core ban", false, func(s *scenario) { s.ban = "4 of core" }},
		{"2 of core ban", false, func(s *scenario) { s.ban = "2 of core" }},
		{"without the measure", false, func(s *scenario) { s.signs.measure = false }},
		{"without guests", false, func(s *scenario) { s.signs.guests, s.signs.measure = false, false }},
		{"without guests and budgets", false, func(s *scenario) {
			s.signs.guests, s.signs.measure, s.limits = false, false, unlimited()
		}},
	}
}

func conducts() (list []conductColumn) {
	add := func(name string, full bool, c conduct, liars ...int) {
		for _, n := range liars {
			list = append(list, conductColumn{fmt.Sprintf("%d %s", n, name), full || n%2 == 0, n, c})
		}
	}
	add("loud", false, conduct{basis: ban.BasisDecided}, 1, 2, 3, 4)
	add("loud, as machines", true, conduct{basis: ban.BasisStrong}, 1, 3)
	add("quiet, 10 lies", true, conduct{basis: ban.BasisDecided, quiet: 10}, 1, 3)
	add("quiet, 50 lies", false, conduct{basis: ban.BasisDecided, quiet: 50}, 1, 2, 3, 4)
	add("quiet, 50 lies, as machines", true, conduct{basis: ban.BasisStrong, quiet: 50}, 1, 3)
	add("quiet, 200 lies", true, conduct{basis: ban.BasisDecided, quiet: 200}, 1, 3)
	add("poison weak sums", true, conduct{basis: ban.BasisWeak}, 1, 3)
	add("loud, attackers with accounts (guess)", true, conduct{basis: ban.BasisDecided, accounts: accountRate}, 1, 3)
	return list
}

// varied are the recommended rules for other networks: how many one knows, and
// the guessed rates.
func varied(n int) (rows []scenario) {
	with := func(name, about string, change func(*scenario)) {
		s := recommendedRow(n)
		change(&s)
		s.name, s.about = name, about
		rows = append(rows, s)
	}
	with(recommended, recommendedRow(n).about, func(*scenario) {})
	with(withTraps, "and who touches a closed port is banned by the node that it touched", func(s *scenario) { s.signs.traps = trapRate })
	for _, known := range []int{5, 7, 13} {
		with(fmt.Sprintf("%s, %d known", recommended, known), "", func(s *scenario) { knows(s, known) })
	}
	with(recommended+", everybody named", "for who knows nobody and names the whole network, the hostile third too", func(s *scenario) {
		r := policy.Recommended("everyone", s.operators-1)
		s.ban, s.watch, s.suspect, s.require = r.Ban, r.Watch, r.Suspect, r.Require
	})
	with(manyKnown, "nineteen known, one of them hostile", func(s *scenario) { knows(s, 19) })
	with(withAccounts, "a twentieth of the attackers' addresses has an account at a fifth of the hosts", func(s *scenario) { s.conduct.accounts = accountRate })
	with(slowly, "the low-rate attackers wait eight hours between two hosts", func(s *scenario) { s.conduct.pace = slowPace })
	return rows
}

// Rows of varied that have aims.
const (
	withTraps    = recommended + " and honeyports (guess)"
	manyKnown    = recommended + ", 19 known"
	withAccounts = recommended + ", attackers with accounts (guess)"
	slowly       = recommended + ", low-rate attackers every 8 h"
)

// knows scales the recommended rules to a core of another size.
func knows(s *scenario, size int) {
	r := policy.Recommended("core", size)
	s.coreSize, s.ban, s.watch, s.suspect, s.require = size, r.Ban, r.Watch, r.Suspect, r.Require
}

// bounds are results that no rule can pass, and rules that need all to be honest.
func bounds(n int) (rows []scenario) {
	for _, quorum := range []int{2, 3} {
		s := plainRows(n)[0]
		s.ban, s.watch, s.require, s.ttl = fmt.Sprintf("%d of core", quorum), "", "", 0
		s.coreSize, s.coreHostile, s.conduct.silent, s.signs.strangers, s.signs.lasting = n-n/3-1, 0, true, 3, true
		s.name = fmt.Sprintf("%d of all honest ban, nobody lies", quorum)
		rows = append(rows, s)
	}
	return rows
}

// weeks gives a row with every seed; one without an aim has one.
func weeks(s scenario) (rows []scenario) {
	if !slices.Contains([]string{recommended, withTraps, manyKnown, withAccounts, slowly}, s.name) {
		return []scenario{s}
	}
	for _, seed := range seeds {
		s.seed = seed
		rows = append(rows, s)
	}
	return rows
}

// runner simulates rows, as many at a time as there are processors.
type runner struct {
	mu    sync.Mutex
	known map[string]result
}

func (u *runner) run(rows []scenario) error {
	errs := make([]error, len(rows))
	var group sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, s := range rows {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			began := time.Now()
			r, err := simulate(s)
			if err != nil {
				errs[i] = fmt.Errorf("%s: %w", s.name, err)
				return
			}
			fmt.Fprintf(os.Stderr, "%s: %.1f s\n", s.name, time.Since(began).Seconds())
			u.mu.Lock()
			defer u.mu.Unlock()
			u.known[s.key()] = r
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// key is the same for rows that differ in their names only.
func (s scenario) key() string {
	free := s.limits != nil
	s.name, s.about, s.limits = "", "", nil
	return fmt.Sprintf("%+v %v", s, free)
}

func distinct(rows []scenario) (list []scenario) {
	seen := map[string]bool{}
	for _, s := range rows {
		if !seen[s.key()] {
			seen[s.key()] = true
			list = append(list, s)
		}
	}
	return list
}
