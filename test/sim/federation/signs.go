package main

import (
	"strings"

	"banmesh/internal/ban"
)

const weakSum = " or 3 weak of core"

// A sign is a kind of evidence, or a way to read it, that the recommended rules
// use beyond counting operators. The ladder and the table of losses
// without each are made of this list, so that no sign is without its row.
type sign struct {
	name, about string
	guess       bool // its worth hangs on a rate that is a guess; not part of [recommended]
	use         func(*scenario)
}

func allSigns() []sign {
	return []sign{
		{
			"bans of watched addresses are votes", "three of core ban, and a ban of a watched address is a vote, though never the first", false,
			func(s *scenario) { s.ban, s.require, s.signs.watchedCount = "3 of core", "hits >= 3", true },
		},
		{
			"claims count 72 h", "who bans for a day stands by the evidence for three, and readers count it", false,
			func(s *scenario) { s.signs.lasting = true },
		},
		{
			"suspects", "whom anyone that is named has banned is banned here after two failures", false,
			func(s *scenario) { s.suspect = "any of everyone" },
		},
		{
			"strangers at three", "who never authenticated here is banned after three failures", false,
			func(s *scenario) { s.signs.strangers = 3 },
		},
		{
			"weak sums", "failures below the threshold, of which three of core tell, make a watch", false,
			func(s *scenario) { s.watch, s.signs.weak = s.watch+weakSum, true },
		},
		{
			"guests", "peers' claims and weak evidence never touch who authenticated here", false,
			func(s *scenario) { s.signs.guests = true },
		},
		{
			"peers measured by guests", "who claims my guests far more often than my core does counts for nothing", false,
			func(s *scenario) { s.signs.guests, s.signs.measure = true, true },
		},
		{
			"own stalls", "lines of one second from several sources are the node's own stall and count for nobody", false,
			func(s *scenario) { s.signs.episodes = true },
		},
		{
			"watch by any of core", "one of core is enough to have an address watched", false,
			func(s *scenario) { s.watch = strings.Replace(s.watch, "2 of core", "any of core", 1) },
		},
		{
			"honeyports", "who touches a closed port is banned by the node that it touched", true,
			func(s *scenario) { s.signs.traps = trapRate },
		},
	}
}

// trying is the network of the rows about signs: it has low-rate attackers and
// nodes that stand still, which only some signs notice.
func trying(n int) scenario {
	s := plainRows(n)[0]
	s.conduct.lowRate, s.conduct.pace, s.conduct.stalls, s.conduct.basis = lowAddresses, lowPace, stallsAWeek, ban.BasisDecided
	return s
}

// recommendedRow is the network under all signs that need no guess.
func recommendedRow(n int) scenario {
	s := trying(n)
	for _, sign := range allSigns() {
		if !sign.guess {
			sign.use(&s)
		}
	}
	s.name, s.about = recommended, "what applies where no rule is written, with ten operators that one knows, one of whom is hostile: all signs of the next table but the last"
	return s
}

// ladder adds one sign after the other.
func ladder(n int) (rows []scenario) {
	s := trying(n)
	s.name = "plain"
	rows = append(rows, s)
	for _, sign := range allSigns() {
		sign.use(&s)
		s.name, s.about = "+ "+sign.name, sign.about
		if sign.guess {
			s.name += " (guess)"
		}
		rows = append(rows, s)
	}
	return rows
}

// ablation leaves one sign out after the other.
func ablation(n int) (rows []scenario) {
	for i, left := range allSigns() {
		if left.guess {
			continue
		}
		s := trying(n)
		for j, sign := range allSigns() {
			if i != j && !sign.guess {
				sign.use(&s)
			}
		}
		if left.name == "guests" {
			s.signs.guests, s.signs.measure = false, false // the measure is of guests
		}
		s.name, s.about = "without "+left.name, ""
		rows = append(rows, s)
	}
	return rows
}
