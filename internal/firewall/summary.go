package firewall

import (
	"time"

	"banmesh/internal/ban"
)

// A Held is the kernel's treatment of an address, by its maps now.
type Held struct {
	// Banned says that a map holds it, Map which one, Left for how long, 0
	// where it has no end.
	Banned bool          `json:"banned"`
	Map    string        `json:"map,omitempty"`
	Left   time.Duration `json:"left,omitempty"`
	// Never says that the rule before all bans lets it pass.
	Never bool `json:"never"`
}

// A Summary of a table's contents, read from the kernel without reading bans:
// quick at a million of them, when nft's own listing takes a minute.
type Summary struct {
	Table    string             `json:"table"`
	Present  bool               `json:"present"`
	Off      bool               `json:"off"`   // switched off by [Panic]
	Owned    bool               `json:"owned"` // by the agent that runs
	Maps     []MapSummary       `json:"maps,omitempty"`
	Counters map[string]Counter `json:"counters,omitempty"` // by topic
	// Operators has the counters of observed topics by operator.
	Operators map[ban.Topic]map[string]Counter `json:"operators,omitempty"`
}

// Bans counts the banned prefixes. known is false where this kernel does not
// count elements, and there may be more.
func (s Summary) Bans() (n int, known bool) {
	known = true
	for _, m := range s.Maps {
		if m.Bans {
			n, known = n+int(m.Elements), known && m.Known
		}
	}
	return n, known
}

// A MapSummary is how full a map is.
type MapSummary struct {
	Name     string `json:"name"`
	Holds    string `json:"holds"` // for people
	Elements uint32 `json:"elements"`
	Known    bool   `json:"known"` // whether this kernel says how many
	Bans     bool   `json:"bans"`  // whether its elements are bans
}

// A Capability says whether an enforcer can work here.
type Capability struct {
	// Enforce says that bans can be enforced.
	Enforce bool `json:"enforce"`
	// Features are those of newer kernels, without which the enforcer takes a
	// longer way round.
	Features []Feature `json:"features,omitempty"`
	// Reason says, when Enforce is false, why not, and Fix how to change it.
	Reason string `json:"reason,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

// A Feature of the kernel, in words, and whether this one has it.
type Feature struct {
	What string `json:"what"`
	Have bool   `json:"have"`
}

// A Neighbour is a base chain of the packet filter, anybody's, in the order in
// which packets meet it.
type Neighbour struct {
	Family   string `json:"family"`
	Table    string `json:"table"`
	Chain    string `json:"chain"`
	Hook     string `json:"hook"`
	Type     string `json:"type"`
	Priority int32  `json:"priority"`
	// Ours says that the chain is the agent's.
	Ours bool `json:"ours"`
}
