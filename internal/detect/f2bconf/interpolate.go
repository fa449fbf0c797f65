package f2bconf

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrInterpolation says that a value refers to an option that does not exist, or to
// itself.
var ErrInterpolation = errors.New("cannot interpolate")

// errNoOption says that an option is not set anywhere.
var errNoOption = errors.New("no such option")

// raw finds an option of a section, given variables first and defaults last.
func (c *config) raw(sec, name string, vars map[string]string) (string, bool) {
	if v, ok := vars[name]; ok {
		return v, true
	}
	if v, ok := c.sections[sec][name]; ok {
		return v.text, true
	}
	if v, ok := c.defaults[name]; ok {
		return v.text, true
	}
	return "", false
}

// get gives an option's value with its %(references)s replaced.
func (c *config) get(sec, name string, vars map[string]string) (string, error) {
	text, ok := c.raw(sec, name, vars)
	if !ok {
		return "", errNoOption
	}
	if _, given := vars[name]; given {
		return text, nil // given values are meant as they are
	}
	out, err := c.interpolate(sec, name, text, vars, 1)
	if err != nil {
		return "", fmt.Errorf("%s: option %q: %w", c.place(sec, name), name, err)
	}
	return out, nil
}

// place tells where an option was set.
func (c *config) place(sec, name string) Place {
	if v, ok := c.sections[sec][name]; ok {
		return v.place
	}
	return c.defaults[name].place
}

func (c *config) interpolate(sec, name, text string, vars map[string]string, depth int) (string, error) {
	if depth > maxDepth {
		return "", fmt.Errorf("%w: references are nested too deeply in %q", ErrInterpolation, name)
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '%')
		if i < 0 {
			b.WriteString(text)
			return b.String(), nil
		}
		b.WriteString(text[:i])
		text = text[i:]
		switch {
		case strings.HasPrefix(text, "%%"):
			b.WriteByte('%')
			text = text[2:]
			continue
		case !strings.HasPrefix(text, "%("):
			return "", fmt.Errorf("%w: '%%' must be followed by '%%' or '(': %.40q", ErrInterpolation, text)
		}
		end := strings.IndexByte(text, ')')
		if end < 0 || end+1 >= len(text) || text[end+1] != 's' {
			return "", fmt.Errorf("%w: bad reference %.40q", ErrInterpolation, text)
		}
		ref := text[2:end]
		text = text[end+2:]
		value, ok := c.reference(sec, ref, vars)
		if !ok {
			return "", fmt.Errorf("%w: %%(%s)s is not set", ErrInterpolation, ref)
		}
		if strings.Contains(value, "%") {
			var err error
			if value, err = c.interpolate(sec, ref, value, vars, depth+1); err != nil {
				return "", err
			}
		}
		if b.WriteString(value); b.Len() > maxExpand {
			return "", fmt.Errorf("%w: %q grows beyond %d bytes", ErrInterpolation, name, maxExpand)
		}
	}
}

// sectionOption matches section/option.
var sectionOption = regexp.MustCompile(`^([\w\-]+)/([^\)]+)$`)

// reference finds the value of %(ref)s in a section: an option, section/option,
// known/option or default/option.
func (c *config) reference(sec, ref string, vars map[string]string) (string, bool) {
	lower := strings.ToLower(ref)
	if v, ok := vars[lower]; ok {
		return v, true
	}
	if lower == "__name__" {
		return sec, true
	}
	m := sectionOption.FindStringSubmatch(ref)
	if m == nil {
		return c.raw(sec, lower, nil)
	}
	if v, ok := c.raw(sec, lower, nil); ok {
		return v, true
	}
	name := strings.ToLower(m[2])
	switch strings.ToLower(m[1]) {
	case "default":
	case "known":
		if v, ok := c.sections[knownPrefix+sec][name]; ok {
			return v.text, true
		}
	default:
		other, ok := c.sections[m[1]]
		if !ok {
			return "", false
		}
		if v, ok := other[name]; ok {
			return v.text, true
		}
	}
	v, ok := c.defaults[name]
	return v.text, ok
}

// getExtended is get for names that may be section/option, as <tags> are.
func (c *config) getExtended(sec, name string, vars map[string]string) (string, bool) {
	if m := sectionOption.FindStringSubmatch(name); m != nil {
		tries := []string{m[1]}
		switch strings.ToLower(m[1]) {
		case "known":
			tries = []string{knownPrefix + sec, sec}
		case "default":
			tries = []string{defaultSection}
		}
		for _, try := range tries {
			if c.sections[try] == nil && try != defaultSection {
				continue
			}
			if v, err := c.get(try, strings.ToLower(m[2]), nil); err == nil {
				return v, true
			}
		}
	}
	v, err := c.get(sec, strings.ToLower(name), vars)
	return v, err == nil
}

// tag is the form of <tags>.
var tag = regexp.MustCompile(`<([^ <>]+)>`)

// substituteOne replaces the <tags> in an option by other options, and by the value that
// more gives for names that are none of them. Unknown tags stay.
func substituteOne(name, value string, options map[string]string, more func(string) (string, bool)) (string, error) {
	counts := map[string]int{}
	for changed := true; changed; {
		changed = false
		for at := 0; ; {
			m := tag.FindStringSubmatchIndex(value[at:])
			if m == nil {
				break
			}
			ref := value[at+m[2] : at+m[3]]
			if counts[ref]++; ref == name || counts[ref] > maxReplace+len(value) {
				return "", fmt.Errorf("%w: <%s> in %q refers to itself", ErrInterpolation, ref, name)
			}
			replacement, ok := options[ref]
			if !ok && more != nil {
				replacement, ok = more(ref)
			}
			if !ok {
				at += m[1]
				continue
			}
			if counts["\x00"+ref]++; counts["\x00"+ref] > maxReplace {
				return "", fmt.Errorf("%w: <%s> in %q refers to itself", ErrInterpolation, ref, name)
			}
			value = strings.ReplaceAll(value, "<"+ref+">", replacement)
			if len(value) > maxExpand {
				return "", fmt.Errorf("%w: %q grows beyond %d bytes", ErrInterpolation, name, maxExpand)
			}
			at += m[0]
			changed = true
		}
	}
	return value, nil
}
