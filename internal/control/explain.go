package control

import (
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/span"
)

// An Explanation answers GET /v1/explain: why a target is banned or not, and
// whether the kernel agrees.
type Explanation struct {
	Target ban.Target `json:"target"`
	// Shield names the protection of the target in every topic, "" for none.
	Shield string `json:"shield,omitempty"`
	// Standings are the verdicts, by topic.
	Standings []Standing `json:"standings"`
	// Guest says since when the target, or one in it, is a guest; "" for none.
	Guest string `json:"guest,omitempty"`
	// Held are decisions of this node that were not carried out, because the
	// target is a proxy of many people.
	Held []HeldOffender `json:"held,omitempty"`
	// Shielded are the offences that the target was not banned for.
	Shielded []Shielded `json:"shielded,omitempty"`
	// Counted are those that are too few for a ban.
	Counted []Counted `json:"counted,omitempty"`
	// AfterBan are the offences that its ban did not stop.
	AfterBan []AfterBan `json:"after_ban,omitempty"`
	// Kernel is nil where the kernel cannot be asked: for a wallet, without the
	// right to, or where something else than nftables enforces.
	Kernel *Held `json:"kernel,omitempty"`
	// Met is the traffic of the bans of each topic in question since the table
	// was made. The kernel counts by topic: a counter an address would cost more
	// memory than the bans.
	Met map[ban.Topic]Traffic `json:"met,omitempty"`
	// Offline says that no agent runs: the answer comes from its files.
	Offline bool `json:"offline,omitempty"`
}

// A HeldOffender is a decision of this node's own detection that bans nobody.
type HeldOffender struct {
	Topic  ban.Topic  `json:"topic"`
	Target ban.Target `json:"target"`
	// Kind is "cdn" or "relay", Network whose, From the list that says so and its
	// date.
	Kind    string    `json:"kind"`
	Network string    `json:"network"`
	From    string    `json:"from,omitempty"`
	Hits    int       `json:"hits"`
	Last    time.Time `json:"last"` // the last offence
	Why     string    `json:"why"`  // for people
}

// Counted are offences of a target in a topic that are too few for a ban: Limit of
// them within Within would be one.
type Counted struct {
	Topic    ban.Topic     `json:"topic"`
	Target   ban.Target    `json:"target"`
	Offences int           `json:"offences"`
	Limit    int           `json:"limit"`
	Within   span.Duration `json:"within"`
	Last     time.Time     `json:"last"`
}

// Shielded counts the offences of one target in one topic that ban nobody, because the
// never-ban list names it, since the agent started.
type Shielded struct {
	Topic    ban.Topic  `json:"topic"`
	Target   ban.Target `json:"target"`
	Entry    string     `json:"entry"` // for people
	Offences int        `json:"offences"`
	Last     time.Time  `json:"last"`
}

// AfterBan counts the offences of one banned target in one topic that are dated
// after its ban was in force.
type AfterBan struct {
	Topic    ban.Topic  `json:"topic"`
	Target   ban.Target `json:"target"`
	Offences int        `json:"offences"`
	Banned   time.Time  `json:"banned"` // when the ban was in force
	Last     time.Time  `json:"last"`
	Reason   string     `json:"reason"` // for people
	Fix      string     `json:"fix,omitempty"`
}

// Actions of a [Standing].
const (
	ActionIgnore  = "ignore"
	ActionWatch   = "watch"
	ActionSuspect = "suspect"
	ActionBan     = "ban"
)

// A Standing is a verdict in one topic and all that it rests on.
type Standing struct {
	Topic  ban.Topic  `json:"topic"`
	Target ban.Target `json:"target"`
	// Action is one of the Action words, Why one of policy's reasons.
	Action string `json:"action"`
	Why    string `json:"why"`
	// Sentence says Why to a person; Rule is the part of the rule that is met, or
	// the shield of the target.
	Sentence string    `json:"sentence"`
	Rule     string    `json:"rule,omitempty"`
	Observed bool      `json:"observed,omitempty"` // a ban of the topic is counted and refuses nothing
	By       []string  `json:"by,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`
	Claims   []Claimed `json:"claims,omitempty"`
	// Disputes are those of the target, whether or not a rule listens to them.
	Disputes []Disputed `json:"disputes,omitempty"`
	// Lifts are the ways to end the verdict, as commands where there is one.
	Lifts []string `json:"lifts,omitempty"`
}

// Disputed is an operator's signed statement that a target should not be banned.
type Disputed struct {
	Name     string    `json:"name"` // the operator's in the rules, or its identity
	Operator string    `json:"operator"`
	End      time.Time `json:"end"`
}

// Claimed is one claim and its weight here.
type Claimed struct {
	// Name is the operator's in the rules, or its identity; "this node" for our
	// own.
	Name        string     `json:"name"`
	Operator    string     `json:"operator,omitempty"`
	Node        string     `json:"node,omitempty"`
	Source      string     `json:"source,omitempty"` // of our own: detection, hand, fail2ban, list:NAME, ...
	On          ban.Target `json:"on"`
	Since       time.Time  `json:"since"`
	End         time.Time  `json:"end"`
	Class       ban.Class  `json:"class"`
	Hits        uint8      `json:"hits"`
	Established bool       `json:"established"`
	Basis       ban.Basis  `json:"basis"`
	Counts      bool       `json:"counts"`
	// WhyNot is one of policy's reasons, Doubt says it to a person; both are ""
	// where the claim counts.
	WhyNot   string    `json:"why_not,omitempty"`
	Doubt    string    `json:"doubt,omitempty"`
	Evidence *Evidence `json:"evidence,omitempty"`
	// Listed is the publication of the claim's operator about the wallet.
	Listed *Listed `json:"listed,omitempty"`
}

// Evidence is why this node banned a target. It is for people and never leaves
// the node.
type Evidence struct {
	By     string `json:"by,omitempty"`     // the filter, "manual", the name of a list
	Source string `json:"source,omitempty"` // which log
	Sample string `json:"sample,omitempty"` // a line of it
}

// Held says whether the kernel bans an address, as its maps are now.
type Held struct {
	// Banned says that a map holds it, Map which one, Left for how long, 0
	// where it has no end.
	Banned bool          `json:"banned"`
	Map    string        `json:"map,omitempty"`
	Left   span.Duration `json:"left,omitzero"`
	// Never says that the rule before all bans lets it pass.
	Never bool `json:"never"`
}

// Traffic is the packets that bans met.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}
