package settings

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/firewall"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
	"banmesh/internal/span"
	"banmesh/topics"
)

// Topic is a node's settings of one topic.
type Topic struct {
	Topic     ban.Topic `json:"topic"`
	Title     string    `json:"title"`
	Detect    bool      `json:"detect"`
	Subscribe bool      `json:"subscribe"`
	Publish   bool      `json:"publish"`
	// ShareWeak says that sightings are published too.
	ShareWeak bool `json:"share_weak"`
	Observe   bool `json:"observe"`
	// Simulate finds and counts offenders, and bans none of them.
	Simulate bool `json:"simulate"`
	// Detectable says that the topic's definition has a filter.
	Detectable bool `json:"detectable"`
	// Operators are the names of those whose claims count here.
	Operators []string `json:"operators"`
	// Policy is the expression that bans.
	Policy string `json:"policy"`
	// OnPage names the switches that were set on the page: detect, subscribe, publish.
	OnPage []string `json:"on_page,omitempty"`

	// Definition has the configuration's changes laid over it.
	Definition *topics.Definition `json:"-"`
	// Scope is which packets a ban in the topic drops.
	Scope firewall.Scope `json:"-"`
	// Proxies are on other machines, before the topic's service.
	Proxies Proxies `json:"-"`
	// Web says that the service speaks HTTP, so that proxies may stand before it.
	Web bool `json:"-"`
	// Believed says that the operator wants the log believed as it is.
	Believed bool `json:"-"`
	// Reports says that programs of this machine may report offences.
	Reports bool `json:"-"`
}

// Find gives the setting of a topic.
func (s *Settings) Find(topic ban.Topic) (Topic, bool) {
	i, ok := slices.BinarySearchFunc(s.topics, topic, func(t Topic, topic ban.Topic) int { return cmp.Compare(t.Topic, topic) })
	if !ok {
		return Topic{}, false
	}
	return s.topics[i], true
}

// source is the policy that was written, with the default rules where a topic
// is accepted and none is given: those of [policy.Recommended], for the group
// core where there is one and for everyone who was named otherwise.
func (s *Settings) source() policy.Source {
	src := s.config.Policy()
	group, known := "everyone", len(src.Operators)
	if core := src.Groups["core"]; len(core) > 0 {
		group, known = "core", len(core)
	} else if known <= 3 { // so few are better read by name
		group = strings.Join(slices.Sorted(maps.Keys(src.Operators)), ", ")
	}
	src.Imports = s.imports()
	rules := policy.Recommended(group, known)
	for name, t := range src.Topics {
		t.Accept = on(s.config.Topics[name].Subscribe)
		if t.Accept && t.Ban == "" && t.Watch == "" && t.Suspect == "" {
			t.Ban, t.Watch, t.Suspect = rules.Ban, rules.Watch, rules.Suspect
			if t.Require == "" {
				t.Require = rules.Require
			}
		}
		src.Topics[name] = t
	}
	for name, v := range s.Vallumd() {
		if len(v.Accept) > 0 {
			src.Imports[string(name)] = policy.ImportSource{Topics: v.Accept, Rule: v.Rule, Prefix: []string{"v4/32", "v6/128"}, Live: v.Live, PerHour: v.PerHour}
		}
	}
	return src
}

func on(b *bool) bool { return b != nil && *b }

