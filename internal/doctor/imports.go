package doctor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/detect"
	"banmesh/internal/settings"
)

// A MovedJail is an imported definition whose jail is another one now.
type MovedJail struct {
	Jail, Dir, At string
	Gone          bool // nothing enables it any more
}

// movedJails compares the definitions that imports wrote with the result of an import
// now. Directories of fail2ban's that are gone are left out: whoever removes
// fail2ban afterwards wants to hear nothing of it.
func movedJails(config string) (list []MovedJail) {
	paths, err := filepath.Glob(filepath.Join(config, settings.TopicDirectory, "*.toml"))
	if err != nil {
		return nil // a pattern of glob characters in the directory's own name
	}
	known := map[string][]detect.Imported{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.HasPrefix(text, []byte(settings.ImportedHead)) {
			continue
		}
		m := settings.ImportOrigin.FindSubmatch(text[len(settings.ImportedHead):])
		if m == nil {
			continue
		}
		jail, errJail := strconv.Unquote(`"` + string(m[1]) + `"`)
		dir, errDir := strconv.Unquote(`"` + string(m[2]) + `"`)
		at, errAt := time.Parse(time.DateOnly, string(m[3]))
		if errJail != nil || errDir != nil || errAt != nil {
			continue
		}
		all, read := known[dir]
		if !read {
			if _, err := os.Stat(filepath.Join(dir, "jail.conf")); err == nil {
				all, _ = settings.Fail2banJails(dir) // the jails that are right are given
			}
			known[dir] = all
		}
		if len(all) == 0 {
			continue
		}
		i := slices.IndexFunc(all, func(j detect.Imported) bool { return j.Jail == jail && !j.Refused.Given() })
		if i < 0 {
			list = append(list, MovedJail{Jail: jail, Dir: dir, At: string(m[3]), Gone: true})
			continue
		}
		now := all[i]
		now.Refer()
		if !bytes.Equal(settings.ImportedText(dir, now, at), text) {
			list = append(list, MovedJail{Jail: jail, Dir: dir, At: string(m[3])})
		}
	}
	return list
}

// imports says which imported jails have moved on.
func (e Facts) imports(add func(string, Level, string, string, ...any)) {
	of := map[string][]string{}
	var order []string
	for _, m := range e.Moved {
		key := fmt.Sprintf("no longer enabled in %s", m.Dir)
		if !m.Gone {
			key = fmt.Sprintf("another now in %s than on %s, when they were imported", m.Dir, m.At)
		}
		if _, ok := of[key]; !ok {
			order = append(order, key)
		}
		of[key] = append(of[key], m.Jail)
	}
	for _, key := range order {
		l, fix := LevelWrong, "agent import fail2ban --dry-run, then without --dry-run"
		if strings.HasPrefix(key, "no longer") {
			l, fix = LevelNote, "agent topics ignore NAME, where the topic is not wanted either"
		}
		add("import", l, fix, "%s: %s", count(len(of[key]), "jail")+" ("+strings.Join(of[key], ", ")+")", key)
	}
}
