package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/policy"
)

// small is a network that is simulated in a blink.
func small(s scenario) scenario {
	s.operators, s.attackers, s.innocents, s.coreSize = 12, 12, 120, 5
	s.conduct.lowRate = min(s.conduct.lowRate, 20)
	return s
}

func run1(t *testing.T, s scenario) result {
	t.Helper()
	r, err := simulate(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEverySignHasItsRow(t *testing.T) {
	s := trying(30)
	for _, sign := range allSigns() {
		before := s
		sign.use(&s)
		if s.key() == before.key() {
			t.Errorf("%s changes nothing", sign.name)
		}
	}
	v := reflect.ValueOf(s.signs)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("signs.%s is used by no sign: no row shows what it is worth", v.Type().Field(i).Name)
		}
	}
	certain := 0
	for _, sign := range allSigns() {
		if !sign.guess {
			certain++
		}
	}
	r := recommendedRow(30)
	if want := policy.Recommended("core", 10); (policy.Rules{Ban: r.ban, Watch: r.watch, Suspect: r.suspect, Require: r.require}) != want {
		t.Errorf("the signs make %+v, the agent recommends %+v", r, want)
	}
	if l, a := len(ladder(30)), len(ablation(30)); l != len(allSigns())+1 || a != certain {
		t.Errorf("%d rows of the ladder and %d without a sign for %d signs", l, a, len(allSigns()))
	}
	if len(distinct(ablation(30))) != certain {
		t.Error("two signs have the same row")
	}
}

func TestARowIsTheSameInEveryRun(t *testing.T) {
	s := small(recommendedRow(12))
	s.signs.traps, s.conduct.accounts = trapRate, accountRate
	if a, b := run1(t, s), run1(t, s); !reflect.DeepEqual(a, b) {
		t.Errorf("two runs differ:\n%+v\n%+v", a, b)
	}
}

func TestWhatARowAddsMovesNothingThatWasThere(t *testing.T) {
	was := func(s scenario) (list []event) {
		start := time.Unix(0, 0)
		for _, e := range schedule(s, 8, start, s.draws("test")) {
			if e.kind == attempt || e.kind == visit {
				e.trap, e.login, e.lost = false, false, false
				list = append(list, e)
			}
		}
		return list
	}
	plain := small(plainRows(12)[0])
	full := small(recommendedRow(12))
	full.signs.traps, full.conduct.accounts, full.conduct.quiet = trapRate, accountRate, 10
	if a, b := was(plain), was(full); !slices.EqualFunc(a, b, func(x, y event) bool { return reflect.DeepEqual(x, y) }) {
		t.Error("attackers and innocents differ between rows of one seed")
	}
}

// The rows of rules that only count give the same figures as before any sign was
// added.
func TestRulesThatOnlyCountAreAsTheyWere(t *testing.T) {
	for name, want := range map[string][3]int{
		"plain": {21433, 733, 0},
		"alone": {50485, 775, 0},
	} {
		i := slices.IndexFunc(plainRows(30), func(s scenario) bool { return s.name == name })
		r := run1(t, plainRows(30)[i])
		if got := [3]int{r.attemptsSeen, int(median(r.delays).Minutes()), r.innocents}; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestNoRulePassesTheOracle(t *testing.T) {
	s := small(recommendedRow(12))
	first, ban := oracle(s, 1), oracle(s, maxRetry)
	alone := s
	alone.shared = false
	r, a := run1(t, s), run1(t, alone)
	if !(first < ban && ban < r.attemptsSeen && r.attemptsSeen < a.attemptsSeen) {
		t.Errorf("oracles %d and %d, recommended %d, alone %d", first, ban, r.attemptsSeen, a.attemptsSeen)
	}
}

func TestOneLiarBansNobody(t *testing.T) {
	for _, c := range conducts() {
		if c.liars != 1 {
			continue
		}
		s := small(policies()[0].scenario(12, c))
		s.ban = "3 of core"
		if r := run1(t, s); r.innocents != 0 || r.critical != 0 {
			t.Errorf("%s: %s", c.name, r.summary())
		}
	}
}

func TestAGuessSaysSo(t *testing.T) {
	for _, s := range append(varied(30), ladder(30)...) {
		if hangs := s.signs.traps > 0 || s.conduct.accounts > 0; hangs != strings.Contains(s.name, "(guess)") {
			t.Errorf("%s: hangs on a guess: %v", s.name, hangs)
		}
	}
	for _, r := range rates() {
		if r.source == "" || r.value == "" {
			t.Errorf("%s has no source or value", r.name)
		}
	}
}

func TestAFigureKnowsItsAim(t *testing.T) {
	for _, c := range []struct {
		f      figure
		missed bool
		text   string
	}{
		{figure{"a", 8000, "attempts", 8000, most}, false, "figure sim_a 8000 attempts aim 8000"},
		{figure{"a", 8001, "attempts", 8000, most}, true, "figure sim_a 8001 attempts aim 8000"},
		{figure{"b", 40, "%", 40, least}, false, "figure sim_b 40 % aim 40"},
		{figure{"b", 39.96, "%", 40, least}, true, "figure sim_b 39.96 % aim 40"},
		{figure{"c", 50485, "attempts", 0, none}, false, "figure sim_c 50485 attempts aim -"},
	} {
		if c.f.missed() != c.missed || c.f.String() != c.text {
			t.Errorf("%v missed %v, want %v missed %v", c.f, c.f.missed(), c.text, c.missed)
		}
	}
}

func TestDurationsAreShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		10 * time.Minute: "10m", 24 * time.Hour: "24h", 30 * time.Minute: "30m", 8 * time.Hour: "8h", 90 * time.Second: "1m30s",
	} {
		if got := short(d); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
