package detect

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/detect/filter"
	"banmesh/internal/span"
	"banmesh/topics"
)

// A JailAction is one of a jail's actions against an offender.
type JailAction = f2bconf.Action

// An Imported jail is a fail2ban jail as a topic.
type Imported struct {
	Jail string
	// Definition is the topic that it becomes. The ports it closes are
	// not filled in: Actions, Port and Protocol say it in fail2ban's words.
	Definition     *topics.Definition
	Actions        []JailAction
	Port, Protocol string
	// Place is where the actions stand, PortPlace where Port does, as file:line.
	Place, PortPlace string
	// FoundOnly says why offenders are found and counted, and nobody is banned: nothing
	// where they are banned. Refused says why there is no topic at all.
	FoundOnly, Refused JailWarning
	// Warnings name settings that could not be carried over, and why.
	Warnings []JailWarning
	// Doubtful says that an address may be movable: see [Unproven].
	Doubtful bool
	// Replacement is the shipped topic that finds the lines of the jail's filter, "" for
	// none; Shipped says that it is used, by [Imported.UseShipped].
	Replacement ban.Topic
	Shipped     bool
	// Frozen says why the expressions are copied and not those of the filter's file, ""
	// where [Imported.Refer] can name it.
	Frozen string

	filterPath    string // the file, and the options
	filterOptions map[string]string
	filterJournal bool // its journal matches are the filter's
}

// A JailWarning is about a setting of a jail's that stands at Place, file:line. The
// zero one says nothing.
type JailWarning struct{ Place, Text string }

// Given says that it is said.
func (w JailWarning) Given() bool { return w.Text != "" }

func (w JailWarning) String() string { return w.Place + ": " + w.Text }

// SharedWarnings gives those that several jails have, as one line each with the jails'
// names: one cause, one line. alone says of a warning that it is none of them.
func SharedWarnings(all []Imported) (lines []string, alone func(JailWarning) bool) {
	jails := map[string][]string{}
	places := map[string]string{}
	var order []string
	for _, i := range all {
		for _, w := range i.Warnings {
			if _, seen := places[w.Text]; !seen {
				places[w.Text] = w.Place
				order = append(order, w.Text)
			}
			if of := jails[w.Text]; len(of) == 0 || of[len(of)-1] != i.Jail {
				jails[w.Text] = append(of, i.Jail)
			}
		}
	}
	for _, text := range order {
		if of := jails[text]; len(of) > 1 {
			lines = append(lines, fmt.Sprintf("%s: %s (%d jails: %s)", places[text], text, len(of), strings.Join(of, ", ")))
		}
	}
	return lines, func(w JailWarning) bool { return len(jails[w.Text]) == 1 }
}

// NotBanning gives the jails that are not imported, and those that are and ban nobody,
// with the reasons: a line for each reason, which names all its jails.
func NotBanning(all []Imported) (refused, found Reasons) {
	for _, i := range all {
		switch {
		case i.Refused.Given():
			refused.add(i.Jail, i.Refused)
		case i.FoundOnly.Given():
			found.add(i.Jail, i.FoundOnly)
		}
	}
	return refused, found
}

// Reasons are said of jails, in the order in which they came.
type Reasons struct {
	Jails   int
	reasons []JailWarning
	of      map[string][]string // the jails, by text
}

func (r *Reasons) add(jail string, why JailWarning) {
	if r.Jails++; r.of == nil {
		r.of = map[string][]string{}
	}
	if r.of[why.Text] == nil {
		r.reasons = append(r.reasons, why)
	}
	r.of[why.Text] = append(r.of[why.Text], jail)
}

// Lines gives "JAIL: reason", the name behind a prefix, and where several jails have it
// the reason and their names.
func (r *Reasons) Lines(prefix string) (lines []string) {
	for _, why := range r.reasons {
		if jails := r.of[why.Text]; len(jails) > 1 {
			lines = append(lines, fmt.Sprintf("%s (%d jails: %s)", why, len(jails), strings.Join(jails, ", ")))
		} else {
			lines = append(lines, prefix+jails[0]+": "+why.String())
		}
	}
	return lines
}

// Unproven says of which jails or topics with fail2ban's expressions it is not
// proven that a client cannot move the address, "" of none.
func Unproven(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("not proven for %d of fail2ban's filters: that no text of a client's names another address than its own; only one that is connected can be named (%s)",
		len(names), strings.Join(names, ", "))
}

