package f2bconf

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Filter is a filter's definition with everything replaced but the tags of
// regular expressions.
type Filter struct {
	Name         string
	Prefregex    string
	Failregex    []string
	Ignoreregex  []string
	Maxlines     int // 0 when not set
	Datepattern  []string
	Journalmatch []string
	Usedns       string
	// Files are those that were read, in order.
	Files []string
	// Options holds every option of the definition, for jails' %(known/x)s.
	Options map[string]string
}

// Version is the value of %(fail2ban_version)s: the release whose
// configuration language this is.
const Version = "1.0.2"

// filterOptions are the options of a definition that mean something.
var filterOptions = []string{"usedns", "prefregex", "ignoreregex", "failregex", "maxlines", "datepattern", "journalmatch"}

// ReadFilter reads a filter by its specification, such as
// "sshd[mode=aggressive]", from DIR/filter.d, or from a path when the name
// holds a slash. over gives options of a jail, which outrank the filter's own;
// logtype is "file" or "journal" and holds where nothing else says it, "" says
// nothing.
func ReadFilter(dir, spec, logtype string, over map[string]string) (*Filter, error) {
	name, options, err := ParseSpec(spec)
	if err != nil {
		return nil, err
	}
	base := filepath.Join(dir, "filter.d", name)
	if strings.Contains(name, "/") {
		base = strings.TrimSuffix(name, ".conf")
		dir = filepath.Dir(filepath.Dir(base))
	}
	c, err := readNamed(base)
	if err != nil {
		return nil, err
	}
	c.defaults["fail2ban_version"] = option{text: Version}
	c.defaults["fail2ban_confpath"] = option{text: dir}
	return c.filter(name, options, logtype, over)
}

func (c *config) filter(name string, init map[string]string, logtype string, over map[string]string) (*Filter, error) {
	if c.sections["Definition"] == nil {
		return nil, fmt.Errorf("%s: %w: there is no section [Definition]", name, ErrSyntax)
	}
	own := map[string]string{}
	for k, v := range init {
		own[k] = v
	}
	if _, set := c.sections["Definition"]["logtype"]; own["logtype"] == "" && !set && logtype != "" {
		own["logtype"] = logtype
	}
	given := map[string]string{}
	for k, v := range over {
		given[k] = v
	}
	for k, v := range own {
		given[k] = v
	}
	combined := map[string]string{}
	for k := range c.sections["Definition"] {
		if _, overridden := given[k]; overridden {
			continue
		}
		v, err := c.get("Definition", k, given)
		if err != nil {
			if slices.Contains(filterOptions, k) {
				return nil, err
			}
			continue // nothing asks for it
		}
		combined[k] = v
	}
	for k := range c.sections["Init"] {
		v, err := c.get("Init", k, nil)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(k, "known/") {
			own["known/"+k] = v
		}
		if _, set := own[k]; !set {
			own[k] = v
		}
	}
	for k, v := range own {
		combined[k] = v
	}
	more := func(ref string) (string, bool) { return c.getExtended("Definition", ref, given) }
	wanted := map[string]string{}
	for _, k := range filterOptions {
		if v, ok := combined[k]; ok {
			wanted[k] = v
		} else if v, err := c.get("Definition", k, given); err == nil {
			wanted[k] = v
		} else if !errors.Is(err, errNoOption) {
			return nil, err
		}
	}
	done := map[string]string{}
	for k, v := range wanted {
		if v, ok := over[k]; ok {
			done[k] = v
			continue
		}
		text, err := substituteOne(k, v, combined, more)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		done[k] = text
	}
	return c.build(name, done, combined)
}

func (c *config) build(name string, done, all map[string]string) (*Filter, error) {
	f := &Filter{
		Name: name, Prefregex: done["prefregex"], Failregex: lines(done["failregex"]), Ignoreregex: lines(done["ignoreregex"]),
		Datepattern: lines(done["datepattern"]), Journalmatch: lines(done["journalmatch"]), Usedns: done["usedns"],
		Files: c.files, Options: all,
	}
	for k, v := range done {
		f.Options[k] = v
	}
	if s := strings.TrimSpace(done["maxlines"]); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%s: %w: maxlines = %.20q", c.place("Definition", "maxlines"), ErrSyntax, s)
		}
		f.Maxlines = n
	}
	return f, nil
}

// lines splits a value of several lines; empty ones are none.
func lines(s string) []string {
	var out []string
	for _, l := range strings.Split(s, "\n") {
		if l != "" {
			out = append(out, l)
		}
	}
	return out
}
