package f2bconf

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// A Jail is an enabled jail with everything replaced.
type Jail struct {
	Name string
	// Backend is the name alone: "auto", "systemd"; BackendOptions are its
	// options, such as journalpath.
	Backend        string
	BackendOptions map[string]string
	// FilterSpec is the filter as the jail names it, "" for none; Filter is the one that
	// it comes to with the jail's own options over it, those that Overrides names.
	FilterSpec string
	Filter     *Filter
	Overrides  []string
	// Port and Protocol are the jail's variables of these names, which stock
	// actions refer to.
	Port, Protocol string
	// Logpath are glob patterns. Tail says that each of them is read from its end on.
	Logpath []string
	Tail    bool
	// Options are all other options that are set.
	Options map[string]string
	Actions []Action
	Place   Place
	// Warnings name options that are not honoured, with their places.
	Warnings []Warning

	places map[string]Place // of Options, logpath, filter and action
}

// A Warning is something that was read and has no effect here.
type Warning struct {
	Place Place
	What  string
}

func (w Warning) String() string { return fmt.Sprintf("%s: %s", w.Place, w.What) }

// jailOptions are the options of a jail that are read; the rest are variables.
var jailOptions = []string{
	"maxretry", "maxmatches", "findtime", "bantime", "bantime.increment", "bantime.factor", "bantime.formula",
	"bantime.multipliers", "bantime.maxtime", "bantime.rndtime", "bantime.overalljails", "ignorecommand", "ignoreself",
	"ignoreip", "ignorecache", "logtimezone", "logencoding", "usedns", "skip_if_nologs", "systemd_if_nologs",
}

// knownJailOptions are those and the others that mean something by themselves.
var knownJailOptions = append(append([]string{
	"enabled", "backend", "filter", "action", "logpath", "mode", "port", "protocol", "chain", "banaction", "banaction_allports",
	"mta", "sender", "sendername", "destemail", "blocktype", "returntype", "prefregex", "failregex", "ignoreregex", "maxlines",
	"datepattern", "journalmatch", "fail2ban_agent", "logtype",
}, jailOptions...), filterOptions...)

// ReadJails reads DIR/jail.conf and its overrides, and gives the enabled
// jails. A jail that is wrong is reported with the others' faults, and left
// out; the others are given all the same.
func ReadJails(dir string) ([]*Jail, error) {
	c, err := readNamed(filepath.Join(dir, "jail"))
	if err != nil {
		return nil, err
	}
	c.defaults["fail2ban_version"] = option{text: Version}
	c.defaults["fail2ban_confpath"] = option{text: dir}
	var out []*Jail
	var faults []error
	for _, name := range c.order {
		if name == includeSection || strings.HasPrefix(name, knownPrefix) {
			continue
		}
		enabled, err := c.get(name, "enabled", nil)
		if errors.Is(err, errNoOption) || err == nil && !truth(enabled) {
			continue
		}
		var j *Jail
		if err == nil {
			j, err = c.jail(dir, name)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("jail %s: %w", name, err))
			continue
		}
		out = append(out, j)
	}
	return out, errors.Join(faults...)
}

func truth(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "on", "true", "yes":
		return true
	}
	return false
}

func (c *config) jail(dir, name string) (*Jail, error) {
	j := &Jail{Name: name, Options: map[string]string{}, Place: c.firstPlace(name), places: map[string]Place{}}
	get := func(key string) (string, bool, error) {
		v, err := c.get(name, key, nil)
		if errors.Is(err, errNoOption) {
			return "", false, nil
		}
		return v, err == nil, err
	}
	backend, _, err := get("backend")
	if err != nil {
		return nil, err
	}
	if j.Backend, j.BackendOptions, err = ParseSpec(backend); err != nil {
		return nil, fmt.Errorf("%s: backend: %w", c.place(name, "backend"), err)
	}
	if j.FilterSpec, _, err = get("filter"); err != nil {
		return nil, err
	}
	logtype := "file"
	if strings.HasPrefix(j.Backend, "systemd") {
		logtype = "journal"
	}
	if err := c.filterOf(dir, logtype, j, get); err != nil {
		return nil, err
	}
	for _, k := range jailOptions {
		if v, ok, err := get(k); err != nil {
			return nil, err
		} else if ok {
			j.Options[k] = v
		}
	}
	for _, k := range slices.Concat([]string{"logpath", "filter", "action", "backend", "port"}, jailOptions, filterOptions) {
		j.places[k] = c.place(name, k)
	}
	// Variables, of use where an action refers to them, which is then at fault.
	j.Port, _, _ = get("port")
	j.Protocol, _, _ = get("protocol")
	if err := c.logs(dir, j, get); err != nil {
		return nil, err
	}
	c.unknown(j)
	return j, nil
}