// ImportJails reads fail2ban's enabled jails as definitions that stand by
// themselves. Jails that are wrong are reported; the others are given.
func ImportJails(dir string) ([]Imported, error) {
	jails, err := f2bconf.ReadJails(dir)
	faults := []error{err}
	names := topicNames(jails)
	own, stock := f2bconf.OwnLog(dir), readStockFiles(dir)
	var out []Imported
	for _, j := range jails {
		i, err := importJail(stock, j, names[j.Name], own)
		if err != nil {
			faults = append(faults, fmt.Errorf("jail %s: %w", j.Name, err))
			continue
		}
		out = append(out, i)
	}
	return out, errors.Join(faults...)
}

// fail2ban's own threshold and times where nothing sets them.
const jailMaxRetry = 3

var jailTime = span.Of(10 * time.Minute)

func importJail(stock stockFiles, j *f2bconf.Jail, name ban.Topic, ownLog string) (Imported, error) {
	out := Imported{Jail: j.Name, Place: j.Where("action").String(), PortPlace: j.Where("port").String(), Actions: j.Actions, Port: j.Port, Protocol: j.Protocol}
	for n, a := range out.Actions {
		if slices.ContainsFunc(a.Files, func(path string) bool { return !stock.asItCame("action.d", path) }) {
			out.Actions[n].Own = true
		}
	}
	for _, w := range j.Warnings {
		out.Warnings = append(out.Warnings, JailWarning{w.Place.String(), w.What})
	}
	warn := func(option, format string, args ...any) {
		out.Warnings = append(out.Warnings, JailWarning{j.Where(option).String(), fmt.Sprintf(format, args...)})
	}
	if _, err := ban.ParseTopic(string(name)); err != nil {
		return out, err
	}
	out.Definition = &topics.Definition{
		Name: name, Title: "fail2ban jail " + j.Name, Description: fmt.Sprintf("Imported from %s.", j.Place.File), Target: "ip",
	}
	if spelt, err := topicOf(j.Name); err != nil || spelt != name {
		out.Warnings = append(out.Warnings, JailWarning{j.Place.String(), fmt.Sprintf("another jail is spelt %s too: this one is the topic %s", spelt, name)})
	}
	if len(j.Filter.Failregex) == 0 {
		if j.FilterSpec != "" && j.Filter.Prefregex != "" {
			return out, fmt.Errorf("%s: %w: the filter %s has no failregex", j.Where("filter"), f2bconf.ErrSyntax, j.FilterSpec)
		}
		warn("filter", "its filter has no expression: its bans are made by hand")
		return out, nil
	}
	d := &topics.Detect{
		Prefregex: j.Filter.Prefregex, Ignoreregex: j.Filter.Ignoreregex, Datepattern: j.Filter.Datepattern, MaxLines: j.Filter.Maxlines,
		Files: j.Logpath, MaxRetry: jailMaxRetry, FindTime: jailTime, BanTime: jailTime,
		Rules: []topics.Rule{{Class: classOf(j.Filter.Name), Regex: j.Filter.Failregex}},
	}
	out.Definition.Detect = d
	if err := logsOf(&out, d, j, ownLog, warn); err != nil {
		return out, err
	}
	if err := limits(d, j, warn); err != nil {
		return out, err
	}
	f, err := filter.Compile(filter.Config{
		Name: j.Name, Prefregex: d.Prefregex, Failregex: j.Filter.Failregex, Ignoreregex: d.Ignoreregex, MaxLines: d.MaxLines, DatePattern: d.Datepattern,
	})
	if err != nil {
		return out, fmt.Errorf("%s: %w", j.Where("failregex"), err)
	}
	out.Doubtful = len(movable(f)) > 0
	out.refersTo(stock.dir, j)
	out.Replacement = replacementOf(stock, j)
	return out, nil
}

