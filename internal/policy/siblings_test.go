package policy

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

// shieldOne protects one target.
type shieldOne ban.Target

func (s shieldOne) Protects(t ban.Target) (string, bool) { return "office", t == ban.Target(s) }

func TestOtherNodesOfThisOperatorSpeakForItWithoutAName(t *testing.T) {
	mine := func(basis ban.Basis, hits uint8, end time.Duration) Vote {
		return with(vote("me", 0, end), basis, hits)
	}
	wide := mine(ban.BasisDecided, 0, day)
	wide.Target = ban.MustTarget("198.51.100.0/24")
	held := mine(ban.BasisStrong, 5, day)
	held.Held = true
	at := ban.MustTarget("198.51.100.7")
	accepted, refused := TopicSource{Accept: true}, TopicSource{}
	rules := TopicSource{Accept: true, Ban: "2 of everyone", Watch: "any of everyone"}
	for _, c := range []struct {
		name  string
		topic TopicSource
		votes []Vote
		guard func(*Question)
		want  string
	}{
		{"a ban of my other node is mine, and no name is needed", accepted, []Vote{mine(ban.BasisStrong, 1, day)}, nil, "ban/own-operator/86400"},
		{"a person's decision there counts to its end", accepted, []Vote{mine(ban.BasisDecided, 0, 30*day)}, nil, "ban/own-operator/2592000"},
		{"a machine's for 72 hours", accepted, []Vote{mine(ban.BasisStrong, 5, 30*day)}, nil, "ban/own-operator/259200"},
		{"weak evidence there is watched here", accepted, []Vote{mine(ban.BasisWeak, 9, day)}, nil, "watch/own-operator/86400"},
		{"so is one that waits", accepted, []Vote{held}, nil, "watch/own-operator/86400"},
		{"a wide prefix is refused as a peer's", accepted, []Vote{wide}, nil, "ignore/none"},
		{"a topic that is not accepted takes nothing", refused, []Vote{mine(ban.BasisDecided, 0, day)}, nil, "ignore/no-quorum"},
		{"it is no vote among the peers", rules, []Vote{mine(ban.BasisWeak, 9, day), vote("alice", 0, day)}, nil, "watch/own-operator/86400"},
		{"it stands beside their ban, and the later end holds", rules, []Vote{mine(ban.BasisStrong, 5, time.Hour), vote("alice", 0, day), vote("bob", 0, day)}, nil, "ban/own-operator/86400"},
		{"never-ban stands above it", accepted, []Vote{mine(ban.BasisDecided, 0, day)}, func(q *Question) { q.NeverBan = shieldOne(at) }, "ignore/never-ban"},
		{"and what peers may not ban", accepted, []Vote{mine(ban.BasisDecided, 0, day)}, func(q *Question) { q.NeverPeers = shieldOne(at) }, "ignore/never-ban"},
		{"and an unban here", accepted, []Vote{mine(ban.BasisDecided, 0, day)}, func(q *Question) { q.Exempt = shieldOne(at) }, "ignore/exempt"},
		{"a guest here is not banned by a machine there", accepted, []Vote{mine(ban.BasisStrong, 9, day)}, func(q *Question) { q.Guests = shieldOne(at) }, "ignore/guest"},
		{"but by a person", accepted, []Vote{mine(ban.BasisDecided, 0, day)}, func(q *Question) { q.Guests = shieldOne(at) }, "ban/own-operator/86400"},
		{"no peer bans a guest", rules, []Vote{with(vote("alice", 0, day), ban.BasisDecided, 0), vote("bob", 0, day)}, func(q *Question) { q.Guests = shieldOne(at) }, "ignore/guest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Compile(source(c.topic, "alice", "bob"), nil)
			if err != nil {
				t.Fatal(err)
			}
			p = p.As(op("me"))
			q := Question{Topic: "sshd", Target: at, Votes: c.votes, Now: t0}
			if c.guard != nil {
				c.guard(&q)
			}
			if got := short(p.Judge(q)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestANodeHearsItsOperatorWhereItAcceptsATopic(t *testing.T) {
	s := source(TopicSource{Accept: true}, "alice")
	s.Topics["web"] = TopicSource{Ban: "any of alice"}
	p, err := Compile(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.Knows("sshd", op("me")) || len(p.Operators("sshd")) != 0 {
		t.Error("an operator without a name is known")
	}
	p = p.As(op("me"))
	if p, err = p.WithTrust(nil); err != nil || p.Self() != op("me") {
		t.Fatal(err, p.Self())
	}
	if list := p.Operators("sshd"); len(list) != 1 || list[0] != op("me") || !p.Knows("sshd", op("me")) || !p.Accepted("sshd") {
		t.Errorf("heard in sshd: %v", list)
	}
	if list := p.Operators("web"); len(list) != 1 || list[0] != op("alice") || p.Knows("web", op("me")) || p.Accepted("web") {
		t.Errorf("heard in web: %v", list)
	}
}

// Without policy nothing remote is applied, whoever claims it.
func TestWithoutPolicyNothingRemoteIsApplied(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		votes := drawVotes(t)
		self := op(rapid.SampledFrom(everyone).Draw(t, "self"))
		if v := Nothing().As(self).Judge(Question{Topic: "sshd", Target: target, Votes: votes, Now: t0}); v.Action != Ignore {
			t.Fatalf("%v", v)
		}
	})
}

// A held claim is noticed like one that counts, never more.
func TestAHeldClaimIsWatchedWhereItWouldBan(t *testing.T) {
	for rules, want := range map[ruleTexts]string{
		{"any of everyone", ""}:                "watch/held/86400",
		{"2 of everyone", ""}:                  "ignore/no-quorum",
		{"2 of everyone", "any of everyone"}:   "watch/watched/86400",
		{"any of everyone", "any of everyone"}: "watch/held/86400",
	} {
		p, err := Compile(source(TopicSource{Ban: rules.ban, Watch: rules.watch}, "alice", "bob"), nil)
		if err != nil {
			t.Fatal(err)
		}
		v := vote("alice", 0, day)
		v.Held = true
		if got := short(p.Judge(Question{Topic: "sshd", Target: v.Target, Votes: []Vote{v}, Now: t0})); got != want {
			t.Errorf("%+v: got %s, want %s", rules, got, want)
		}
	}
}

type ruleTexts struct{ ban, watch string }
