package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/firewall"
	"banmesh/internal/policy"
	"banmesh/internal/span"
	"banmesh/internal/typo"
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
	topics      []TopicSetting
	trusting    trusting
	included    map[ban.Topic]included
	warnings    []string
}

// TopicSetting is what a node does with one topic.
type TopicSetting struct {
	Topic     ban.Topic `json:"topic"`
	Title     string    `json:"title"`
	Detect    bool      `json:"detect"`
	Subscribe bool      `json:"subscribe"`
	Publish   bool      `json:"publish"`
	Observe   bool      `json:"observe"`
	// Simulate finds and counts offenders, and bans none of them.
	Simulate bool `json:"simulate"`
	// Detectable says that the topic's definition has a filter.
	Detectable bool `json:"detectable"`
	// Operators are the names of those whose claims count here.
	Operators []string `json:"operators"`
	// Policy is the expression that bans.
	Policy string `json:"policy"`

	definition *topics.Definition
	scope      firewall.Scope
	// corroborate says that a line counts only if the kernel saw its address.
	corroborate bool
	// reports says that programs of this machine may report offences.
	reports bool
}

// Topics gives every topic that is defined, by name.
func (s *Settings) Topics() []TopicSetting { return s.topics }

// find gives the setting of a topic.
func (s *Settings) find(topic ban.Topic) (TopicSetting, bool) {
	i, ok := slices.BinarySearchFunc(s.topics, topic, func(t TopicSetting, topic ban.Topic) int { return cmp.Compare(t.Topic, topic) })
	if !ok {
		return TopicSetting{}, false
	}
	return s.topics[i], true
}