// filterOf reads the jail's filter with the jail's own options over it. Only
// those of [filterOptions] reach it: mode and others do so where the jail's
// filter = NAME[mode=%(mode)s] hands them on. A jail without a filter has its
// own expressions alone.
func (c *config) filterOf(dir, logtype string, j *Jail, get func(string) (string, bool, error)) error {
	if j.FilterSpec != "" {
		base, err := ReadFilter(dir, j.FilterSpec, logtype, nil)
		if err != nil {
			return fmt.Errorf("%s: filter: %w", c.place(j.Name, "filter"), err)
		}
		// %(known/x)s in the jail is the filter's value of x.
		for k, v := range base.Options {
			if strings.HasPrefix(k, "known/") {
				continue
			}
			c.sections[j.Name]["known/"+k] = option{text: strings.ReplaceAll(v, "%", "%%")}
		}
	}
	over := map[string]string{}
	for _, k := range filterOptions {
		v, ok, err := get(k)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		over[k] = v
		if k != "usedns" {
			j.Overrides = append(j.Overrides, k)
		}
	}
	var err error
	if j.FilterSpec == "" {
		j.Filter, err = c.build("", over, map[string]string{})
	} else {
		j.Filter, err = ReadFilter(dir, j.FilterSpec, logtype, over)
	}
	return err
}

func (c *config) logs(dir string, j *Jail, get func(string) (string, bool, error)) error {
	paths, _, err := get("logpath")
	if err != nil {
		return err
	}
	tails := 0
	for _, l := range lines(paths) {
		l = strings.TrimSpace(l)
		if n := strings.LastIndexByte(l, ' '); n >= 0 {
			word := strings.ToLower(l[n+1:])
			if word != "head" && word != "tail" {
				return fmt.Errorf("%s: logpath: %w: %.80q: behind a path stands head or tail; each path has its own line", c.place(j.Name, "logpath"), ErrSyntax, l)
			}
			if word == "tail" {
				tails++
			}
			l = strings.TrimSpace(l[:n])
		}
		if l != "" {
			j.Logpath = append(j.Logpath, l)
		}
	}
	if j.Tail = tails > 0 && tails == len(j.Logpath); tails > 0 && !j.Tail {
		j.Warnings = append(j.Warnings, Warning{c.place(j.Name, "logpath"), "tail is honoured where each of the jail's paths has it: these are read from their beginning"})
	}
	actions, _, err := get("action")
	if err != nil {
		return err
	}
	for _, spec := range splitSpecs(actions) {
		name, options, err := ParseSpec(spec)
		if err != nil {
			return fmt.Errorf("%s: action: %w", c.place(j.Name, "action"), err)
		}
		a := Action{Name: name, Options: options}
		readAction(dir, j.Name, &a)
		j.Actions = append(j.Actions, a)
	}
	return nil
}

// unknown warns of options that nothing reads: most are misspelt.
func (c *config) unknown(j *Jail) {
	for k, o := range c.sections[j.Name] {
		if slices.Contains(knownJailOptions, k) || strings.Contains(k, "/") || strings.HasPrefix(k, "action_") || strings.Contains(k, "?") {
			continue
		}
		used := false
		for _, other := range c.sections[j.Name] {
			used = used || strings.Contains(other.text, "%("+k+")s") || strings.Contains(other.text, "<"+k+">")
		}
		for _, other := range c.defaults {
			used = used || strings.Contains(other.text, "%("+k+")s")
		}
		if !used {
			j.Warnings = append(j.Warnings, Warning{o.place, fmt.Sprintf("option %q is not known and has no effect", k)})
		}
	}
	slices.SortFunc(j.Warnings, func(a, b Warning) int { return strings.Compare(a.String(), b.String()) })
}

func (c *config) firstPlace(name string) Place {
	best := Place{}
	for _, o := range c.sections[name] {
		if best.Line == 0 || o.place.File == best.File && o.place.Line < best.Line {
			best = o.place
		}
	}
	return best
}

// Where tells where an option that the jail uses was set; the jail's own place
// when nothing sets it.
func (j *Jail) Where(option string) Place {
	if p, ok := j.places[option]; ok && p.File != "" {
		return p
	}
	return j.Place
}

// splitSpecs splits a list of specifications at spaces and line ends that
// stand outside of brackets and quotes.
func splitSpecs(s string) []string {
	var out []string
	depth, from := 0, -1
	quote := byte(0)
	for i := range len(s) {
		ch := s[i]
		switch {
		case quote != 0:
			if ch == quote {
				quote = 0
			}
		case depth > 0 && (ch == '"' || ch == '\''):
			quote = ch
		case ch == '[':
			depth++
		case ch == ']' && depth > 0:
			depth--
		case depth == 0 && strings.IndexByte(" \t\n\r", ch) >= 0:
			if from >= 0 {
				out = append(out, s[from:i])
			}
			from = -1
			continue
		}
		if from < 0 {
			from = i
		}
	}
	if from >= 0 {
		out = append(out, s[from:])
	}
	return out
}

// Database gives the path of the database that DIR/fail2ban.conf and the files that
// overrides it name.
func Database(dir string) (string, error) {
	c, err := readNamed(filepath.Join(dir, "fail2ban"))
	if err != nil {
		return "", err
	}
	path, err := c.get("Definition", "dbfile", nil)
	if err != nil && !errors.Is(err, errNoOption) {
		return "", err
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%s: fail2ban keeps no database (dbfile = %.60q)", filepath.Join(dir, "fail2ban.conf"), path)
	}
	return path, nil
}

// OwnLog gives the file that DIR/fail2ban.conf makes fail2ban log to, "" for none.
func OwnLog(dir string) string {
	c, err := readNamed(filepath.Join(dir, "fail2ban"))
	if err != nil {
		return ""
	}
	path, err := c.get("Definition", "logtarget", nil)
	if err != nil || !filepath.IsAbs(path) {
		return ""
	}
	return path
}
