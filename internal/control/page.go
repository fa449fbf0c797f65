package control

import "time"

// PageLink answers POST /v1/page/open: a link that signs one browser in, once.
type PageLink struct {
	URL   string    `json:"url"`
	Until time.Time `json:"until"` // when it is worth nothing any more
}

// PageClosed answers POST /v1/page/close.
type PageClosed struct {
	Sessions int `json:"sessions"` // that were ended
	Links    int `json:"links"`    // that were not used yet
}

// BanPage answers GET /v1/bans/page: some of the bans in force, for tables.
//
// It takes the parameters search (an address or prefix, which finds every ban that
// overlaps it, or a part of a target's text), topic, origin, sort ("ends", "-ends",
// "target" or "topic"), offset and limit (100, at most [MaxBanPage]).
type BanPage struct {
	Bans []Ban `json:"bans"`
	// Total is how many bans are in force, Matching how many of them the search
	// found, Offset how many of those are before the first one here.
	Total    int `json:"total"`
	Matching int `json:"matching"`
	Offset   int `json:"offset"`
}

// MaxBanPage bounds one [BanPage].
const MaxBanPage = 1000
