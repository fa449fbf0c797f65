package settings

import (
	"fmt"
	"iter"
	"net/url"
	"regexp"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/span"
)

// Defaults of an entry of [[vallumd]].
const (
	defaultSetTimeout = time.Hour
	defaultVallumdFor = 24 * time.Hour
	// defaultVallumdLive is far below a list's: a broker's word has no author.
	defaultVallumdLive = 10_000
	// defaultVallumdHour is that of a peer.
	defaultVallumdHour = 200
)

// A Vallumd is a checked entry of [[vallumd]].
type Vallumd struct {
	config.Vallumd
	Timeout, For time.Duration
}

// Vallumd gives the entries of [[vallumd]] by the import that each is.
func (s *Settings) Vallumd() iter.Seq2[ban.Import, Vallumd] {
	return func(yield func(ban.Import, Vallumd) bool) {
		for _, c := range s.config.Vallumd {
			v := Vallumd{c, defaultSetTimeout, defaultVallumdFor}
			if d, err := span.Parse(string(c.Timeout)); err == nil && c.Timeout != "" {
				v.Timeout = d
			}
			if d, err := span.Parse(string(c.For)); err == nil && c.For != "" {
				v.For = d
			}
			if v.Live == 0 {
				v.Live = defaultVallumdLive
			}
			if v.PerHour == 0 {
				v.PerHour = defaultVallumdHour
			}
			if !yield(ban.ImportOf(ban.ImportVallumd, c.Name), v) {
				return
			}
		}
	}
}

// setName is the spelling of an ipset that is one level of an MQTT topic.
var setName = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,31}$`)

// checkVallumd finds faults in the entries of vallumd.
func checkVallumd(c *config.Loaded, fault faulter) {
	names := map[string]bool{}
	for i, v := range c.Vallumd {
		at := func(key string) string { return fmt.Sprintf("vallumd.%d.%s", i, key) }
		if _, err := ban.ParseImport(ban.ImportVallumd + ":" + v.Name); err != nil {
			fault(at("name"), "%v", err)
		} else if names[v.Name] {
			fault(at("name"), "two entries are called %q", v.Name)
		}
		names[v.Name] = true
		checkVallumdBroker(c, v, at, fault)
		checkBrokerFiles(fmt.Sprintf("vallumd.%d", i), v.Broker(), fault)
		if len(v.Publish)+len(v.Accept) == 0 {
			fault(fmt.Sprintf("vallumd.%d", i), "it does nothing: name topics in publish, in accept or in both")
		}
		for key, list := range map[string][]string{"publish": v.Publish, "accept": v.Accept} {
			for _, t := range list {
				if _, err := ban.ParseTopic(t); err != nil {
					fault(at(key), "%v", err)
				}
			}
		}
		checkSets(v, at, fault)
		switch d, err := span.Parse(string(v.Timeout)); {
		case v.Timeout == "":
		case err != nil:
			fault(at("timeout"), "%v", err)
		case d < time.Minute:
			fault(at("timeout"), "%s is too short: addresses are told again before it, so want at least 1m", v.Timeout)
		}
		switch d, err := span.Parse(string(v.For)); {
		case v.For == "":
		case err != nil:
			fault(at("for"), "%v", err)
		case d < time.Minute || d > 90*24*time.Hour:
			fault(at("for"), "%s is not between 1m and 90d", v.For)
		}
	}
}

// checkVallumdBroker refuses a broker of the federation: strangers write to it, and
// whoever writes to vallumd's topics closes every vallumd to whom he likes.
func checkVallumdBroker(c *config.Loaded, v config.Vallumd, at func(string) string, fault faulter) {
	if err := checkURL(v.URL); err != nil {
		fault(at("url"), "%v", err)
		return
	}
	u, err := url.Parse(v.URL)
	if err != nil || u.Scheme == "ws" || u.Scheme == "wss" {
		fault(at("url"), "%q: want tcp://HOST:PORT, ssl:// or unix:///PATH", v.URL)
		return
	}
	if u.Scheme != "unix" && u.Port() == "" {
		fault(at("url"), "%q names no port", v.URL)
	}
	for _, b := range c.Brokers {
		if slices.Contains(append([]string{b.URL}, b.Others...), v.URL) {
			fault(at("url"), "%s is a broker of the federation, to which others write: vallumd believes everybody, so name a private one", v.URL)
		}
	}
}

// checkSets finds faults in the names of sets.
func checkSets(v config.Vallumd, at func(string) string, fault faulter) {
	of := map[string]string{} // topic by set
	for _, t := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(v.Publish, v.Accept)))) {
		name, name6 := v.SetsOf(t)
		for _, n := range []string{name, name6} {
			switch other := of[n]; {
			case n == "":
			case !setName.MatchString(n):
				fault(at("sets"), "%q is no name of an ipset", n)
			case other != "" && other != t:
				fault(at("sets"), "%s and %s have one set, %q: nobody could say whose an address in it is", other, t, n)
			default:
				of[n] = t
			}
		}
	}
	for key, sets := range map[string]map[string]string{"sets": v.Sets, "sets6": v.Sets6} {
		for t := range sets {
			if !slices.Contains(v.Publish, t) && !slices.Contains(v.Accept, t) {
				fault(at(key), "%s is in neither publish nor accept", t)
			}
		}
	}
}

// checkVallumdTopics finds topics in the entries of vallumd that are not there, or that
// an ipset cannot hold.
func (s *Settings) checkVallumdTopics() error {
	for i, v := range s.config.Vallumd {
		for key, list := range map[string][]string{"publish": v.Publish, "accept": v.Accept} {
			for _, name := range list {
				at := fmt.Sprintf("vallumd.%d.%s", i, key)
				switch t, ok := s.Find(ban.Topic(name)); {
				case !ok:
					return s.config.At(at, "no topic %q is defined: `agent topics list` names those that are", name)
				case t.Definition.Target != "ip":
					return s.config.At(at, "%s bans no addresses, and an ipset holds nothing else", name)
				}
			}
		}
	}
	return nil
}
