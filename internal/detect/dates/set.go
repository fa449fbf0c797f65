package dates

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// maxPatterns bounds the lines of a datepattern.
const maxPatterns = 100

// A Set is a compiled datepattern. It may be shared by detectors.
type Set struct {
	templates []*template
	// none is the template of logs without dates, where it stands beside others:
	// it fits every line, and so it is tried last.
	none *template
	// usual says that lines which begin with a date in one of the two most
	// usual forms need no search.
	usual bool
}

// Compile reads a datepattern's lines; none means the usual places.
func Compile(patterns []string, now time.Time) (*Set, error) {
	if len(patterns) > maxPatterns {
		return nil, fmt.Errorf("%w: %d lines are more than %d", ErrPattern, len(patterns), maxPatterns)
	}
	s := &Set{}
	known := map[string]bool{}
	for _, p := range patterns {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		if err := s.add(p, now, known); err != nil {
			return nil, err
		}
	}
	switch {
	case len(s.templates) == 0 && s.none != nil:
		s.templates, s.none = []*template{s.none}, nil
	case len(s.templates) == 0:
		return s, s.add("{DEFAULT}", now, known)
	}
	return s, nil
}

func (s *Set) add(p string, now time.Time, known map[string]bool) error {
	key := p
	if !strings.Contains(p, "%") {
		key = strings.ToUpper(p)
	}
	switch {
	case key == "{DEFAULT}", key == lineBegin:
		all, err := standard(now)
		if err != nil {
			return err
		}
		s.usual = len(s.templates) == 0
		for _, t := range all {
			if (key == "{DEFAULT}" || t.anchored) && !known[t.name] {
				known[t.name] = true
				s.templates = append(s.templates, t)
			}
		}
		return nil
	case strings.Contains(key, "{DATE}"):
		plain, err := plainDefaults(now)
		if err != nil {
			return err
		}
		for i, t := range plain {
			if t.kind != kindFields {
				continue // fail2ban leaves the word there, which no line holds
			}
			inner := strings.TrimPrefix(strings.TrimPrefix(t.pattern, "{UNB}"), lineBegin)
			placed, err := newTemplate(dateWord.ReplaceAllLiteralString(p, inner), now)
			if err != nil {
				return err
			}
			// The others differ in the date's form alone, and are compiled when first needed.
			if i == 0 {
				if _, err := placed.compiled(); err != nil {
					return err
				}
			}
			if !known[placed.name] {
				known[placed.name] = true
				s.templates = append(s.templates, placed)
			}
		}
		return nil
	}
	t, err := newTemplate(p, now)
	if err != nil {
		return err
	}
	if known[t.name] {
		return fmt.Errorf("%w: %q stands there twice", ErrPattern, p)
	}
	if _, err := t.compiled(); err != nil {
		return err
	}
	known[t.name] = true
	if key == "{NONE}" {
		s.none = t
		return nil
	}
	s.templates = append(s.templates, t)
	return nil
}

// plains holds the templates of the default forms by themselves, as standards does.
var plains sync.Map // of decades: []*template

func plainDefaults(now time.Time) ([]*template, error) {
	key := centuries(now)
	if all, ok := plains.Load(key); ok {
		return all.([]*template), nil
	}
	var list []*template
	for _, d := range defaults {
		t, err := newTemplate(d, now)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	all, _ := plains.LoadOrStore(key, list)
	return all.([]*template), nil
}

// standards holds the default templates of one range of years: they are the
// same for every filter, and compiled when first needed.
var standards sync.Map // of decades: []*template

// standard gives the default templates: each one first in a form that is
// bound to the start of the line, then anywhere.
func standard(now time.Time) ([]*template, error) {
	key := centuries(now)
	if all, ok := standards.Load(key); ok {
		return all.([]*template), nil
	}
	var anchored, anywhere []*template
	for _, p := range defaults {
		t, err := newTemplate(p, now)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(t.name, lineBegin) && !strings.HasPrefix(t.name, "^") {
			bound, err := anchoredTemplate(t, now, func(s string) string { return lineBegin + s })
			if err != nil {
				return nil, err
			}
			if bound.name != t.name {
				bound.weight = 100
				anchored = append(anchored, bound)
			}
		}
		anywhere = append(anywhere, t)
	}
	all, _ := standards.LoadOrStore(key, append(anchored, anywhere...))
	return all.([]*template), nil
}

// Names gives the templates' names, for reports.
func (s *Set) Names() []string {
	out := make([]string, 0, len(s.templates)+1)
	for _, t := range s.templates {
		out = append(out, t.name)
	}
	if s.none != nil {
		out = append(out, s.none.name)
	}
	return out
}
