// Package ban holds the nouns that every other package speaks: target, topic,
// class, claim and the identities of those who claim. It depends on the
// standard library alone and knows nothing of files, networks or kernels.
package ban

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxHits is the largest number of offences that a [Claim] can carry; a larger
// count is said as this one. One byte on the wire.
const MaxHits = 255

// A Claim is one entry of a feed: its author says that Target is banned in the
// feed's topic until End, for offences of Class, seen Hits times. It carries
// nothing else: no log line, user name or host name ever leaves a node.
type Claim struct {
	Target Target
	// End is when the ban ends. Feeds carry minutes since the Unix epoch,
	// rounded up, so a claim read from a feed has a whole minute here.
	End time.Time
	// Class is the kind of offence.
	Class Class
	// Hits is how many offences the author saw, 0 to [MaxHits]. 0 means that
	// the ban was made by hand.
	Hits uint8
	// Established says that the evidence came over an established connection,
	// so that the source address was not spoofed.
	Established bool
	// Basis says how well founded the claim is.
	Basis Basis
}

// Compare orders claims by target, then by every other field, so that a sorted
// list of claims is the same list on every machine.
func (c Claim) Compare(d Claim) int {
	return cmp.Or(
		c.Target.Compare(d.Target),
		c.End.Compare(d.End),
		cmp.Compare(c.Class, d.Class),
		cmp.Compare(c.Hits, d.Hits),
		boolCompare(c.Established, d.Established),
		cmp.Compare(c.Basis, d.Basis),
	)
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// A Class is the kind of offence behind a claim. Numbers are part of the
// protocol: they are never reused, and a reader treats one that it does not
// know as [ClassOther]. The wire has five bits for one.
type Class uint8

// MaxClass is the largest class that the wire can carry.
const MaxClass Class = 31

// The classes of the protocol, version 1.
const (
	ClassOther       Class = 0  // none of the below
	ClassManual      Class = 1  // banned by hand
	ClassAuth        Class = 2  // failed logins, guessed passwords
	ClassInvalidUser Class = 3  // logins as users that do not exist
	ClassScan        Class = 4  // probing: wrong protocol, unknown paths, port scans
	ClassScanWeak    Class = 5  // probing that honest peers can also look like
	ClassFlood       Class = 6  // too many requests or connections
	ClassSpam        Class = 7  // unwanted messages
	ClassExploit     Class = 8  // a known attack pattern
	ClassRecidive    Class = 9  // banned again and again
	ClassPayment     Class = 10 // broke a payment or service agreement (wallets)
	ClassContent     Class = 11 // stored or asked for content that must not be
)

var classNames = [...]string{
	ClassOther:       "other",
	ClassManual:      "manual",
	ClassAuth:        "auth",
	ClassInvalidUser: "invalid-user",
	ClassScan:        "scan",
	ClassScanWeak:    "scan-weak",
	ClassFlood:       "flood",
	ClassSpam:        "spam",
	ClassExploit:     "exploit",
	ClassRecidive:    "recidive",
	ClassPayment:     "payment",
	ClassContent:     "content",
}

// String gives the class's name, or "class-N" for a number that this version
// does not know.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class-%d", uint8(c))
}

// ParseClass reads a name that [Class.String] gives for a known class.
func ParseClass(s string) (Class, error) {
	for i, name := range classNames {
		if s == name {
			return Class(i), nil
		}
	}
	return 0, fmt.Errorf("unknown class %q: want one of %s", s, strings.Join(classNames[:], ", "))
}

// MarshalText implements [encoding.TextMarshaler].
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (c *Class) UnmarshalText(b []byte) error {
	v, err := ParseClass(string(b))
	if err == nil {
		*c = v
	}
	return err
}

// A Topic names a subject of bans: "sshd", "livepeer",
// "broadcaster-addresses". It is one to 32 of a-z, 0-9 and '-', and begins and
// ends with a letter or digit.
type Topic string

// MaxTopic is the longest topic, in bytes.
const MaxTopic = 32

// ErrTopic says that a text is not a topic.
var ErrTopic = errors.New("a topic is 1 to 32 of a-z, 0-9 and '-', beginning and ending with a letter or digit")

// ParseTopic checks a topic's spelling. The same rule serves networks' names.
func ParseTopic(s string) (Topic, error) {
	if len(s) == 0 || len(s) > MaxTopic || s[0] == '-' || s[len(s)-1] == '-' {
		return "", fmt.Errorf("%q: %w", s, ErrTopic)
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return "", fmt.Errorf("%q: %w", s, ErrTopic)
		}
	}
	return Topic(s), nil
}
