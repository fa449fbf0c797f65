package ban

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// An Import names claims that come into this node from outside of the federation: a
// kind and a name, as "list:drop" or "vallumd:home". In the ledger it stands as an
// operator that no key has.
type Import string

// The kinds of imports.
const (
	ImportList    = "list"    // a public list of addresses
	ImportVallumd = "vallumd" // a network of vallumd's
)

// MaxImportName is the longest name of an import without its kind, in bytes.
const MaxImportName = 32

// ImportOf gives the import of a kind with a name.
func ImportOf(kind, name string) Import { return Import(kind + ":" + name) }

// ParseImport checks the spelling of an import. Its name has the letters of a topic.
func ParseImport(s string) (Import, error) {
	kind, name, _ := strings.Cut(s, ":")
	if kind != ImportList && kind != ImportVallumd {
		return "", fmt.Errorf("%q is no import: it begins with %q or %q", clip(s), ImportList+":", ImportVallumd+":")
	}
	if _, err := ParseTopic(name); err != nil || len(name) > MaxImportName {
		return "", fmt.Errorf("%q cannot be a name here: use 1 to %d of a-z, 0-9 and '-'", clip(name), MaxImportName)
	}
	return Import(s), nil
}

// importDomain keeps the identities of imports and those of keys apart: no public
// key begins so.
const importDomain = "banmesh import, which has no key\x00"

// Operator gives the operator as which the import's claims stand in the ledger.
func (i Import) Operator() (o Operator) {
	sum := sha256.Sum256([]byte(importDomain + string(i)))
	copy(o[:], sum[:])
	return o
}

// Feed gives the feed of the import's claims in a topic.
func (i Import) Feed(topic Topic) Feed {
	sum := sha256.Sum256([]byte(importDomain + "node\x00" + string(i)))
	f := Feed{Topic: topic, Operator: i.Operator()}
	copy(f.Node[:], sum[:])
	return f
}
