package policy

import (
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/span"
)

// Source is a policy as a person writes it: the sections [operators.NAME],
// [groups] and [topics.NAME] of the configuration, decoded and not yet
// checked. [Compile] checks it.
type Source struct {
	Operators map[string]OperatorSource `toml:"operators,omitempty" json:"operators,omitempty"`
	Groups    map[string][]string       `toml:"groups,omitempty" json:"groups,omitempty"`
	Topics    map[string]TopicSource    `toml:"topics,omitempty" json:"topics,omitempty"`
	// Imports are the imports in use, by name ("list:drop"). Set by who reads the
	// configuration.
	Imports map[string]ImportSource `toml:"-" json:"imports,omitempty"`
	// Self is this node's own operator, whose other nodes speak for it in the
	// topics that it accepts. nil where the node has none; no file says it.
	Self *ban.Operator `toml:"-" json:"self,omitempty"`
}

// OperatorSource is one [operators.NAME] section.
type OperatorSource struct {
	// ID is the operator's 26 characters.
	ID string `toml:"id" sample:"'6otxxr3xmzvq3wmhdzurq6ssnm'" json:"id"`
	// Weight counts in `weight >= N` only; 1 to 1000, default 100.
	Weight int `toml:"weight,omitempty" json:"weight,omitempty"`
	// Since is when the operator was trusted. Probation counts from then; without
	// it there is no probation.
	Since time.Time `toml:"since,omitzero" json:"since,omitzero"`
	// Probation is how long the claims of a new operator are watched only;
	// default 72h.
	Probation *span.Duration `toml:"probation,omitempty" sample:"'72h'" json:"probation,omitempty"`
	// Comment is for people.
	Comment string `toml:"comment,omitempty" json:"comment,omitempty"`
}

// TopicSource holds the rules of one [topics.NAME] section.
type TopicSource struct {
	Ban     string `toml:"ban,omitempty" sample:"'any of core or 2 of livepeer within 6h'" json:"ban,omitempty"` // whose claims ban: `any of core or 2 of livepeer within 6h`
	Watch   string `toml:"watch,omitempty" sample:"'any of livepeer or 3 weak of core'" json:"watch,omitempty"`  // whose claims are watched: `any of livepeer or 3 weak of core`
	Suspect string `toml:"suspect,omitempty" sample:"'any of everyone'" json:"suspect,omitempty"`                // whose claims make a suspect: `any of everyone`
	// Require is the evidence that a claim needs to count for a ban, by kind:
	// `hits >= 3 and tcp, scan: hits >= 10, decided: never`.
	Require string `toml:"require,omitempty" sample:"'hits >= 3 and tcp, scan: hits >= 10, decided: never'" json:"require,omitempty"`
	Dispute string `toml:"dispute,omitempty" sample:"'2 of core'" json:"dispute,omitempty"` // whose disputes lift a ban: `2 of core`
	// TTL is how long after its arrival a claim counts, by kind:
	// `72h, decided: 90d, scan: 12h`. Its author's end can only shorten that.
	TTL string `toml:"ttl,omitempty" sample:"'72h, decided: 90d, scan: 12h'" json:"ttl,omitempty"`
	// Prefix lists the widest prefixes accepted: `v4/32`, `v6/64`.
	Prefix []string `toml:"prefix,omitempty" sample:"['v4/32', 'v6/64']" json:"prefix,omitempty"`
	// Limits are for each operator in this topic.
	Limits *LimitsSource `toml:"limits,omitempty" json:"limits,omitempty"`
	// Accept says that the node takes part in the topic, so that its operator's
	// other nodes speak for it. Set by who reads the configuration.
	Accept bool `toml:"-" json:"accept,omitempty"`
}

// Defaults and bounds of a [Source].
const (
	DefaultWeight = 100
	MaxWeight     = 1000
	// DefaultProbation is long enough that a person sees, over a weekend too, whom
	// a new operator would have banned.
	DefaultProbation = 72 * time.Hour
	// MaxProbation keeps the end of a probation a date.
	MaxProbation = 10 * 365 * 24 * time.Hour
	// DefaultTTL is how long a machine's claim counts: over the pause of an
	// attacker that comes back on the second evening.
	DefaultTTL = 72 * time.Hour
	// MaxTTL is the longest that feeds carry.
	MaxTTL = 90 * 24 * time.Hour
	// MaxOperators bounds the cost of one vote's evaluation.
	MaxOperators = 10_000
	// DefaultPrefix4 and DefaultPrefix6 accept one IPv4 address and one IPv6
	// subscriber, and nothing wider.
	DefaultPrefix4 = 32
	DefaultPrefix6 = 64
)

// parsePrefixFloors reads `v4/32` and `v6/64`.
func parsePrefixFloors(list []string) (four, six int, bad string) {
	four, six = DefaultPrefix4, DefaultPrefix6
	for _, s := range list {
		family, bits, ok := strings.Cut(s, "/")
		n, err := strconv.Atoi(bits)
		switch {
		case ok && err == nil && family == "v4" && n >= 8 && n <= 32:
			four = n
		case ok && err == nil && family == "v6" && n >= 19 && n <= 128:
			six = n
		default:
			return 0, 0, s
		}
	}
	return four, six, ""
}

// A Trust holds the trust lists that followed operators publish: their names
// for people are not part of it.
type Trust map[ban.Operator]TrustList

// A TrustList is one operator's published list.
type TrustList struct {
	// Operators are trusted by the list's author, in the author's order.
	Operators []ban.Operator
	// Follows are operators whose own lists the author follows in turn; they
	// count one step deeper.
	Follows []ban.Operator
}
