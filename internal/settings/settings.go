// Package settings holds a checked configuration: the files merged, topics
// defined, policy compiled, lists read. It starts nothing and keeps nothing
// open, so that a command can read a configuration as the agent does.
package settings

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/neverban"
	"banmesh/internal/notify"
	"banmesh/internal/policy"
	"banmesh/internal/strict"
	"banmesh/topics"
)

// TopicDirectory holds topic definitions of the operator's own, below the
// configuration directory.
const TopicDirectory = "topics.d"

// Settings are a checked configuration: files merged, definitions found,
// policy compiled. Settings are immutable; a reload makes new ones.
type Settings struct {
	config      *config.Loaded
	definitions map[ban.Topic]*topics.Definition
	policy      *policy.Policy
	shields     shields
	topics      []Topic
	lists       []List
	trusting    trusting
	included    map[ban.Topic]included
	warnings    []string
	receivers   []notify.Entry
	// leftOut are topics whose definition cannot be used, broken why.
	leftOut map[ban.Topic]bool
	broken  []error
	// onPage are the switches that were set on the page; unseen says that this user may
	// not read which.
	onPage map[ban.Topic]config.Switch
	unseen bool
}

// Config is the configuration as it was written, merged.
func (s *Settings) Config() *config.Loaded { return s.config }

// Topics gives every topic that is defined, by name.
func (s *Settings) Topics() []Topic { return s.topics }

