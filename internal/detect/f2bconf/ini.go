// Package f2bconf reads fail2ban's configuration as fail2ban does: files that
// include and override each other, interpolation of %(options)s and <tags>,
// filters with options, and jails. It reads files and runs nothing.
package f2bconf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of the configuration: many times those of fail2ban's own.
const (
	maxFile    = 1 << 20
	maxFiles   = 2000
	maxDepth   = 10      // of %(x)s in %(x)s, as in Python
	maxExpand  = 1 << 20 // of one value
	maxReplace = 25      // of one <tag> in one value, as in fail2ban
)

// Errors that callers tell apart.
var (
	ErrSyntax  = errors.New("bad configuration")
	ErrMissing = errors.New("no such configuration file")
	ErrTooMuch = errors.New("the configuration is too large")
)

// A Place is where an option was set.
type Place struct {
	File string
	Line int
}

func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

type option struct {
	text  string
	place Place
}

type section map[string]option

const (
	defaultSection = "DEFAULT"
	includeSection = "INCLUDES"
	// knownPrefix begins the section of an option's value before a later file
	// set it anew.
	knownPrefix = "KNOWN/"
)

// A config is all of one name's files together.
type config struct {
	defaults section
	sections map[string]section
	order    []string // of sections
	files    []string
}

func newConfig() *config {
	return &config{defaults: section{}, sections: map[string]section{}}
}

// parseFile reads one file in the syntax of Python's configparser with inline
// comments after ';'.
func parseFile(path string) (*config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if info.Size() > maxFile || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, ErrTooMuch)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return parse(path, b)
}

// parse reads a file's text and reports all its faults.
func parse(path string, b []byte) (*config, error) {
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("%s: %w: it is not UTF-8", path, ErrSyntax)
	}
	p := &iniParser{path: path, config: newConfig(), seen: map[string]bool{}}
	for i, line := range strings.Split(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n") {
		p.line(i+1, line)
	}
	p.finish()
	return p.config, errors.Join(p.faults...)
}

type iniParser struct {
	path    string
	config  *config
	current section
	name    string // of the section
	option  string
	lines   []string
	place   Place
	indent  int
	seen    map[string]bool
	faults  []error
}

func (p *iniParser) fault(line int, format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf("%s:%d: %w: %s", p.path, line, ErrSyntax, fmt.Sprintf(format, args...)))
}

// finish stores the option at hand.
func (p *iniParser) finish() {
	if p.option != "" {
		text := strings.TrimRight(strings.Join(p.lines, "\n"), " \t\n\r\f\v")
		p.current[p.option] = option{text, p.place}
	}
	p.option, p.lines = "", nil
}

func (p *iniParser) line(n int, line string) {
	body, commented := cutComment(line)
	value := strings.TrimSpace(body)
	if value == "" {
		if !commented && p.option != "" {
			p.lines = append(p.lines, "")
		}
		return
	}
	indent := len(line) - len(strings.TrimLeft(line, " \t\f\v"))
	if p.option != "" && indent > p.indent {
		p.lines = append(p.lines, value)
		return
	}
	p.finish()
	p.indent = indent
	if end := strings.LastIndexByte(value, ']'); value[0] == '[' && end > 1 {
		p.header(n, value[1:end])
		return
	}
	if p.current == nil {
		p.fault(n, "an option outside of any section: %.60q", value)
		return
	}
	at := strings.IndexAny(value, "=:")
	if at <= 0 {
		p.fault(n, "no option and no section: %.60q", value)
		return
	}
	name := strings.ToLower(strings.TrimSpace(value[:at]))
	if key := p.name + "\x00" + name; p.seen[key] {
		p.fault(n, "option %q stands twice in section [%s]", name, p.name)
	} else {
		p.seen[key] = true
	}
	p.option, p.lines, p.place = name, []string{strings.TrimSpace(value[at+1:])}, Place{p.path, n}
}

func (p *iniParser) header(n int, name string) {
	p.name = name
	if name == defaultSection {
		p.current = p.config.defaults
		return
	}
	if _, twice := p.config.sections[name]; twice {
		p.fault(n, "section [%s] stands twice", name)
	} else {
		p.config.sections[name] = section{}
		p.config.order = append(p.config.order, name)
	}
	p.current = p.config.sections[name]
}

