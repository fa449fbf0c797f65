package f2bconf

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// An Action is a jail's against an offender.
type Action struct {
	Name    string
	Options map[string]string
	// Start and Ban are the commands that set the action up and that meet an
	// offender, with everything replaced but the tags of a ban, such as <ip>.
	// Both are empty where the action cannot be read, and of programs.
	Start, Ban string
	// Own says that the commands are not those that come with fail2ban: a .local
	// file sets them. Files are the others that the action was read from.
	Own   bool
	Files []string
	// Missing says that there is no such action; Fault why it cannot be read.
	Missing bool
	Fault   error
}

// String writes an action as a jail does: name[key="value", ...].
func (a Action) String() string {
	if len(a.Options) == 0 {
		return a.Name
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(a.Options)) {
		quote := `"`
		if strings.Contains(a.Options[k], quote) {
			quote = "'"
		}
		parts = append(parts, k+"="+quote+a.Options[k]+quote)
	}
	return a.Name + "[" + strings.Join(parts, ", ") + "]"
}

// readAction fills in the commands of an action of a jail, from
// DIR/action.d/NAME.conf and the files that override it.
func readAction(dir, jail string, a *Action) {
	if strings.Contains(a.Name, "/") {
		a.Missing = true
		return
	}
	if strings.HasSuffix(a.Name, ".py") {
		return // a program in Python
	}
	c, err := readNamed(filepath.Join(dir, "action.d", a.Name))
	if err != nil {
		if a.Missing = errors.Is(err, ErrMissing); !a.Missing {
			a.Fault = err
		}
		return
	}
	c.defaults["fail2ban_version"] = option{text: Version}
	c.defaults["fail2ban_confpath"] = option{text: dir}
	given := map[string]string{"name": jail, "actname": a.Name}
	maps.Copy(given, a.Options)
	a.Files = slices.DeleteFunc(slices.Clone(c.files), func(path string) bool { return strings.HasSuffix(path, ".local") })
	combined := map[string]string{}
	for _, section := range []string{"Definition", "Init"} {
		for k := range c.sections[section] {
			v, err := c.get(section, k, given)
			if err == nil {
				combined[k] = v
			} else if a.Fault == nil && !errors.Is(err, errNoOption) {
				a.Fault = fmt.Errorf("%s: %w", c.place(section, k), err)
			}
		}
	}
	maps.Copy(combined, given)
	more := func(ref string) (string, bool) { return c.getExtended("Definition", ref, given) }
	if a.Fault != nil {
		return // fail2ban does not start with it
	}
	for key, into := range map[string]*string{"actionstart": &a.Start, "actionban": &a.Ban} {
		text, err := substituteOne(key, combined[key], combined, more)
		if err != nil {
			continue // its effect stays unknown
		}
		*into = text
		if o, ok := c.sections["Definition"][key]; ok && strings.HasSuffix(o.place.File, ".local") {
			a.Own = true
		}
	}
}
