package main

import (
	"fmt"
	"strings"
	"time"
)

// Rates that nobody can choose. See [rates] for where they are from.
const (
	trapRate       = 0.15
	accountRate    = 0.05
	accountHosts   = 0.2
	unredeemed     = 0.05
	lowAddresses   = 400
	lowTries       = 20
	lowPace        = 30 * time.Minute
	slowPace       = 8 * time.Hour
	stallsAWeek    = 2
	stalledClients = 8
)

// A rate is an assumption, with its source, or a guess.
type rate struct {
	name, value, source string // source: "guess" or where it is from
	hangs               string // figures that depend on it
}

const guess = "guess"

func rates() []rate {
	percent := func(f float64) string { return fmt.Sprintf("%.0f %%", 100*f) }
	return []rate{
		{"attackers' visits that touch a closed port first", percent(trapRate) + ": half of the visits of 30 % of the addresses", guess, "the rows with honeyports, and nothing else. Scanners of cloud hosts are known to avoid networks without services (Cloud Watching, IMC 2023), which speaks for less"},
		{"attackers' addresses with an account", "none; " + percent(accountRate) + " at 20 % of the hosts where a row says so", guess, "the rows \"attackers with accounts\""},
		{"innocents that authenticate", "all", guess, "guests: where no program logs a success there are none, and peers are measured by nothing"},
		{"innocents' visits that begin with a wrong password", percent(typo) + ", once", "kind only: nearly 10 % of failed log-ins are simple typing errors (Chatterjee et al., IEEE S&P 2016); repeats are a guess", "innocents banned for one wrong password"},
		{"wrong passwords that no right one follows", percent(unredeemed), guess, "weak evidence about innocents"},
		{"an address's tour", fmt.Sprintf("%d h", active), guess, "the medians: at 5 h and 1 h the same rules are six and thirty times as fast"},
		{"low-rate attackers", fmt.Sprintf("%d addresses, one try a host, every %s; also every %s", lowAddresses, short(lowPace), short(slowPace)), guess + "; that such attackers exist: Javed and Paxson, CCS 2013", "the column \"one try a host\""},
		{"a node's own stalls", fmt.Sprintf("%d a week, %d busy clients each", stallsAWeek, stalledClients), guess, "the rows \"stalls\""},
		{"maxretry, findtime", fmt.Sprintf("%d, %s", maxRetry, short(findTime)), "fail2ban's defaults", "everything"},
	}
}

// short writes a duration without its empty units.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
