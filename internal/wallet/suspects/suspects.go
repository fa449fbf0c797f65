// Package suspects counts the wallets that an orchestrator's log names beside
// errors. It is for a person to look at: no line of such a log proves anything that a
// wallet did, so nothing is ever banned by it.
package suspects

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"banmesh/internal/wallet"
)

const (
	// maxLine bounds a line; go-livepeer repeats clients' bytes, so a line
	// may be long. The rest of a longer one is passed over.
	maxLine = 64 << 10
	// maxWallets bounds the wallets that are told apart.
	maxWallets = 10_000
)

// A Kind is a log line's statement about a wallet.
type Kind uint8

// Kinds of lines, by the worth of the wallet in them.
const (
	// Unproven lines name a wallet before its signature is verified: anybody
	// can write any wallet into them.
	Unproven Kind = iota
	// Payment lines follow a valid signature, which others who saw it can send
	// again; most come of honest gateways' bugs and of our own delays.
	Payment
	kinds
)

// marks are the texts of go-livepeer 0.9.1 that make a line count; the first
// that a line holds decides.
var marks = []struct {
	text string
	kind Kind
}{
	{"Could not verify segment creds", Unproven},
	{"Could not parse payment", Unproven},
	{"Sig check failed", Unproven},
	{"Error receiving ticket", Payment},
	{"error processing payment", Payment},
	{"error redeeming ticket", Payment},
	{"Insufficient credit balance for stream", Payment},
	{"Insufficient balance, stopping stream", Payment},
	{"Mismatched hash for body", Payment},
}

// A Suspect is a wallet with the number of lines of each kind.
type Suspect struct {
	Wallet   string `json:"wallet"` // EIP-55
	Unproven int    `json:"unproven"`
	Payment  int    `json:"payment"`
}

// A Report sums up a log.
type Report struct {
	Lines    int       `json:"lines"` // read
	Suspects []Suspect `json:"suspects"`
	// More says that the log names more wallets than are told apart.
	More bool `json:"more,omitempty"`
}

// Read reads a log to its end.
func Read(r io.Reader) (Report, error) {
	var report Report
	counts := map[[20]byte]*[kinds]int{}
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n') // the rest is passed over
			line = nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return Report{}, fmt.Errorf("reading the log: %w", err)
		}
		if len(line) > 0 {
			report.Lines++
			if w, kind, ok := find(string(line)); ok {
				if counts[w] == nil && len(counts) < maxWallets {
					counts[w] = new([kinds]int)
				}
				if c := counts[w]; c != nil {
					c[kind]++
				} else {
					report.More = true
				}
			}
		}
		if err != nil {
			break
		}
	}
	report.Suspects = []Suspect{}
	for w, c := range counts {
		report.Suspects = append(report.Suspects, Suspect{wallet.Format(w), c[Unproven], c[Payment]})
	}
	slices.SortFunc(report.Suspects, func(a, b Suspect) int {
		return cmp.Or(cmp.Compare(b.Payment, a.Payment), cmp.Compare(b.Unproven, a.Unproven), cmp.Compare(a.Wallet, b.Wallet))
	})
	return report, nil
}

// find gives the wallet that a line names and the line's kind.
func find(line string) (w [20]byte, kind Kind, ok bool) {
	for _, m := range marks {
		if !strings.Contains(line, m.text) {
			continue
		}
		w, ok = sender(line)
		return w, m.kind, ok
	}
	return w, 0, false
}

// sender reads the first "sender=0x..." or "for sender 0x..." of a line.
func sender(line string) (w [20]byte, ok bool) {
	for rest := line; ; {
		i := strings.Index(rest, "sender")
		if i < 0 {
			return [20]byte{}, false
		}
		rest = rest[i+len("sender"):]
		if len(rest) < 1+wallet.Text || rest[0] != '=' && rest[0] != ' ' || rest[1:3] != "0x" {
			continue
		}
		if len(rest) > 1+wallet.Text && isHex(rest[1+wallet.Text]) {
			continue // longer than an address
		}
		if _, err := hex.Decode(w[:], []byte(rest[3:1+wallet.Text])); err == nil && w != ([20]byte{}) {
			return w, true
		}
	}
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