// logsOf says where the jail's log is. fail2ban's own log ends with fail2ban:
// jails that read it count this node's own bans where they are fail2ban's recidive,
// and are refused as dead where they are not.
func logsOf(out *Imported, d *topics.Detect, j *f2bconf.Jail, ownLog string, warn func(option, format string, args ...any)) error {
	if strings.HasPrefix(j.Filter.Name, "recidive") {
		// Who bans is known here first hand, and counted once.
		d.Decisions, d.Files, d.Journal = true, nil, nil
		return nil
	}
	if strings.HasPrefix(j.Backend, "systemd") {
		journalOf(d, j, warn)
		d.Files, d.Journal = nil, j.Filter.Journalmatch
		if len(d.Journal) == 0 {
			d.Journal = []string{""}
			warn("filter", "the filter has no journalmatch: every message of the journal is read")
		}
		for _, m := range d.Journal {
			if why := weakMatch(m); why != "" && m != "" {
				at := "filter"
				if slices.Contains(j.Overrides, "journalmatch") {
					at = "journalmatch"
				}
				warn(at, "journal match %q: %s", m, why)
			}
		}
		return nil
	}
	alive := slices.DeleteFunc(slices.Clone(d.Files), func(path string) bool { return path == ownLog || filepath.Base(path) == "fail2ban.log" })
	switch {
	case len(d.Files) == 0:
		warn("logpath", "it names no log file")
	case len(alive) == 0:
		out.Refused = JailWarning{j.Where("logpath").String(), "it reads fail2ban's own log, which ends with fail2ban; the topic recidive counts this node's bans"}
	default:
		d.Files = alive
		if j.Tail {
			d.Start = "tail"
		}
	}
	return nil
}

// journalOf reads the options of the backend systemd: which journal is read.
func journalOf(d *topics.Detect, j *f2bconf.Jail, warn func(option, format string, args ...any)) {
	for k, v := range j.BackendOptions {
		switch k {
		case "namespace":
			d.JournalNamespace = v
		case "journalpath":
			d.JournalDirs = []string{v}
		case "journalflags":
			flags, err := strconv.Atoi(v)
			if err != nil || flags&^(localOnly|runtimeOnly|systemOnly) != 0 {
				warn("backend", "journalflags = %s: only local (1), runtime (2) and system (4) mean something here", v)
			}
			if flags&runtimeOnly != 0 {
				d.JournalFiles = append(d.JournalFiles, "runtime")
			}
			if flags&systemOnly != 0 {
				d.JournalFiles = append(d.JournalFiles, "system")
			}
		case "rotated":
			// Rotated files are read where they are not read yet, whatever it says.
		default:
			warn("backend", "option %q of the backend is not known and has no effect", k)
		}
	}
}

// Flags of sd_journal_open(3).
const (
	localOnly   = 1
	runtimeOnly = 2
	systemOnly  = 4
)

// topicNames gives each jail's topic. Of jails that are spelt alike the one that
// is named so keeps the name, else the first by name; the others have a number.
func topicNames(jails []*f2bconf.Jail) map[string]ban.Topic {
	sorted := slices.SortedFunc(slices.Values(jails), func(a, b *f2bconf.Jail) int { return strings.Compare(a.Name, b.Name) })
	taken := map[ban.Topic]bool{}
	out := map[string]ban.Topic{}
	for _, exact := range []bool{true, false} {
		for _, j := range sorted {
			name, err := topicOf(j.Name)
			if _, has := out[j.Name]; has || err != nil || exact && string(name) != j.Name {
				continue
			}
			base := name
			for n := 2; taken[name]; n++ {
				end := fmt.Sprintf("-%d", n)
				name = base[:min(len(base), ban.MaxTopic-len(end))] + ban.Topic(end)
			}
			taken[name] = true
			out[j.Name] = name
		}
	}
	return out
}

// topicOf spells a jail's name as a topic.
func topicOf(jail string) (ban.Topic, error) {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(jail))
	return ban.ParseTopic(strings.Trim(name[:min(len(name), ban.MaxTopic)], "-"))
}

// classOf gives the class of a fail2ban filter's offences.
func classOf(name string) ban.Class {
	for _, c := range []struct {
		class ban.Class
		parts []string
	}{
		{ban.ClassRecidive, []string{"recidive"}},
		{ban.ClassSpam, []string{"spam"}},
		{ban.ClassExploit, []string{"shellshock", "overflows", "modsecurity", "suhosin", "php-url-fopen"}},
		{ban.ClassScan, []string{"botsearch", "badbots", "noscript", "nohome", "bad-request", "portsentry", "scanlogd", "fakegooglebot", "xinetd-fail"}},
		{ban.ClassFlood, []string{"limit-req", "named-refused", "counter-strike"}},
	} {
		for _, p := range c.parts {
			if strings.Contains(name, p) {
				return c.class
			}
		}
	}
	return ban.ClassAuth
}
