package detect

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/detect/f2bconf"
	"banmesh/topics"
)

// A Replacement is a filter of fail2ban's whose offenders a shipped topic finds, in
// the filter's modes that are named; "" is the filter without a mode.
type Replacement struct {
	Filter string
	Modes  []string
	Topic  ban.Topic
}

// Replacements are those for which that is tested with fail2ban's sample lines.
func Replacements() []Replacement {
	return []Replacement{
		{"sshd", []string{"", "normal", "ddos", "extra", "aggressive"}, "sshd"},
		{"dovecot", []string{"", "normal"}, "dovecot"},
		{"postfix", []string{"", "normal", "more", "extra", "aggressive"}, "postfix"},
		{"gitlab", []string{""}, "gitlab"},
		{"grafana", []string{""}, "grafana"},
		{"webmin-auth", []string{""}, "webmin"},
	}
}

// replacementOf gives the shipped topic that stands for the jail's filter, "" where
// the filter is not fail2ban's own as it came.
func replacementOf(stock stockFiles, j *f2bconf.Jail) ban.Topic {
	name, options, err := f2bconf.ParseSpec(j.FilterSpec)
	if err != nil || len(j.Overrides) > 0 {
		return ""
	}
	mode := options["mode"]
	if delete(options, "mode"); len(options) > 0 {
		return ""
	}
	i := slices.IndexFunc(Replacements(), func(r Replacement) bool { return r.Filter == name && slices.Contains(r.Modes, mode) })
	if i < 0 || slices.ContainsFunc(j.Filter.Files, func(path string) bool { return !stock.asItCame("filter.d", path) }) {
		return ""
	}
	return Replacements()[i].Topic
}

// stockFiles knows which files of a fail2ban directory are as they came.
type stockFiles struct {
	dir string
	// sums are the checksums that Debian's package manager has of them as they came.
	sums map[string]string
}

func readStockFiles(dir string) stockFiles {
	s := stockFiles{dir: dir, sums: map[string]string{}}
	f, err := os.Open("/var/lib/dpkg/status")
	if err != nil {
		return s
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), " "+dir+"/")
		if path, sum, has := strings.Cut(rest, " "); ok && has {
			s.sums[filepath.Join(dir, path)], _, _ = strings.Cut(sum, " ")
		}
	}
	return s
}

// asItCame says that a file of a directory below (filter.d, action.d) is fail2ban's
// own: no override, begun with its heading, and unchanged where the package manager knows its checksum.
func (s stockFiles) asItCame(below, path string) bool {
	if filepath.Dir(path) != filepath.Join(s.dir, below) || !strings.HasSuffix(path, ".conf") {
		return false
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	head, _, _ := bytes.Cut(text, []byte("\n["))
	if !bytes.Contains(bytes.ToLower(head), []byte("fail2ban")) && filepath.Base(path) != "common.conf" {
		return false
	}
	sum := md5.Sum(text)
	known := s.sums[path]
	return known == "" || known == hex.EncodeToString(sum[:])
}

// UseShipped makes the jail's topic the shipped one that stands for its filter, with the
// jail's thresholds, times, ports and ignored addresses. The log is the jail's where it is none of
// the topic's own.
func (i *Imported) UseShipped() {
	d, jail := topics.Find(i.Replacement), i.Definition.Detect
	if d == nil || jail == nil {
		return
	}
	x := d.Detect
	x.MaxRetry, x.FindTime, x.BanTime, x.Increment, x.IgnoreIP = jail.MaxRetry, jail.FindTime, jail.BanTime, jail.Increment, jail.IgnoreIP
	x.Start = jail.Start
	if jail.Timezone != "" {
		x.Timezone = jail.Timezone
	}
	if elsewhere := slices.ContainsFunc(jail.Files, func(path string) bool { return !slices.Contains(x.Files, path) }); elsewhere {
		x.Files, x.Journal = jail.Files, nil
	}
	if len(jail.JournalDirs) > 0 || jail.JournalNamespace != "" || len(jail.JournalFiles) > 0 {
		x.JournalDirs, x.JournalNamespace, x.JournalFiles, x.Files = jail.JournalDirs, jail.JournalNamespace, jail.JournalFiles, nil
	}
	d.Enforce = i.Definition.Enforce
	i.Definition, i.Shipped, i.Doubtful = d, true, false
	i.Warnings = slices.DeleteFunc(i.Warnings, func(w JailWarning) bool { return strings.HasPrefix(w.Text, "journal match ") })
}

// Refer makes the definition name the jail's filter in place of holding its
// expressions, so that updates of fail2ban's package are read. It does nothing, and
// Frozen says why, where the jail changes the filter.
func (i *Imported) Refer() {
	d := i.Definition.Detect
	if d == nil || i.Shipped || i.filterPath == "" || d.Decisions {
		return
	}
	d.Fail2ban = i.filterPath
	if len(i.filterOptions) > 0 {
		d.Fail2ban = f2bconf.Action{Name: i.filterPath, Options: i.filterOptions}.String()
	}
	d.Rules, d.Prefregex, d.Ignoreregex, d.Datepattern, d.MaxLines = nil, "", nil, nil, 0
	if i.filterJournal && len(d.Journal) > 0 {
		d.Journal = []string{topics.FilterJournal}
	}
}

// refersTo notes how the jail's filter can be named, or why it cannot.
func (i *Imported) refersTo(dir string, j *f2bconf.Jail) {
	own := slices.DeleteFunc(slices.Clone(j.Overrides), func(k string) bool { return k == "journalmatch" })
	switch {
	case j.FilterSpec == "":
		i.Frozen = "the jail has its own expressions"
		return
	case len(own) > 0:
		i.Frozen = fmt.Sprintf("the jail sets %s itself", strings.Join(own, ", "))
		return
	}
	name, options, err := f2bconf.ParseSpec(j.FilterSpec)
	if err != nil {
		return
	}
	if i.filterPath = name; !strings.Contains(name, "/") {
		i.filterPath = filepath.Join(dir, "filter.d", name+".conf")
	}
	i.filterOptions = maps.Clone(options)
	i.filterJournal = len(j.Overrides) == 0 && len(j.Filter.Journalmatch) > 0
}

// FollowFilter puts the journal matches of the fail2ban filter that a definition
// names in the place of [topics.FilterJournal].
func FollowFilter(def *topics.Definition) error {
	d := def.Detect
	if d == nil || d.Fail2ban == "" || !slices.Contains(d.Journal, topics.FilterJournal) {
		return nil
	}
	read, err := f2bconf.ReadFilter(DefaultFail2banDir, d.Fail2ban, "journal", nil)
	if err != nil {
		return fmt.Errorf("topic %s: %w", def.Name, err)
	}
	d.Journal = read.Journalmatch
	if len(d.Journal) == 0 {
		d.Journal = []string{""}
	}
	return nil
}
