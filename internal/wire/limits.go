package wire

import "time"

// Limits of the protocol, version 1. A message beyond one is refused whole,
// never cut. Each bounds the cost of foreign bytes.
const (
	// MaxPayload is the largest payload that is read at all. AWS IoT caps
	// payloads at 128 KiB and our own broker a little above 64 KiB.
	MaxPayload = 128 << 10
	// MaxSent is the largest payload that an author makes: one TCP window, and
	// far below the size that any broker refuses by default.
	MaxSent = 64 << 10
	// MaxLivePayload bounds a head, which every follower hears all the time.
	MaxLivePayload = 4 << 10
	// MaxState bounds the state of a small feed behind a retained head, so that who
	// joins a network of many small feeds needs no more than their heads.
	MaxState = 2 << 10
	// MaxMessageClaims bounds the claims of one message. The smallest claim is
	// 2 bytes, so it also bounds memory to 32 times the payload.
	MaxMessageClaims = 32 << 10
	// MaxFeedClaims is the largest feed: it takes a reader 16 MB.
	MaxFeedClaims = 1 << 20
	// MaxDeltaOps bounds the changes of one delta, so that a live reader hears
	// of a big change in pieces of about 24 KiB.
	MaxDeltaOps = 4096
	// MaxRing is the longest ring of deltas that a head may announce.
	MaxRing = 1024
	// MaxPieces bounds chunks, and segments, that a manifest lists: a feed of
	// MaxFeedClaims wallets takes 512 chunks of 48 KiB.
	MaxPieces = 2048
	// MaxFeedBytes bounds the pieces of a feed together: MaxFeedClaims wallets.
	MaxFeedBytes = 32 << 20
	// MaxPendingBytes bounds the deltas that wait for the one before them.
	MaxPendingBytes = 4 << 20
	// MaxInlinePieces is how many pieces a head lists itself; with more, a
	// manifest lists them, so that heads stay below 400 bytes.
	MaxInlinePieces = 8
	// MaxSlot is the highest slot of a chunk, segment or delta.
	MaxSlot = 4*MaxPieces - 1
	// MaxEnd is the furthest end of a claim: nobody needs a longer ban without
	// saying it again.
	MaxEnd = 90 * 24 * time.Hour
	// MaxAhead is how far in the future a message may say that it was issued:
	// honest clocks without NTP drift by minutes.
	MaxAhead = 10 * time.Minute
	// MaxEpochAhead is how far in the future an epoch may begin: an author
	// whose clock was a day fast keeps its epoch when the clock is put right.
	MaxEpochAhead = 48 * time.Hour
	// MaxTTL is the longest freshness limit of a head: who wants to be
	// believed says so at least once a day.
	MaxTTL = 24 * time.Hour
	// MaxCertificate is the longest life of a node certificate. It bounds how
	// long a stolen node key is believed where a revocation is withheld.
	MaxCertificate = 90 * 24 * time.Hour
	// MaxNodes is the most nodes that an operator's card certifies.
	MaxNodes = 256
	// MaxRevocations is the most revocations that a card carries: an expired
	// certificate needs none.
	MaxRevocations = 256
	// MaxCard bounds a card: MaxNodes certificates and MaxRevocations take
	// 22 KiB.
	MaxCard = 32 << 10
	// MaxText bounds a card's contact and criteria URL; MaxCardName its name.
	MaxText     = 256
	MaxCardName = 64
	// MaxTrusted bounds a published trust list.
	MaxTrusted = 1024
	// MaxDefinition bounds a published topic definition.
	MaxDefinition = 32 << 10
	// MaxListed bounds the wallets of a published list, MaxNote each text about
	// one; the list as a whole has at most MaxSent bytes.
	MaxListed = 1024
	MaxNote   = 300
	// MaxLoginLife is the longest life of a login proof: longer than clocks
	// are apart, too short to be worth stealing.
	MaxLoginLife = 20 * time.Minute
)
