package f2bconf

import (
	"fmt"
	"regexp"
	"strings"
)

// optionName is the part before '=' in a specification.
var optionName = regexp.MustCompile(`^\s*([\w\-.]+(?:\?\w+=\w+)?)=`)

// ParseSpec reads NAME[option=value, option="a,b"][option='c'] into the name
// and its options, as filters and actions are named in jails. Errors quote no option's
// value: it may be a key.
func ParseSpec(spec string) (name string, options map[string]string, err error) {
	options = map[string]string{}
	spec = strings.TrimRight(spec, " \t\r\n")
	open := strings.IndexByte(spec, '[')
	if open < 0 {
		return spec, options, nil
	}
	if open == 0 || !strings.HasSuffix(spec, "]") {
		return "", nil, fmt.Errorf("%w: %.60q is no name with options: a ] is missing, or the name", ErrSyntax, spec[:open]+"[…")
	}
	name, rest := spec[:open], spec[open+1:len(spec)-1]
	for strings.TrimSpace(rest) != "" && strings.TrimSpace(rest) != "," {
		m := optionName.FindStringSubmatchIndex(rest)
		if m == nil {
			return "", nil, fmt.Errorf("%w: %.60q: option %d is not written as name=value", ErrSyntax, name, len(options)+1)
		}
		key := rest[m[2]:m[3]]
		rest = rest[m[1]:]
		var value string
		if q := rest; q != "" && (q[0] == '"' || q[0] == '\'') && strings.IndexByte(q[1:], q[0]) >= 0 {
			end := strings.IndexByte(q[1:], q[0]) + 1
			value, rest = q[1:end], q[end+1:]
		} else {
			end := strings.IndexAny(rest, ",]")
			if end < 0 {
				end = len(rest)
			}
			value, rest = rest[:end], rest[end:]
		}
		options[key] = strings.TrimSpace(value)
		trimmed := strings.TrimLeft(rest, " \t\r\n")
		switch {
		case trimmed == "":
			rest = ""
		case trimmed[0] == ',':
			rest = trimmed[1:]
		case trimmed[0] == ']' && strings.HasPrefix(strings.TrimLeft(trimmed[1:], " \t\r\n"), "["):
			rest = strings.TrimLeft(trimmed[1:], " \t\r\n")[1:]
		default:
			return "", nil, fmt.Errorf("%w: %.60q: unexpected text after option %q", ErrSyntax, name, key)
		}
	}
	return name, options, nil
}
