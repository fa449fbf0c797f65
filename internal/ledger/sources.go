package ledger

import (
	"errors"
	"fmt"
	"strings"

	"banmesh/internal/ban"
)

// A Source is who on this node said an own claim. Claims of one target by
// several sources stand beside each other, so that one of them can be withdrawn
// without the others.
type Source string

// The sources that the program itself has. A program that bans through the control
// socket is named by itself; one that hands on a list is "list:NAME".
const (
	SourceDetection Source = "detection"
	SourceHand      Source = "hand"
	SourceFail2ban  Source = "fail2ban"
	SourceCrowdSec  Source = "crowdsec"
	// SourceNamed is detection of hosts that the log names and does not give the address
	// of. Its claims never leave the node.
	SourceNamed Source = "detection-by-name"
	// SourceSighting is of offences seen here that were not enough for a ban. It
	// bans nobody here and is weak evidence elsewhere ([Own.Sight]).
	SourceSighting Source = "sighting"
)

// sightingFeed is the number of [SourceSighting].
const sightingFeed = 0

// Basis gives the basis of the source's claims: the decision of a person, or
// another program's ban. Detection says itself.
func (s Source) Basis() ban.Basis {
	if s == SourceHand {
		return ban.BasisDecided
	}
	return ban.BasisHandedOver
}

// Published says whether the source's claims may leave the node: not those of hosts
// whose address a log does not give, and not those that come from somebody who
// publishes them already.
func (s Source) Published() bool {
	kind, _, named := strings.Cut(string(s), ":")
	return s != SourceNamed && !(named && (kind == ban.ImportList || kind == ban.ImportVallumd))
}

// MaxSource is the longest source, in bytes.
const MaxSource = 64

// ErrSource says that a text is no source.
var ErrSource = fmt.Errorf("a source is 1 to %d printable ASCII characters without a space", MaxSource)

// ParseSource checks a source's spelling.
func ParseSource(s string) (Source, error) {
	if len(s) == 0 || len(s) > MaxSource {
		return "", ErrSource
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return "", ErrSource
		}
	}
	return Source(s), nil
}

// ownFeeds is how many sources there can be. Their claims are votes with the
// numbers below it, a source each; the feeds of peers have those from it on.
const ownFeeds = 256

func isOwn(feed uint16) bool { return feed < ownFeeds }

// errSources says that there is no number for another source.
var errSources = errors.New("too many sources of own bans")

// sources numbers the sources. Numbers are not kept over restarts.
type sources struct {
	numbers map[Source]uint16
	names   []Source
}

func (s *sources) init() {
	s.numbers = map[Source]uint16{SourceSighting: sightingFeed}
	s.names = []Source{SourceSighting}
}

func (s *sources) number(name Source) (uint16, error) {
	if n, ok := s.numbers[name]; ok {
		return n, nil
	}
	if len(s.names) == ownFeeds {
		return 0, fmt.Errorf("%w: %w: more than %d", ErrTooMany, errSources, ownFeeds)
	}
	n := uint16(len(s.names))
	s.numbers[name] = n
	s.names = append(s.names, name)
	return n, nil
}