// Load reads and checks a configuration directory, and lays the switches over it that a
// person set on the page, in the state directory; state "" is without. It has no side
// effect; all faults are in the error, joined.
func Load(dir, state string) (*Settings, error) {
	loaded, unread := config.Load(dir)
	definitions, own, broken, err := topics.LoadEach(filepath.Join(dir, TopicDirectory))
	if err := errors.Join(unread, err); err != nil {
		for _, b := range broken {
			err = errors.Join(err, b.Err)
		}
		return nil, err
	}
	s := &Settings{config: loaded, definitions: map[ban.Topic]*topics.Definition{}, included: map[ban.Topic]included{}, leftOut: map[ban.Topic]bool{}}
	for _, d := range definitions {
		s.definitions[d.Name] = d
	}
	for _, b := range broken {
		s.leaveOut(b.Topic, b.Err)
	}
	var faults []error
	fault := func(path, format string, args ...any) { faults = append(faults, loaded.At(path, format, args...)) }
	directories, err := loaded.Includes()
	if err != nil {
		fault("include", "%v", err)
	}
	faults = append(faults, s.include(dir, directories)...)
	if err := s.lay(state); err != nil {
		faults = append(faults, err)
	}
	if loaded.Network == "" {
		loaded.Network = DefaultNetwork
	}
	if _, err := ban.ParseTopic(loaded.Network); err != nil {
		fault("network", "%v", err)
	}
	checkBrokers(loaded.Brokers, fault)
	loaded.Brokers = s.onceEach(loaded.Brokers)
	checkFirewall(loaded.Firewall, fault)
	checkEmbedded(loaded.EmbeddedBroker, fault)
	checkGate(loaded.Gate, fault)
	checkHTTP(loaded.HTTP, fault)
	checkPage(loaded.Page, fault)
	if _, err := loaded.Query.UIDs(); err != nil {
		fault("query.users", "%v", err)
	}
	s.checkLAPI(loaded.LAPI, fault)
	checkFail2ban(loaded.Fail2ban, fault)
	checkCrowdSec(loaded.CrowdSec, fault)
	checkVallumd(loaded, fault)
	checkGuests(loaded.Guests, fault)
	checkHoneyport(loaded.Honeyport, loaded.Firewall, fault)
	s.receivers = checkNotify(loaded.Notify, fault)
	checkNeverBan(loaded, fault)
	if _, err := parseProxies(loaded.Proxy); err != nil {
		fault("proxy", "%v", err)
	}
	s.checkLists(fault)
	s.leaveOutUnusable(dir, own)
	faults = append(faults, s.override(dir)...)
	var refused []error
	s.shields, refused = loadShields(dir, loaded)
	faults = append(faults, refused...)
	faults = append(faults, s.compile()...)
	if len(faults) > 0 {
		faults = append(faults, s.broken...)
		slices.SortStableFunc(faults, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
		return nil, errors.Join(faults...)
	}
	return s, cmp.Or(s.setTopics(), s.checkHoneyportTopics(), s.checkFail2banLog(), s.checkVallumdTopics())
}

// override lays the configuration's changes over the definitions of topics.
func (s *Settings) override(dir string) (faults []error) {
	for name, t := range s.config.Topics {
		d := s.definitions[ban.Topic(name)]
		if s.leftOut[ban.Topic(name)] {
			continue
		}
		if d == nil {
			f := s.config.At("topics."+name, "no such topic is defined: `agent topics list` names those that are; a definition of your own goes to %s", filepath.Join(dir, TopicDirectory, name+".toml"))
			if like := strict.Nearest(name, s.names()); like != "" {
				f.Hint = fmt.Sprintf("did you mean %q?", like)
			}
			faults = append(faults, f)
			continue
		}
		for key, err := range override(d, t) {
			faults = append(faults, s.config.At("topics."+name+"."+key, "%v", err))
		}
	}
	return faults
}

// compile compiles the policy.
func (s *Settings) compile() (faults []error) {
	var err error
	s.policy, err = policy.Compile(s.source(), nil)
	list, ok := errors.AsType[strict.Faults](err)
	if !ok && err != nil {
		return []error{err}
	}
	for _, f := range list {
		faults = append(faults, s.config.Locate(f))
	}
	return faults
}

// setTopics makes the settings of every topic, from its definition and the
// policy as they are now.
func (s *Settings) setTopics() error {
	s.topics = nil
	for _, name := range slices.Sorted(maps.Keys(s.definitions)) {
		t, err := s.setting(s.definitions[name])
		if err != nil {
			return s.config.At("topics."+string(name), "%v", err)
		}
		s.topics = append(s.topics, t)
	}
	return nil
}

// checkNeverBan finds faults in the entries of the never-ban list.
func checkNeverBan(c *config.Loaded, fault faulter) {
	for i, n := range c.NeverBan {
		if neverban.IsName(n.Target) {
			// Its addresses are looked up while the agent runs.
		} else if t, err := ban.ParseTarget(n.Target); err != nil {
			fault(fmt.Sprintf("never_ban.%d.target", i), "%v", err)
		} else if _, ok := t.Prefix(); !ok {
			fault(fmt.Sprintf("never_ban.%d.target", i), "%s is no address; `agent allow add` is for wallets, too", t)
		}
		if _, err := n.End(); err != nil {
			fault(fmt.Sprintf("never_ban.%d.until", i), "%v", err)
		}
	}
	for _, p := range c.MayBan {
		if _, err := netip.ParsePrefix(p); err != nil {
			fault("may_ban", "%v", err)
		}
	}
}

// names gives the names of all topics that are defined, sorted.
func (s *Settings) names() []string {
	list := []string{}
	for name := range s.definitions {
		list = append(list, string(name))
	}
	slices.Sort(list)
	return list
}

// DefaultNetwork is the network of a node that was told of none.
const DefaultNetwork = "banmesh"

// Policy is the compiled policy.
func (s *Settings) Policy() *policy.Policy { return s.policy }

// Peer is an operator that the configuration names.
type Peer struct {
	Name     string       `json:"name"`
	Operator ban.Operator `json:"operator"`
	Topics   []string     `json:"topics"` // where its claims count
	Comment  string       `json:"comment,omitempty"`
}

// Peers gives the operators that the configuration names, by name.
func (s *Settings) Peers() []Peer {
	list := []Peer{}
	for name, o := range s.config.Operators {
		id, _ := s.policy.Operator(name)
		p := Peer{Name: name, Operator: id, Topics: []string{}, Comment: o.Comment}
		for _, t := range s.topics {
			if slices.Contains(t.Operators, name) {
				p.Topics = append(p.Topics, string(t.Topic))
			}
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Files are the configuration files that were read, in order.
func (s *Settings) Files() []string { return s.config.Files }

// brokers gives the entries of all brokers, those of vallumds among them.
func (s *Settings) brokers() []config.Broker {
	list := slices.Clone(s.config.Brokers)
	for _, v := range s.config.Vallumd {
		list = append(list, v.Broker())
	}
	return list
}

// Reads gives the files that an agent reads at its start: those of the
// configuration, and those that the entries of brokers and receivers name.
func (s *Settings) Reads() []string {
	list := slices.Clone(s.config.Files)
	for _, b := range s.brokers() {
		for _, f := range []string{b.PasswordFile, b.CAFile, b.CertFile, b.KeyFile} {
			if f != "" {
				list = append(list, f)
			}
		}
	}
	for _, n := range s.config.Notify {
		for _, f := range []string{n.TokenFile, n.CAFile} {
			if f != "" {
				list = append(list, f)
			}
		}
	}
	return list
}
