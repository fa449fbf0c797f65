package ledger

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

const drop ban.Import = "list:drop"

func importing(t testing.TB, rule string, live int) *policy.Policy {
	p, err := policy.Compile(policy.Source{
		Topics:  map[string]policy.TopicSource{"sshd": {}},
		Imports: map[string]policy.ImportSource{string(drop): {Topics: []string{"sshd"}, Rule: rule, Live: live}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// edition is the change that makes a list all that an import says.
func edition(claims ...ban.Claim) ban.Change {
	return ban.Change{Feed: drop.Feed("sshd"), Reset: true, Claims: claims}
}

func entry(target string, d time.Duration) ban.Claim {
	return ban.Claim{Target: ban.MustTarget(target), End: t0.Add(d), Basis: ban.BasisHandedOver}
}

func TestAnImportBansByItsRuleAndIsNeverPublished(t *testing.T) {
	w := newWorld(t, Options{Policy: importing(t, "ban", 0)})
	w.must(w.Peers.Apply(edition(entry("198.51.100.7", time.Hour), entry("203.0.113.0/24", time.Hour))))
	w.wantDesired("sshd 198.51.100.7 1h0m0s", "sshd 203.0.113.0/24 1h0m0s")
	if told := w.Own.Claims("sshd"); len(told) != 0 {
		t.Errorf("the feed says %+v", told)
	}
	if changes := w.Own.Take(); len(changes) != 0 {
		t.Errorf("readers are told %+v", changes)
	}
	e := w.Explain(ban.MustTarget("203.0.113.9"))
	if len(e.Standings) != 1 || e.Standings[0].Rule != "list:drop" || e.Standings[0].Why != policy.ReasonImported {
		t.Errorf("explain says %+v", e.Standings)
	}
	w.must(w.Peers.Apply(edition(entry("198.51.100.7", 2*time.Hour))))
	w.wantDesired("sshd 198.51.100.7 2h0m0s")
}

// A program that hands on a list through the control socket says so by its name.
// Its bans are enforced here; whoever made the list publishes it himself.
func TestBansOfAListNeverLeaveTheNode(t *testing.T) {
	w := newWorld(t, Options{})
	for _, source := range []Source{"list:drop", "vallumd:home"} {
		w.must(w.Own.Ban(Local{Topic: "sshd", Source: source, Claim: claim("198.51.100.7", time.Hour)}))
		if source.Basis() != ban.BasisHandedOver {
			t.Errorf("%s counts as %s", source, source.Basis())
		}
	}
	w.wantDesired("sshd 198.51.100.7 1h0m0s")
	w.wantTold()
	w.must(w.Own.Ban(Local{Topic: "sshd", Source: "list", Claim: claim("198.51.100.8", time.Hour)}))
	w.wantTold("198.51.100.8 strong 72h0m0s")
	w.restart()
	w.wantTold("198.51.100.8 strong 72h0m0s")
}

// The owner of a name chooses whose address it is, so a ban of one that a log names is
// this node's own affair, also beside evidence that is not.
func TestBansByNameNeverLeaveTheNode(t *testing.T) {
	w := newWorld(t, Options{})
	named := claim("198.51.100.7", time.Hour)
	named.Basis = ban.BasisWeak
	w.must(w.Own.Found(Local{Topic: "sshd", Source: SourceNamed, Claim: named, At: w.now}))
	w.wantDesired("sshd 198.51.100.7 1h0m0s")
	w.wantTold()
	w.restart()
	w.wantTold()
	if changes := w.Own.Take(); len(changes) != 0 {
		t.Errorf("readers are told %+v", changes)
	}
	seen := claim("198.51.100.7", 30*time.Minute)
	w.must(w.Own.Found(Local{Topic: "sshd", Source: SourceDetection, Claim: seen, At: w.now}))
	w.wantTold("198.51.100.7 strong 72h0m0s")
}

func TestAPersonDisownsClaimsOfAnImport(t *testing.T) {
	w := newWorld(t, Options{Policy: importing(t, "ban", 0)})
	list := edition(entry("198.51.100.7", time.Hour), entry("198.51.100.8", time.Hour))
	w.must(w.Peers.Apply(list))
	gone, err := w.Peers.Disown(drop, "", []ban.Target{ban.MustTarget("198.51.100.7"), ban.MustTarget("198.51.100.9")})
	if err != nil || len(gone) != 1 || gone[0].Source != "list:drop" || gone[0].Topic != "sshd" {
		t.Fatal(gone, err)
	}
	for _, when := range []string{"at once", "when the list says it again", "after a restart"} {
		switch when {
		case "when the list says it again":
			w.must(w.Peers.Apply(list))
		case "after a restart":
			w.restart()
			w.must(w.Peers.Apply(list))
		}
		if d := w.desired(); !slices.Equal(d, []string{"sshd 198.51.100.8 1h0m0s"}) {
			t.Errorf("%s: %q", when, d)
		}
		if n := len(w.Peers.Imported(drop, "sshd")); n != 1 {
			t.Errorf("%s: %d claims count", when, n)
		}
	}
	// A list that drops it and names it anew makes a new claim.
	w.must(w.Peers.Apply(edition(), list))
	w.wantDesired("sshd 198.51.100.7 1h0m0s", "sshd 198.51.100.8 1h0m0s")
	if gone, err = w.Peers.Disown(drop, "mail", nil); len(gone) != 0 || err != nil {
		t.Errorf("in another topic: %+v, %v", gone, err)
	}
	if gone, err = w.Peers.Disown(drop, "sshd", nil); len(gone) != 2 || err != nil {
		t.Errorf("all: %+v, %v", gone, err)
	}
	w.wantDesired()
}

func TestAnImportsBudgetHoldsOverARestart(t *testing.T) {
	for _, n := range []int{100, 101} {
		w := newWorld(t, Options{Policy: importing(t, "ban", 100)})
		list := edition(many(0, n, time.Hour)...)
		w.must(w.Peers.Apply(list))
		w.wantBanned(100, "at once")
		w.restart()
		w.must(w.Peers.Apply(list))
		w.wantBanned(100, "after a restart")
		if waits := w.Stats().Waiting; waits != n-100 {
			t.Errorf("%d of %d wait", waits, n)
		}
	}
}

// Whatever editions a list has, and wherever it is killed between: the bans are those
// of its last edition, with that one's ends.
func TestTheLastEditionOfAListIsItsBans(t *testing.T) {
	dir := memory(t)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		now, path := t0, dir+"/"+time.Duration(run).String()
		var l *Ledger
		open := func() {
			s, err := store.Open(path)
			if err != nil {
				t.Fatalf("%v", err)
			}
			p, err := policy.Compile(policy.Source{Imports: map[string]policy.ImportSource{string(drop): {Topics: []string{"sshd"}, Rule: "ban"}}}, nil)
			if err != nil {
				t.Fatalf("%v", err)
			}
			if l, err = Open(Options{Store: s, Policy: p, Now: func() time.Time { return now }}); err != nil {
				t.Fatalf("%v", err)
			}
		}
		open()
		defer func() { l.store.Close() }()
		var last []ban.Claim
		for range rapid.IntRange(1, 12).Draw(t, "editions") {
			if rapid.IntRange(0, 3).Draw(t, "kill") == 0 {
				l.store.Close()
				open()
				if err := l.Peers.Apply(edition(last...)); err != nil {
					t.Fatalf("%v", err)
				}
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "minutes")) * time.Minute)
			l.Expire(now)
			last = nil
			for i := range 8 {
				if rapid.Bool().Draw(t, "listed") {
					c := many(i, 1, 0)[0]
					if i == 7 {
						c.Target = ban.MustTarget("203.0.113.0/24")
					}
					c.End = now.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "hours")) * time.Hour)
					last = append(last, c)
				}
			}
			if err := l.Peers.Apply(edition(last...)); err != nil {
				t.Fatalf("%v", err)
			}
			slices.SortFunc(last, ban.Claim.Compare)
			bans := map[ban.Target]time.Time{}
			for _, e := range l.Enforcement.Desired() {
				bans[e.Target] = e.Until
			}
			if len(bans) != len(last) {
				t.Fatalf("%d bans of %d entries", len(bans), len(last))
			}
			for _, c := range last {
				if !bans[c.Target].Equal(c.End) {
					t.Fatalf("%s ends %s and not %s", c.Target, bans[c.Target], c.End)
				}
			}
		}
	})
}

