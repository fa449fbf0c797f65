package control

import (
	"time"

	"banmesh/internal/ban"
)

// A WalletList is an operator's publication about the wallets that it denies in
// a topic. It denies nobody: claims do. All its texts are foreign.
type WalletList struct {
	Operator ban.Operator   `json:"operator"`
	By       string         `json:"by"` // the operator's name here
	Topic    ban.Topic      `json:"topic"`
	Number   uint64         `json:"number"`
	Issued   time.Time      `json:"issued"`
	Name     string         `json:"list"`
	Contact  string         `json:"contact,omitempty"`
	Criteria string         `json:"criteria,omitempty"`
	Entries  []ListedWallet `json:"entries"`
}

// A ListedWallet is one wallet of a [WalletList].
type ListedWallet struct {
	Wallet   ban.Target `json:"wallet"`
	Note     string     `json:"note,omitempty"`
	Evidence string     `json:"evidence,omitempty"` // an http(s) address, or sha256: and the hash
}

// Listed is the entry of one list for one wallet.
type Listed struct {
	By       string `json:"by"` // whose list, as the rules name the operator
	List     string `json:"list,omitempty"`
	Note     string `json:"note,omitempty"`
	Evidence string `json:"evidence,omitempty"`
	Contact  string `json:"contact,omitempty"` // where to object
	Criteria string `json:"criteria,omitempty"`
}

// About gives the list's entry for a wallet; false where it does not name it.
func (l *WalletList) About(wallet ban.Target) (Listed, bool) {
	for _, e := range l.Entries {
		if e.Wallet == wallet {
			return Listed{By: l.By, List: l.Name, Note: e.Note, Evidence: e.Evidence, Contact: l.Contact, Criteria: l.Criteria}, true
		}
	}
	return Listed{}, false
}
