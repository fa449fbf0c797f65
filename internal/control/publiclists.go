package control

import (
	"time"

	"banmesh/internal/ban"
)

// A PublicList is an element of the answer to GET /v1/lists: a public list of
// addresses that counts here, as it is now. Texts of the list and of its server are
// foreign.
type PublicList struct {
	Name   string      `json:"name"`
	File   string      `json:"file,omitempty"`
	URL    string      `json:"url,omitempty"`
	Topics []ban.Topic `json:"topics"`
	Rule   string      `json:"rule"` // "watch", "suspect" or "ban"
	Format string      `json:"format,omitempty"`
	// Entries count now, until Ends at the latest.
	Entries int       `json:"entries"`
	Ends    time.Time `json:"ends,omitzero"`
	// Taken is when the edition was taken that counts, Confirmed when its origin last had
	// it. Sum identifies its entries.
	Taken     time.Time `json:"taken,omitzero"`
	Confirmed time.Time `json:"confirmed,omitzero"`
	Sum       string    `json:"sum,omitempty"`
	// The numbers of that edition that were not taken, by reason.
	Junk     int `json:"junk"`
	Wide     int `json:"wide"`
	Never    int `json:"never_ban"`
	Low      int `json:"below_minimum"`
	Repeated int `json:"repeated"`
	Beyond   int `json:"beyond_max_entries"`
	// Refused are some of those that a person may want to see.
	Refused []ListRefusal `json:"refused,omitempty"`
	// Held is a newer edition that waits for a person.
	Held *HeldEdition `json:"held,omitempty"`
	// Fault says why the newest edition is not had or not read, "" where it is.
	Fault string `json:"fault,omitempty"`
	// Asked is when its server was last asked.
	Asked time.Time `json:"asked,omitzero"`
	// Banning, Met, Guests, Disputed and Overruled are its use here, as of a [Peer].
	Banning   int `json:"banning"`
	Met       int `json:"met"`
	Guests    int `json:"guests"`
	Disputed  int `json:"disputed"`
	Overruled int `json:"overruled"`
	// Withdrawn is how many claims of its entries, over all topics, count for nothing
	// because a person withdrew them here.
	Withdrawn int `json:"withdrawn"`
	// Quarantine is why nothing of it counts, nil where it does.
	Quarantine *Quarantine `json:"quarantine,omitempty"`
}

// A ListRefusal is an entry of a list that was not taken.
type ListRefusal struct {
	Text string `json:"text"`
	Why  string `json:"why"`
}

// A HeldEdition is an edition of a list that changed more than a list may by itself.
type HeldEdition struct {
	Sum    string    `json:"sum"` // names it in [ListApproval]
	Why    string    `json:"why"`
	Since  time.Time `json:"since"`
	Before int       `json:"before"`
	After  int       `json:"after"`
	Added  int       `json:"added"`
	Gone   int       `json:"gone"`
	Sample []string  `json:"sample,omitempty"` // some of those that are new
}

// ListApproval is the body of POST /v1/lists/approve: the edition that a person has
// seen counts.
type ListApproval struct {
	Name string `json:"name"`
	Sum  string `json:"sum"` // of the held edition
}