func (s *Settings) setting(d *topics.Definition) (Topic, error) {
	c := s.config.Topics[string(d.Name)]
	if s.leftOut[d.Name] {
		c.Detect, c.Reports = nil, nil
	}
	t := Topic{
		Topic: d.Name, Title: d.Title, Detectable: d.Detect != nil,
		Detect:    d.Detect != nil && (on(c.Detect) || c.Detect == nil && (d.Name == DefaultTopic || s.Included(d.Name) != "" || d.Name == HoneyportTopic && len(s.config.Honeyport.Ports) > 0)),
		Simulate:  on(c.Simulate) || c.Simulate == nil && s.included[d.Name].foundOnly && s.Included(d.Name) != "",
		Subscribe: on(c.Subscribe), Publish: on(c.Publish), Observe: on(c.Observe) || s.config.Firewall.Mode == "observe",
		Operators: []string{}, Definition: d,
	}
	x := s.onPage[d.Name]
	t.OnPage = x.Set()
	if t.ShareWeak = on(c.ShareWeak); t.ShareWeak && !t.Publish {
		return t, errors.New("share_weak: what was seen is shared where bans are: publish = true")
	}
	if t.Subscribe {
		t.Policy = s.policy.Source().Topics[string(d.Name)].Ban
		for _, o := range s.policy.Operators(d.Name) {
			t.Operators = append(t.Operators, s.NameOf(o))
		}
		slices.Sort(t.Operators)
	}
	var err error
	t.Scope, err = scopeOf(d, c, s.config.Firewall, t.Observe)
	if !t.Detect {
		// Remembering makes the kernel track connections, so only who asks pays.
		t.Scope.Remember = 0
	}
	t.Believed = c.Corroborate == "off"
	t.Web = d.Protocol == topics.ProtocolHTTP || slices.ContainsFunc(webPorts, func(port uint16) bool { return slices.Contains(t.Scope.Ports, port) })
	if err == nil {
		t.Proxies, err = parseProxies(slices.Concat(s.config.Proxy, c.Proxy))
	}
	if t.Reports = on(c.Reports); t.Reports && !t.Detect {
		return t, errors.New("reports: what is reported is counted where offenders are looked for: detect = true")
	}
	return t, err
}

// DefaultTopic is the one that a node detects without a configuration.
const DefaultTopic ban.Topic = "sshd"

// override lays the configuration's keys of a topic over its definition.
// The result holds a fault for each key that is wrong.
func override(d *topics.Definition, c config.Topic) map[string]error {
	faults := map[string]error{}
	x := d.Detect
	if x == nil {
		if on(c.Detect) || c.MaxRetry != nil || c.GuestMaxRetry != nil || c.FindTime != "" || len(c.Files)+len(c.Journal)+len(c.Docker)+len(c.Syslog) > 0 || on(c.Stdin) || on(c.Reports) || c.Corroborate != "" || len(c.Proxy) > 0 {
			faults["detect"] = errors.New("the topic's definition has no filter, so nothing in a log shows its offenders")
		}
		if c.BanTime != "" {
			faults["bantime"] = errors.New("the topic's definition has no filter; `agent ban --for` says how long a ban lasts")
		}
		return faults
	}
	if c.GuestMaxRetry != nil {
		if *c.GuestMaxRetry < 1 {
			faults["guest_maxretry"] = fmt.Errorf("%d is less than 1", *c.GuestMaxRetry)
		}
		x.GuestMaxRetry = *c.GuestMaxRetry
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
	case "", "off":
	default:
		if err := x.Corroborate.UnmarshalText([]byte(c.Corroborate)); err != nil {
			faults["corroborate"] = fmt.Errorf("%w; it is a time, or \"off\"", err)
		} else if x.Corroborate.Duration() < time.Second {
			faults["corroborate"] = errors.New("peers are remembered for a second or more; \"off\" asks nobody")
		}
	}
	if _, err := parseProxies(c.Proxy); err != nil {
		faults["proxy"] = err
	}
	for _, s := range c.IgnoreIP {
		if _, err := ban.ParseTarget(s); err != nil && !neverban.IsName(s) {
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

// RuleFile is the file in which a person or a command wrote the topic's ban or
// watch rule, or "" where the default applies.
func (s *Settings) RuleFile(topic ban.Topic) string {
	key, t := "topics."+string(topic), s.config.Topics[string(topic)]
	switch {
	case t.Ban != "":
		return s.config.At(key+".ban", "").File
	case t.Watch != "":
		return s.config.At(key+".watch", "").File
	}
	return ""
}
