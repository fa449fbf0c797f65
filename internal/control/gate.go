package control

import "time"

// GateStatus answers GET /v1/gate: how the wallet gate, a process of its own,
// says that it is.
type GateStatus struct {
	URL  string `json:"url"` // for -authWebhookUrl
	File string `json:"file"`
	// Running says that the gate answered; all below is its own account then.
	Running bool `json:"running"`
	// Error is why it did not, or why the agent cannot write its list.
	Error string `json:"error,omitempty"`
	// Current says that it answers by the newest list; Fault is why it has none
	// and allows everybody.
	Current bool      `json:"current"`
	Fault   string    `json:"fault,omitempty"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started,omitzero"`
	// Inherited says that systemd holds the socket, so that a restart of the
	// gate refuses nobody.
	Inherited bool `json:"inherited"`
	// Listed counts the denied wallets of its list. Written is when that was
	// made, Confirmed when the agent last said that it holds still.
	Listed    int       `json:"listed"`
	Written   time.Time `json:"written,omitzero"`
	Confirmed time.Time `json:"confirmed,omitzero"`
	Allowed   uint64    `json:"allowed"`
	// Refused counts the calls of denied wallets, in a dry run too.
	Refused uint64 `json:"refused"`
	// Unread counts the calls that named no wallet.
	Unread uint64 `json:"unread"`
	// Stray counts requests that were not the orchestrator's.
	Stray uint64 `json:"stray"`
	// UpstreamRefused and UpstreamFailed count the chained webhook's answers.
	UpstreamRefused uint64 `json:"upstream_refused"`
	UpstreamFailed  uint64 `json:"upstream_failed"`
	DryRun          bool   `json:"dry_run"`
	// Wallets are the ones seen last, at most 4096, those refused most first.
	Wallets []WalletCount `json:"wallets"`
	// Forgotten counts wallets that made room for others.
	Forgotten uint64 `json:"forgotten"`
}

// WalletCount is how often one wallet asked.
type WalletCount struct {
	Wallet  string    `json:"wallet"` // EIP-55
	Allowed uint64    `json:"allowed"`
	Refused uint64    `json:"refused"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}
