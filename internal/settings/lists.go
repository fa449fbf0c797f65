package settings

import (
	"cmp"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/lists"
	"banmesh/internal/config"
	"banmesh/internal/policy"
	"banmesh/internal/span"
)

// Defaults and bounds of a list.
const (
	defaultListEvery = 6 * time.Hour
	shortestEvery    = 15 * time.Minute
	fetchedFor       = 48 * time.Hour
	fileFor          = 30 * 24 * time.Hour
	shortestFor      = time.Hour
)

// List is a public list of addresses, its defaults filled in.
type List struct {
	Name   string
	Import ban.Import
	Topics []ban.Topic
	Rule   policy.Action
	// File is where it is read, or "" where it is fetched.
	File  string
	Fetch lists.Origin
	// Read says how it is read, but for whom it may never ban.
	Read lists.Options
	// For is how long an entry counts after the list was confirmed.
	For       time.Duration
	MaxChange int // percent
}

// From says where the list is and how it is read: another answer is another list.
func (l *List) From() string {
	from := "url " + l.Fetch.URL
	if l.File != "" {
		from = "file " + l.File
	}
	for _, s := range []string{string(l.Read.Format), l.Read.Column, l.Read.Score} {
		from += "\n" + s
	}
	return from
}

// ReadAlike says whether the same text gives the same entries by both settings.
func (l *List) ReadAlike(other *List) bool {
	a, b := l.Read, other.Read
	return a.Most == b.Most && a.Minimum == b.Minimum && a.Floor4 == b.Floor4 && a.Floor6 == b.Floor6
}

// Lists gives the lists in use, by name.
func (s *Settings) Lists() []List { return s.lists }

// Spool is the directory into which lists are fetched.
func (s *Settings) Spool() string { return cmp.Or(s.config.Fetch.Spool, lists.DefaultSpool) }

// checkLists reads [lists] and finds its faults.
func (s *Settings) checkLists(fault faulter) {
	if spool := s.config.Fetch.Spool; spool != "" && !filepath.IsAbs(spool) {
		fault("fetch.spool", "%q is no absolute path", spool)
	}
	for _, name := range slices.Sorted(maps.Keys(s.config.Lists)) {
		c, key := s.config.Lists[name], "lists."+name
		i, err := ban.ParseImport(string(ban.ImportOf(ban.ImportList, name)))
		if err != nil {
			fault(key, "%v", err)
			continue
		}
		l := List{Name: name, Import: i, File: c.File, MaxChange: cmp.Or(c.MaxChange, lists.DefaultMaxChange)}
		s.checkOrigin(&l, key, c, fault)
		s.checkReading(&l, key, c, fault)
		for _, text := range c.Topics {
			topic, err := ban.ParseTopic(text)
			switch d := s.definitions[topic]; {
			case err != nil:
				fault(key+".topics", "%v", err)
			case d == nil:
				fault(key+".topics", "no topic %q is defined: `agent topics list` names those that are", text)
			case d.Target == "wallet":
				fault(key+".topics", "the topic %s is of wallets: `agent denylist` is for those", text)
			default:
				l.Topics = append(l.Topics, topic)
			}
		}
		if len(c.Topics) == 0 {
			fault(key+".topics", "name the topics in which the list counts, such as topics = [\"%s\"]", DefaultTopic)
		}
		slices.Sort(l.Topics)
		l.Topics = slices.Compact(l.Topics)
		s.lists = append(s.lists, l)
	}
}

