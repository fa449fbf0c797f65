package neverban

import (
	_ "embed"
	"strings"
)

//go:embed shared.list
var sharedList string

// Shared lists the shipped addresses that many people share: proxies and relays
// of which their networks say so themselves, and public name servers. Carriers'
// pools are in no public register; people add those that they know.
func Shared() ([]Entry, error) { return ReadList(strings.NewReader(sharedList), SourceCaution) }
