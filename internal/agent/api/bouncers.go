package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"

	"banmesh/internal/compat/credentials"

	"banmesh/internal/compat/lapi"
	"banmesh/internal/compat/serving"
	"banmesh/internal/control"
)

// Bouncers are the programs that enforce this node's bans by CrowdSec's local
// API.
type Bouncers interface {
	Keys() *credentials.Keys
	// Listen is where they ask, "" while that is off.
	Listen() string
	Clients() []lapi.Status
	// Refused tells of programs without a valid key.
	Refused() serving.Refused
}

// refused shows wrong credentials since the start.
func refused(r serving.Refused) *control.CompatRefused {
	if r.Count == 0 {
		return nil
	}
	out := &control.CompatRefused{Count: r.Count, At: r.At}
	if r.From.IsValid() {
		out.From = r.From.String()
	}
	return out
}

// compat lists the protocols of other programs that are spoken.
func (s *Server) compat() (list []control.Compat) {
	if at := s.o.Bouncers.Listen(); at != "" {
		list = append(list, control.Compat{Protocol: "lapi", Listen: at, Clients: each(s.o.Bouncers.Clients(), compatClient), Refused: refused(s.o.Bouncers.Refused())})
	}
	if at := s.o.CrowdSec.Listen(); at != "" {
		list = append(list, control.Compat{Protocol: "capi", Listen: at, Clients: each(s.o.CrowdSec.Clients(), crowdSecClient), Refused: refused(s.o.CrowdSec.Refused())})
	}
	if at := s.o.Fail2ban.Listen(); at != "" {
		list = append(list, control.Compat{Protocol: "fail2ban", Listen: at, Clients: each(s.o.Fail2ban.Clients(), fail2banClient)})
	}
	return append(list, s.compatLists()...)
}

// vallumds gives the private brokers of [[vallumd]].
func (s *Server) vallumds() []control.Vallumd {
	if s.o.Vallumds == nil {
		return nil
	}
	return s.o.Vallumds()
}

func compatClient(x lapi.Status) control.CompatClient {
	c := control.CompatClient{Name: x.Name, Kind: x.Kind, Version: x.Version, Topics: x.Topics, Last: x.Pulled, Told: x.Told}
	if x.From.IsValid() {
		c.From = x.From.String()
	}
	for _, d := range x.Dropped {
		c.Requests += d.Requests
		c.Packets += d.Packets
	}
	if x.Flat {
		c.Warning = "may enforce a range for its first address alone: ranges of up to 16 addresses are told one by one"
	}
	return c
}

// CounterName makes an operator's name one that the kernel takes for a counter
// and a bouncer for an origin: letters, digits, dash and underscore. One that had others,
// or is a name of this node's own, ends in four digits of its checksum, so that no two
// operators are counted as one.
func CounterName(name string) string {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, name)
	if plain == name && name != Here && name != lapi.OriginHere && name != lapi.OriginNetwork {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return plain + "_" + hex.EncodeToString(sum[:2])
}

// refusedOf gives the requests and packets that bouncers refused by the word of
// an operator.
func (s *Server) refusedOf(name string) (n uint64) {
	for _, c := range s.o.Bouncers.Clients() {
		d := c.Dropped[CounterName(name)]
		n += d.Requests + d.Packets
	}
	return n
}

// shareOf gives an operator's share of the traffic that was refused for several together.
func (s *Server) shareOf(name string) uint64 { return s.o.Shared.Of(CounterName(name)) }

// bouncers lists the programs that have keys.
func (s *Server) bouncers(*http.Request) (any, error) {
	clients := s.o.Bouncers.Clients()
	return each(s.o.Bouncers.Keys().List(), func(b credentials.Bouncer) control.Bouncer {
		of := slices.DeleteFunc(slices.Clone(clients), func(c lapi.Status) bool { return c.Name != b.Name })
		return control.Bouncer{Name: b.Name, Topics: b.Topics, Created: b.Created, Clients: each(of, compatClient)}
	}), nil
}

// addBouncer makes a key.
func (s *Server) addBouncer(r *http.Request) (any, error) {
	var q control.BouncerRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	for _, t := range q.Topics {
		if _, ok := s.o.Settings().Find(t); !ok {
			return nil, control.Refuse(control.CodeMissing, "see `agent topics list`", "no topic %.64q is defined", t)
		}
	}
	key, err := s.o.Bouncers.Keys().Add(q.Name, q.Topics, s.o.Now())
	switch {
	case errors.Is(err, credentials.ErrName):
		return nil, control.Refuse(control.CodeBad, "", "%v", err)
	case errors.Is(err, credentials.ErrTaken), errors.Is(err, credentials.ErrMany):
		return nil, control.Refuse(control.CodeRefused, "agent bouncers remove NAME", "%v", err)
	}
	return control.BouncerKey{Key: key, Listen: s.o.Bouncers.Listen()}, err
}

// removeBouncer takes a key away.
func (s *Server) removeBouncer(r *http.Request) (any, error) {
	var q control.BouncerRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	err := s.o.Bouncers.Keys().Remove(q.Name)
	if errors.Is(err, credentials.ErrUnknown) {
		return nil, control.Refuse(control.CodeMissing, "see `agent bouncers`", "no bouncer is named %.64q", q.Name)
	}
	return control.CountAnswer{Count: 1}, err
}