// cutComment takes off a comment that '#' or ';' begins at the start of a line, and ';'
// after a space.
func cutComment(line string) (body string, commented bool) {
	if t := strings.TrimSpace(line); strings.HasPrefix(t, "#") || strings.HasPrefix(t, ";") {
		return "", true
	}
	for i := 1; i < len(line); i++ {
		if line[i] == ';' && strings.IndexByte(" \t\f\v\r", line[i-1]) >= 0 {
			return line[:i], true
		}
	}
	return line, false
}

// readNamed reads BASE.conf, BASE.d/*.conf, BASE.local and BASE.d/*.local with
// all that they include.
func readNamed(base string) (*config, error) {
	var list []string
	add := func(path string) {
		if _, err := os.Stat(path); err == nil {
			list = append(list, path)
		}
	}
	add(base + ".conf")
	list = append(list, sortedGlob(base+".d", ".conf")...)
	add(base + ".local")
	list = append(list, sortedGlob(base+".d", ".local")...)
	if len(list) == 0 {
		return nil, fmt.Errorf("%s.conf: %w", base, ErrMissing)
	}
	return readFiles(list)
}

func sortedGlob(dir, suffix string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(out)
	return out
}

// readFiles merges files, each with its includes before and after it.
func readFiles(list []string) (*config, error) {
	l := &loader{parsed: map[string]*config{}}
	var all []string
	for _, path := range l.withLocals(list) {
		all = append(all, l.includes(path, nil)...)
	}
	if len(l.faults) > 0 {
		return nil, errors.Join(l.faults...)
	}
	merged := newConfig()
	merged.files = all
	for _, path := range all {
		merged.merge(l.parsed[path])
	}
	return merged, nil
}

type loader struct {
	parsed map[string]*config
	faults []error
	count  int
}

// withLocals adds to each file its .local sibling, where there is one.
func (l *loader) withLocals(list []string) []string {
	var out []string
	for _, path := range list {
		out = append(out, path)
		local := strings.TrimSuffix(path, filepath.Ext(path)) + ".local"
		if slices.Contains(list, local) {
			continue
		}
		if info, err := os.Stat(local); err == nil && info.Mode().IsRegular() {
			out = append(out, local)
		}
	}
	return out
}

// includes gives the files that path comes to; chain holds who included whom.
// A file that does not exist is left out, as fail2ban does: common.local is
// included everywhere and rarely there.
func (l *loader) includes(path string, chain []string) []string {
	if l.count++; l.count > maxFiles {
		l.faults = append(l.faults, fmt.Errorf("%s: %w: more than %d files", path, ErrTooMuch, maxFiles))
		return nil
	}
	c, ok := l.parsed[path]
	if !ok {
		if _, err := os.Stat(path); err != nil {
			return nil
		}
		var err error
		if c, err = parseFile(path); err != nil {
			l.faults = append(l.faults, err)
			return nil
		}
		l.parsed[path] = c
	}
	chain = append(slices.Clone(chain), path)
	include := func(option string) (out []string) {
		for _, name := range strings.Split(c.sections[includeSection][option].text, "\n") {
			if name = strings.TrimSpace(name); name == "" {
				continue
			}
			if !filepath.IsAbs(name) {
				name = filepath.Join(filepath.Dir(path), name)
			}
			if slices.Contains(chain, name) {
				continue
			}
			for _, f := range l.withLocals([]string{name}) {
				out = append(out, l.includes(f, chain)...)
			}
		}
		return out
	}
	return append(append(include("before"), path), include("after")...)
}

// conditional matches a section that holds for some addresses only.
var conditional = regexp.MustCompile(`^(\w+)(\?.+)$`)

// merge lays another file over those read before; an option's earlier value stays
// known.
func (c *config) merge(o *config) {
	for k, v := range o.defaults {
		c.defaults[k] = v
	}
	for _, name := range o.order {
		from := o.sections[name]
		if m := conditional.FindStringSubmatch(name); m != nil {
			name = m[1]
			renamed := section{}
			for k, v := range from {
				renamed[k+m[2]] = v
			}
			from = renamed
		}
		to, ok := c.sections[name]
		if !ok {
			to = section{}
			c.sections[name] = to
			c.order = append(c.order, name)
		}
		for k, v := range from {
			if old, was := to[k]; was {
				known := c.sections[knownPrefix+name]
				if known == nil {
					known = section{}
					c.sections[knownPrefix+name] = known
				}
				known[k] = old
			}
			to[k] = v
		}
	}
}
