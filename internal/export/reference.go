package export

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"banmesh/internal/ban"
)

// References names bans for the people whom they refuse: a number that says
// nothing without this node's key, and by which its operator finds the ban.
type References struct{ key []byte }

// ReferenceKey is the length of a key, in bytes.
const ReferenceKey = 32

// NewReferences makes references with a key that is kept: those of another key
// find nothing.
func NewReferences(key []byte) *References { return &References{key} }

// crockford has no letters that people take for digits or for each other.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// Of gives the reference of a ban, such as "7ZK3M-0QX9V". It stays the same
// when the ban is renewed.
func (r *References) Of(k Key) string {
	mac := hmac.New(sha256.New, r.key)
	mac.Write([]byte(string(k.Topic) + " " + k.Target.String()))
	text := crockford.EncodeToString(mac.Sum(nil))
	return text[:5] + "-" + text[5:10]
}

// ParseReference reads a reference as people type it.
func ParseReference(text string) (string, bool) {
	text = strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(text))
	if len(text) != 10 || strings.Trim(text, "0123456789ABCDEFGHJKMNPQRSTVWXYZ") != "" {
		return "", false
	}
	return text[:5] + "-" + text[5:], true
}

// Find gives the ban in force that has a reference.
func (r *References) Find(reference string, bans Bans) (ban.Target, ban.Topic, bool) {
	_, all := bans.Snapshot()
	for e := range all {
		if r.Of(Key{e.Target, e.Topic}) == reference {
			return e.Target, e.Topic, true
		}
	}
	return ban.Target{}, "", false
}