func TestAnOffenderInAListedPrefixWasMet(t *testing.T) {
	w := newWorld(t, Options{Policy: importing(t, "watch", 0)})
	w.must(w.Peers.Apply(edition(entry("203.0.113.0/24", time.Hour), entry("203.0.113.7", time.Hour))))
	w.must(w.BanLocal("sshd", claim("203.0.113.7", time.Hour), Evidence{}))
	w.Peers.Met("sshd", ban.MustTarget("203.0.113.8"))
	w.Peers.Met("sshd", ban.MustTarget("198.51.100.8"))
	if p := w.Peers.List(); len(p) != 1 || p[0].Name != "list:drop" || p[0].Met != 2 || p[0].Claims != 2 {
		t.Errorf("%+v", p)
	}
	if _, err := w.Exemptions.Unban(ban.MustTarget("203.0.113.9"), 0, ""); err != nil {
		t.Fatal(err)
	}
	if p := w.Peers.List(); p[0].Overruled != 1 {
		t.Errorf("an unban inside its prefix: %+v", p[0])
	}
}

func TestGuestsOnAListAreItsFalsePositives(t *testing.T) {
	w := newWorld(t, Options{Policy: importing(t, "ban", 0), Guests: never{netip.MustParsePrefix("203.0.113.7/32")}})
	w.must(w.Peers.Apply(edition(entry("203.0.113.7", time.Hour), entry("203.0.113.8", time.Hour))))
	w.wantDesired("sshd 203.0.113.8 1h0m0s")
	if w.Watched("sshd", ban.MustTarget("203.0.113.7")) {
		t.Error("a guest is watched by a list's word")
	}
	if p := w.Peers.List(); len(p) != 1 || p[0].Record != (policy.Record{Claims: 2, Guests: 1}) {
		t.Errorf("%+v", p)
	}
}
