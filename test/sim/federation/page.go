package main

import (
	"fmt"
	"slices"
)

// page holds all results, by table.
type page struct {
	operators                       int
	plain, ladder, ablation, bounds []result
	varied                          [][]result // of each row every seed
	policies                        []policyRow
	conducts                        []conductColumn
	cells                           map[string]result // by policy and conduct
	oracleFirst, oracleBan          int
}

func simulateAll(operators, large int) (*page, error) {
	p := &page{operators: operators, policies: policies(), conducts: conducts(), cells: map[string]result{}}
	plain := plainRows(operators)
	if large > 0 {
		s := plainRows(large)[0]
		s.name = fmt.Sprintf("plain, %d operators", large)
		s.attackers, s.innocents = 40, 500
		plain = append(plain, s)
	}
	var cells []scenario
	for _, row := range p.policies {
		for _, c := range p.conducts {
			if row.full || !c.full {
				cells = append(cells, row.scenario(operators, c))
			}
		}
	}
	u := &runner{known: map[string]result{}}
	take := func(rows []scenario) []result {
		results := make([]result, len(rows))
		for i, s := range rows {
			results[i] = u.known[s.key()]
			results[i].scenario = s
		}
		return results
	}
	all := slices.Concat(plain, ladder(operators), ablation(operators), bounds(operators), cells)
	for _, s := range varied(operators) {
		all = append(all, weeks(s)...)
	}
	if err := u.run(distinct(all)); err != nil {
		return nil, err
	}
	p.plain, p.ladder, p.ablation, p.bounds = take(plain), take(ladder(operators)), take(ablation(operators)), take(bounds(operators))
	for _, r := range take(cells) {
		p.cells[r.name] = r
	}
	for _, s := range varied(operators) {
		p.varied = append(p.varied, take(weeks(s)))
	}
	p.oracleFirst, p.oracleBan = oracle(plain[0], 1), oracle(plain[0], maxRetry)
	return p, nil
}

// week gives a row of [varied] for every seed.
func (p *page) week(name string) []result {
	for _, rows := range p.varied {
		if rows[0].name == name {
			return rows
		}
	}
	panic("no such row: " + name)
}

func (p *page) recommendedWeek() []result { return p.week(recommended)[:1] }

// cell gives the result of a policy under a conduct.
func (p *page) cell(row policyRow, c conductColumn) (result, bool) {
	r, ok := p.cells[row.name+", "+c.name]
	return r, ok
}