// LoadSettings reads and checks a configuration directory. It has no side
// effect; all faults are in the error, joined.
func LoadSettings(dir string) (*Settings, error) {
	loaded, unread := config.Load(dir)
	definitions, err := topics.Load(filepath.Join(dir, TopicDirectory))
	if err := errors.Join(unread, err); err != nil {
		return nil, err
	}
	s := &Settings{config: loaded, definitions: map[ban.Topic]*topics.Definition{}, included: map[ban.Topic]included{}}
	for _, d := range definitions {
		s.definitions[d.Name] = d
	}
	var faults []error
	fault := func(path, format string, args ...any) { faults = append(faults, loaded.At(path, format, args...)) }
	directories, err := loaded.Includes()
	if err != nil {
		fault("include", "%v", err)
	}
	faults = append(faults, s.include(dir, directories)...)

	if loaded.Network == "" {
		loaded.Network = DefaultNetwork
	}
	if _, err := ban.ParseTopic(loaded.Network); err != nil {
		fault("network", "%v", err)
	}
	checkBrokers(loaded.Brokers, fault)
	loaded.Brokers = s.onceEach(loaded.Brokers)
	checkFirewall(loaded.Firewall, fault)
	checkGate(loaded.Gate, fault)
	checkHTTP(loaded.HTTP, fault)
	for name, t := range loaded.Topics {
		d := s.definitions[ban.Topic(name)]
		if d == nil {
			f := loaded.At("topics."+name, "no such topic is defined: `agent topics list` names those that are; a definition of your own goes to %s", filepath.Join(dir, TopicDirectory, name+".toml"))
			if like := typo.Nearest(name, s.names()); like != "" {
				f.Hint = fmt.Sprintf("did you mean %q?", like)
			}
			faults = append(faults, f)
			continue
		}
		for key, err := range override(d, t) {
			fault("topics."+name+"."+key, "%v", err)
		}
	}
	for i, n := range loaded.NeverBan {
		if t, err := ban.ParseTarget(n.Target); err != nil {
			fault(fmt.Sprintf("never_ban.%d.target", i), "%v", err)
		} else if _, ok := t.Prefix(); !ok {
			fault(fmt.Sprintf("never_ban.%d.target", i), "%s is no address; `agent allow add` is for wallets, too", t)
		}
		if _, err := n.End(); err != nil {
			fault(fmt.Sprintf("never_ban.%d.until", i), "%v", err)
		}
	}
	for _, p := range loaded.MayBan {
		if _, err := netip.ParsePrefix(p); err != nil {
			fault("may_ban", "%v", err)
		}
	}
	var refused []error
	s.shields, refused = loadShields(dir, loaded)
	faults = append(faults, refused...)
	s.policy, err = policy.Compile(s.source(), nil)
	if list, ok := errors.AsType[policy.Faults](err); ok {
		for _, f := range list {
			at := loaded.At(f.Key, "%s", f.Message)
			at.Excerpt, at.Hint = f.Excerpt(), f.Hint
			faults = append(faults, at)
		}
	} else if err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		slices.SortStableFunc(faults, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
		return nil, errors.Join(faults...)
	}
	for _, d := range s.definitions {
		setting, err := s.setting(d)
		if err != nil {
			return nil, loaded.At("topics."+string(d.Name), "%v", err)
		}
		s.topics = append(s.topics, setting)
	}
	slices.SortFunc(s.topics, func(a, b TopicSetting) int { return cmp.Compare(a.Topic, b.Topic) })
	return s, nil
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

// source is the policy that was written, with the default rules where a topic
// is accepted and none is given: those of [policy.Recommended] for everyone
// who was named.
func (s *Settings) source() policy.Source {
	src := s.config.Policy()
	everyone := "everyone"
	if len(src.Operators) <= 3 { // so few are better read by name
		everyone = strings.Join(slices.Sorted(maps.Keys(src.Operators)), ", ")
	}
	ban, watch, require := policy.Recommended(everyone, len(src.Operators))
	for name, t := range src.Topics {
		if on(s.config.Topics[name].Subscribe) && t.Ban == "" && t.Watch == "" {
			t.Ban, t.Watch = ban, watch
			if t.Require == "" {
				t.Require = require
			}
			src.Topics[name] = t
		}
	}
	return src
}

func on(b *bool) bool { return b != nil && *b }

func (s *Settings) setting(d *topics.Definition) (TopicSetting, error) {
	c := s.config.Topics[string(d.Name)]
	t := TopicSetting{
		Topic: d.Name, Title: d.Title, Detectable: d.Detect != nil,
		Detect:    d.Detect != nil && (on(c.Detect) || c.Detect == nil && (d.Name == DefaultTopic || s.Included(d.Name) != "")),
		Simulate:  on(c.Simulate),
		Subscribe: on(c.Subscribe), Publish: on(c.Publish), Observe: on(c.Observe) || s.config.Firewall.Mode == "observe",
		Operators: []string{}, definition: d,
	}
	if t.Subscribe {
		t.Policy = s.policy.Source().Topics[string(d.Name)].Ban
		for _, o := range s.policy.Operators(d.Name) {
			t.Operators = append(t.Operators, s.nameOf(o))
		}
		slices.Sort(t.Operators)
	}
	var err error
	t.scope, err = scopeOf(d, c, s.config.Firewall, t.Observe)
	if !t.Detect {
		// Remembering makes the kernel track connections, so only who asks pays.
		t.scope.Remember = 0
	}
	t.corroborate = t.Detect && d.Detect.Corroborate > 0
	if t.reports = on(c.Reports); t.reports && !t.Detect {
		return t, errors.New("reports: what is reported is counted where offenders are looked for: detect = true")
	}
	return t, err
}

// DefaultTopic is what a node detects when it was told nothing.
const DefaultTopic ban.Topic = "sshd"

// override lays what the configuration says of a topic over its definition.
// The result holds a fault for each key that is wrong.
func override(d *topics.Definition, c config.Topic) map[string]error {
	faults := map[string]error{}
	x := d.Detect
	if x == nil {
		if on(c.Detect) || c.MaxRetry != nil || c.FindTime != "" || len(c.Files)+len(c.Journal)+len(c.Docker)+len(c.Syslog) > 0 || on(c.Stdin) || on(c.Reports) || c.Corroborate != "" {
			faults["detect"] = errors.New("the topic's definition has no filter, so nothing in a log shows its offenders")
		}
		if c.BanTime != "" {
			faults["bantime"] = errors.New("the topic's definition has no filter; `agent ban --for` says how long a ban lasts")
		}
		return faults
	}
	if c.MaxRetry != nil {
		if *c.MaxRetry < 1 {
			faults["maxretry"] = fmt.Errorf("%d is less than 1", *c.MaxRetry)
		}
		x.MaxRetry = *c.MaxRetry
	}
	for key, v := range map[string]struct {
		text string
		to   *span.Duration
	}{"findtime": {string(c.FindTime), &x.FindTime}, "bantime": {string(c.BanTime), &x.BanTime}} {
		if v.text != "" {
			if err := v.to.UnmarshalText([]byte(v.text)); err != nil {
				faults[key] = err
			}
		}
	}
	switch c.Corroborate {
	case "":
	case "off":
		x.Corroborate = 0
	default:
		if err := x.Corroborate.UnmarshalText([]byte(c.Corroborate)); err != nil {
			faults["corroborate"] = fmt.Errorf("%w; it is a time, or \"off\"", err)
		} else if x.Corroborate.Duration() < time.Second {
			faults["corroborate"] = errors.New("peers are remembered for a second or more; \"off\" asks nobody")
		}
	}
	for _, s := range c.IgnoreIP {
		if _, err := ban.ParseTarget(s); err != nil {
			faults["ignoreip"] = err
		}
	}
	x.IgnoreIP = append(x.IgnoreIP, c.IgnoreIP...)
	if c.Files != nil {
		x.Files = c.Files
	}
	if c.Journal != nil {
		x.Journal = c.Journal
	}
	if c.Docker != nil {
		x.Docker = c.Docker
	}
	if c.Syslog != nil {
		x.Syslog = c.Syslog
	}
	if c.Both != nil {
		x.Both = *c.Both
	}
	if c.Stdin != nil {
		x.Stdin = *c.Stdin
	}
	if c.UseDNS != nil {
		x.UseDNS = *c.UseDNS
	}
	return faults
}

// checkBrokers finds what is wrong with the entries of brokers.
func checkBrokers(list []config.Broker, fault faulter) {
	for i, b := range list {
		at := func(key string) string { return fmt.Sprintf("brokers.%d.%s", i, key) }
		for j, text := range append([]string{b.URL}, b.Others...) {
			key := at("url")
			if j > 0 {
				key = at("others")
			}
			if err := checkURL(text); err != nil {
				fault(key, "%v", err)
			}
		}
		there := true
		for key, file := range map[string]string{"password_file": b.PasswordFile, "ca_file": b.CAFile, "cert_file": b.CertFile, "key_file": b.KeyFile} {
			if file == "" {
				continue
			}
			if _, err := os.Stat(file); err != nil {
				fault(at(key), "%v", err)
				there = false
			}
		}
		if !there {
			continue
		}
		// What the files hold would otherwise be found by the next start. Who may
		// not read them may still ask other things of the configuration.
		if _, err := BrokerOf(b); err != nil && !errors.Is(err, fs.ErrPermission) {
			fault(fmt.Sprintf("brokers.%d", i), "%v", err)
		}
	}
}

// onceEach leaves out addresses that an entry before has: a broker takes a node
// once, so two connections to it would push each other off for ever.
func (s *Settings) onceEach(list []config.Broker) (out []config.Broker) {
	taken := map[string]bool{}
	for _, b := range list {
		var addresses []string
		for _, text := range append([]string{b.URL}, b.Others...) {
			if taken[text] {
				s.warnings = append(s.warnings, fmt.Sprintf("brokers: %s is named twice; the second is left out, for a broker takes a node once", text))
				continue
			}
			taken[text] = true
			addresses = append(addresses, text)
		}
		if len(addresses) == 0 {
			continue
		}
		b.URL, b.Others = addresses[0], addresses[1:]
		out = append(out, b)
	}
	return out
}

// checkURL finds what is wrong with a broker's address.
func checkURL(text string) error {
	const want = "want tcp://HOST:PORT, ssl://, ws://, wss:// or unix:///PATH"
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("%q: %s", text, want)
	}
	switch u.Scheme {
	case "tcp", "ssl", "ws", "wss":
		if u.Hostname() == "" {
			return fmt.Errorf("%q names no host", text)
		}
		if port := u.Port(); port != "" {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return fmt.Errorf("%q: no port has the number %s", text, port)
			}
		}
	case "unix":
		if u.Path == "" {
			return fmt.Errorf("%q names no path: %s", text, want)
		}
	default:
		return fmt.Errorf("%q: %s", text, want)
	}
	if u.User != nil {
		return errors.New("a password does not belong there; use user and password_file")
	}
	return nil
}

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

// Reads gives the files that an agent reads at its start: those of the
// configuration, and those that its brokers' entries name.
func (s *Settings) Reads() []string {
	list := slices.Clone(s.config.Files)
	for _, b := range s.config.Brokers {
		for _, f := range []string{b.PasswordFile, b.CAFile, b.CertFile, b.KeyFile} {
			if f != "" {
				list = append(list, f)
			}
		}
	}
	return list
}