// checkOrigin reads where a list is, and how long it counts.
func (s *Settings) checkOrigin(l *List, key string, c config.List, fault faulter) {
	l.Fetch = lists.Origin{Name: l.Name, URL: c.URL, Every: defaultListEvery}
	lasts := fetchedFor
	for _, x := range c.Allow {
		switch x {
		case "http":
			l.Fetch.HTTP = true
		case "private":
			l.Fetch.Private = true
		default:
			fault(key+".allow", "%q cannot be allowed: want \"http\" or \"private\"", x)
		}
	}
	switch {
	case (c.File == "") == (c.URL == ""):
		fault(key, "a list has either a file or a url")
	case c.File != "":
		if lasts = fileFor; !filepath.IsAbs(c.File) {
			fault(key+".file", "%q is no absolute path", c.File)
		}
	default:
		if _, err := lists.CheckURL(l.Fetch); err != nil {
			fault(key+".url", "%v", err)
		}
	}
	length := func(name string, text config.Text, shortest time.Duration, into *time.Duration) {
		if text == "" {
			return
		}
		d, err := span.Parse(string(text))
		if err == nil && (d < shortest || d > policy.MaxTTL) {
			fault(key+"."+name, "it is %s or more, and at most %s", span.Format(shortest), span.Format(policy.MaxTTL))
			return
		}
		if err != nil {
			fault(key+"."+name, "%v", err)
		}
		*into = d
	}
	length("every", c.Every, shortestEvery, &l.Fetch.Every)
	length("for", c.For, shortestFor, &lasts)
	l.For = lasts
	if c.URL != "" && l.For < l.Fetch.Every {
		fault(key+".for", "an entry counts for %s and the list is asked for every %s: it would end in between", span.Format(l.For), span.Format(l.Fetch.Every))
	}
}

// checkReading reads how a list is read.
func (s *Settings) checkReading(l *List, key string, c config.List, fault faulter) {
	format, err := lists.ParseFormat(c.Format)
	if err != nil {
		fault(key+".format", "%v", err)
	}
	l.Read = lists.Options{Format: format, Column: c.Column, Score: c.Score, Minimum: c.Minimum, Most: cmp.Or(c.MaxEntries, lists.DefaultEntries)}
	if c.MaxEntries < 0 || c.MaxEntries > lists.MaxEntries {
		fault(key+".max_entries", "from 1 to %d entries of a list count", lists.MaxEntries)
	}
	if c.MaxChange < 0 || c.MaxChange > 10_000 {
		fault(key+".max_change", "from 1 to 10000 percent")
	}
	var bad string
	if l.Read.Floor4, l.Read.Floor6, bad = policy.ImportFloors(c.Prefix); bad != "" {
		fault(key+".prefix", "%q is not a prefix limit: write \"v4/24\" (8 to 32) or \"v6/48\" (19 to 128)", bad)
	}
	var ok bool
	if l.Rule, ok = policy.ImportRule(c.Rule); !ok {
		fault(key+".rule", "%q is no rule of a list: write \"watch\", \"suspect\" or \"ban\"", c.Rule)
	}
}

// imports gives the lists as policy reads them.
func (s *Settings) imports() map[string]policy.ImportSource {
	all := map[string]policy.ImportSource{}
	for _, l := range s.lists {
		c := s.config.Lists[l.Name]
		x := policy.ImportSource{Rule: c.Rule, Prefix: c.Prefix, Live: l.Read.Most}
		for _, t := range l.Topics {
			x.Topics = append(x.Topics, string(t))
		}
		all[string(l.Import)] = x
	}
	return all
}

// Origins gives the lists of a configuration directory that are fetched, and the spool.
// It reads nothing else of the configuration, so that a fault elsewhere leaves no list
// old.
func Origins(dir string) (all []lists.Origin, spool string, err error) {
	loaded, err := config.Load(dir)
	if err != nil {
		return nil, "", err
	}
	s := &Settings{config: loaded}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(loaded.Lists)) {
		if loaded.Lists[name].URL == "" {
			continue
		}
		l := List{Name: name}
		_, err := ban.ParseImport(string(ban.ImportOf(ban.ImportList, name)))
		if err == nil {
			s.checkOrigin(&l, "lists."+name, loaded.Lists[name], func(path, format string, args ...any) {
				faults = append(faults, loaded.At(path, format, args...))
			})
		}
		faults = append(faults, err)
		all = append(all, l.Fetch)
	}
	return all, s.Spool(), errors.Join(faults...)
}
