package control

import "time"

// GateStatus answers GET /v1/gate: the wallet gate's address and counters.
type GateStatus struct {
	URL string `json:"url"` // for -authWebhookUrl
	// Inherited says that systemd holds the socket, so that a restart of the
	// agent refuses nobody.
	Inherited bool   `json:"inherited"`
	Allowed   uint64 `json:"allowed"`
	// Refused counts the calls of denied wallets, in a dry run too.
	Refused uint64 `json:"refused"`
	// Unanswered counts the calls that were allowed because the lookup took
	// too long, Unread those that named no wallet. Both are also in Allowed
	// when a wallet was named.
	Unanswered uint64 `json:"unanswered"`
	Unread     uint64 `json:"unread"`
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
