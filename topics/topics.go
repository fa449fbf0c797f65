// Package topics holds the topic definitions that the agent ships, and reads
// those that operators write: a topic's targets, how offenders are
// found in logs, how bans of it are enforced, and sample lines that say so.
package topics

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/span"
	"banmesh/internal/strict"
)

// ProtocolHTTP is the [Definition.Protocol] of web servers and of services
// behind them.
const ProtocolHTTP = "http"

// MaxFile bounds a definition's file: definitions also come from the network.
const MaxFile = 256 << 10

// A Definition is all that is known of a topic.
type Definition struct {
	// Name is the topic.
	Name ban.Topic `toml:"name"`
	// Title is a few words for lists.
	Title string `toml:"title"`
	// Description is a paragraph for people who decide whether to subscribe.
	Description string `toml:"description"`
	// Category is a choice of topics for people: "attackers", "spam", "content" or
	// "scanners"; "" is that of its first rule.
	Category string `toml:"category"`
	// Target is the kind of target: "ip" or "wallet".
	Target string `toml:"target"`
	// Protocol is the service's protocol: "http" where proxies and relays may
	// stand before it, "" for anything else, "http" too where its ports say so.
	Protocol string `toml:"protocol"`
	// Detect says how offenders are found; topics without it have bans that are made
	// by hand or come from others alone.
	Detect *Detect `toml:"detect"`
	// Enforce names the ports that are closed to a banned target.
	Enforce Enforce `toml:"enforce"`
	// Samples are lines that must and must not match.
	Samples []Sample `toml:"sample"`
}

// PortOwner in a journal match stands for "_UID=" and the user who listens at the
// topic's ports, if anybody does.
const PortOwner = "_UID=port-owner"

// FilterJournal in place of a journal match stands for those of the fail2ban
// filter that the definition names.
const FilterJournal = "fail2ban"

// Detect says where a topic's log is, which lines are offences, and how many
// of them make a ban.
type Detect struct {
	// Journal are matches of the systemd journal, as journalctl and
	// fail2ban's journalmatch write them; several are alternatives.
	Journal []string `toml:"journal"`
	// JournalNamespace reads the journal of services with this LogNamespace= in
	// place of the usual one; "*" reads all of them and the usual one.
	JournalNamespace string `toml:"journal_namespace"`
	// JournalDirs are directories of journal files in place of this machine's.
	JournalDirs []string `toml:"journal_dirs"`
	// JournalFiles leaves journal files out: "system" those of users, "runtime"
	// those outside of /run.
	JournalFiles []string `toml:"journal_files" sample:"['system']"`
	// Files are glob patterns. With Journal set they are read only where
	// there is no journal, unless Both is set.
	Files []string `toml:"files"`
	// Both reads files and journal.
	Both bool `toml:"both"`
	// Docker are names of containers or globs of json-file and local logs; always read.
	Docker []string `toml:"docker"`
	// Syslog are addresses to receive on, such as "udp://127.0.0.1:5140".
	Syslog []string `toml:"syslog"`
	// Stdin reads the agent's standard input.
	Stdin bool `toml:"stdin"`

	// Start says where a log begins that was not read before: "" with the lines that
	// count still, "tail" or "skip" at its end, "30m" with those of the last half hour,
	// "2026-11-28T09:00:00Z" with those since. Of topics that share a log the wish of all of them counts.
	Start string `toml:"start" sample:"'tail'"`

	// Decisions counts each ban that this node decides in another topic as an
	// offence: who is banned again and again.
	Decisions bool `toml:"decisions"`

	// Fail2ban names a filter of fail2ban to use in place of Rules:
	// "sshd[mode=aggressive]".
	Fail2ban string `toml:"fail2ban"`
	// Prefregex must match first; the rules see its <F-CONTENT>.
	Prefregex string `toml:"prefregex"`
	// Rules are tried in order; the first one that matches counts.
	Rules []Rule `toml:"rule"`
	// Success are lines that prove a login, or work done for a client: their
	// addresses become guests, and failures of the same account are forgiven.
	Success []Success `toml:"success"`
	// Taint are expressions of lines after which a client may have written whole
	// lines: those within the next second are counted and believed by nobody.
	Taint []string `toml:"taint"`

	// Format says that lines are made of fields: "json", "logfmt", "access"
	// (the common and the combined log format) or "proxy" (Nginx Proxy
	// Manager's), or several of them, "logfmt | json". Rules may then have Where in place of Regex, and Address names the field that holds the client's address:
	// "request.client_ip | request.remote_ip" is the first of two that is there.
	// Port, User and Time name the other fields that are worth something.
	Format  string `toml:"format" sample:"'json'"`
	Address string `toml:"address"` // the field that holds the client's address
	Port    string `toml:"port"`    // the field that holds the client's port
	User    string `toml:"user"`    // the field that holds the account
	Time    string `toml:"time"`    // the field that holds the time

	// Sets are lists of texts that conditions look for: "uri in secrets".
	Sets []Set `toml:"set"`

	// Ignoreregex lines are no offence whatever else they match.
	Ignoreregex []string `toml:"ignoreregex"`
	// Datepattern says where the time stands, as in fail2ban; empty means
	// the usual places.
	Datepattern []string `toml:"datepattern"`
	// Timezone is that of dates that name none, as fail2ban's logtimezone
	// writes it: "UTC+0200", "CEST"; empty means this machine's.
	Timezone string `toml:"timezone"`
	// MaxLines joins so many lines before matching; 0 and 1 mean one.
	MaxLines int `toml:"maxlines"`

	// MaxRetry offences within FindTime make a ban of BanTime.
	MaxRetry int `toml:"maxretry"`
	// GuestMaxRetry is MaxRetry for guests; 0 is five thirds of it, rounded up.
	GuestMaxRetry int           `toml:"guest_maxretry"`
	FindTime      span.Duration `toml:"findtime"` // the time within which offences count together
	BanTime       span.Duration `toml:"bantime"`  // the time for which an offender is banned
	// Increment makes each further ban of a target longer.
	Increment Increment `toml:"increment"`
	// UseDNS looks up host names in lines that matched. An address counts that has
	// the name itself; the evidence is weak, and the ban is for this node alone.
	UseDNS bool `toml:"usedns"`
	// Corroborate is how long the kernel remembers who finished a TCP handshake
	// with a port of the topic. A line counts only for an address that did, where
	// the kernel can be asked, so that a forged line frames nobody; 0 is an hour.
	Corroborate span.Duration `toml:"corroborate"`
	// FailureBytes is how much a client sends at most, headers of packets
	// included, on a connection that ends in an offence: a line that names no
	// port counts only for an address that had such a connection. 0 takes any.
	FailureBytes int64 `toml:"failure_bytes"`
	// GuestBytes makes an address a guest that sent so much within Corroborate.
	// 0 makes none: bytes alone are cheap.
	GuestBytes int64 `toml:"guest_bytes"`
	// Episode makes weak offences of one address that lie so close together
	// count as one: forty streams that break off at once are one thing.
	Episode span.Duration `toml:"episode"`
	// IgnoreIP are addresses, prefixes and host names that are never offenders. Of a
	// name the addresses count that it has, or last had where no name server answers.
	IgnoreIP []string `toml:"ignoreip"`
}

// Formats gives the names in Format.
func (d *Detect) Formats() []string { return alternatives(d.Format) }

// alternatives splits "a | b".
func alternatives(s string) (out []string) {
	for name := range strings.SplitSeq(s, "|") {
		if name = strings.TrimSpace(name); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// A Rule is a kind of line that is an offence.
type Rule struct {
	// Class is the kind of offence, as the network speaks of it.
	Class ban.Class `toml:"class"`
	// Regex are expressions in fail2ban's syntax with its tags.
	Regex []string `toml:"regex"`
	// Where are conditions on fields, all of which must hold: "status = 401",
	// "request.uri ~ ^/login\\b", "request.headers.Authorization" (it is there),
	// "! user" (it is not), "uri | request.uri in secrets" (a set's text is in it).
	Where []string `toml:"where"`
	// Weight is the count of one offence, 1 where it is left out. 0 only shows the line
	// to explain and test.
	Weight *float64 `toml:"weight"`
	// Twin says that the other rules with it tell of the same offences, in another
	// log: they count together as much as the one that tells most.
	Twin bool `toml:"twin"`
	// Weak says that honest clients do this too. Where it is not said, what is
	// of class "scan-weak" is.
	Weak *bool `toml:"weak"`
}

// IsWeak says that honest clients do this too.
func (r Rule) IsWeak() bool {
	if r.Weak != nil {
		return *r.Weak
	}
	return r.Class == ban.ClassScanWeak
}

// A Set is a list of texts with a name.
type Set struct {
	Name   string `toml:"name"`                       // how conditions name it
	Source string `toml:"source"`                     // where the texts were learnt
	Date   string `toml:"date" sample:"'2026-11-28'"` // when they were learnt
	// Path looks for them before the "?" of a request alone.
	Path bool `toml:"path"`
	// Texts are compared without regard to case and percent-encoding. "^" before a text
	// and "$" behind it hold it to the field's start and to its path's end.
	Texts []string `toml:"texts"`
}

// A Success is a kind of line that proves a login; see [Rule].
type Success struct {
	Regex []string `toml:"regex"` // expressions, as in a rule
	Where []string `toml:"where"` // conditions on fields, as in a rule
}

// Increment is fail2ban's bantime.increment: the n-th ban of a target lasts
// BanTime*Factor*2^(n-1), or BanTime*Factor*Multipliers[n-1], at most MaxTime.
type Increment struct {
	Enabled     bool          `toml:"enabled"`     // whether further bans are longer
	Factor      float64       `toml:"factor"`      // of the topic's ban time
	Multipliers []float64     `toml:"multipliers"` // of the first ban, the second and so on, in place of doubling
	MaxTime     span.Duration `toml:"maxtime"`     // no ban is longer
	// Random adds up to so much, so that bots cannot count on an end.
	Random span.Duration `toml:"random"`
}

// Enforce names the ports that are closed to a banned address.
type Enforce struct {
	// Ports are numbers or ranges: "22", "60000-61000". Ignored with AllPorts.
	Ports     []string `toml:"ports" sample:"['22', '60000-61000']"`
	Protocols []string `toml:"protocols" sample:"['tcp']"` // tcp, udp, sctp, dccp
	AllPorts  bool     `toml:"all_ports"`                  // close every port
}

// Written gives the time that a sample states, zero for none. zone is that of
// times that name none.
func (s Sample) Written(zone *time.Location) (time.Time, error) {
	if s.Time == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s.Time); err == nil {
		return t, nil
	}
	return time.ParseInLocation("2006-01-02T15:04:05", s.Time, zone)
}

// A Sample is a log line with the target that must be found in it.
type Sample struct {
	// Line as it stands in the log file, or with Journal the message alone.
	Line string `toml:"line"`
	// Target is who must be found, "" when the line must not match.
	Target string `toml:"target"`
	// Class is the offence's, where it matters.
	Class ban.Class `toml:"class"`
	// Time is when the line was written, as it says itself:
	// "2026-11-21T09:14:02+01:00", or without a zone as the topic's or this machine's is.
	Time string `toml:"time" sample:"'2026-11-21T09:14:02Z'"`
	// Success is whose login the line proves, "" for nobody's.
	Success string `toml:"success"`
	// Journal says that the line is a journal's message by Tag.
	Journal bool   `toml:"journal"`
	Tag     string `toml:"tag"` // the program that wrote the message
}

//go:embed *.toml
var shipped embed.FS

// Builtin gives the definitions that the program ships, by name. They are new
// on every call, so that a caller may change its own.
func Builtin() []*Definition {
	names, err := fs.Glob(shipped, "*.toml")
	if err != nil {
		panic(err) // a bad pattern, known at build time
	}
	out := make([]*Definition, 0, len(names))
	for _, name := range names {
		b, err := shipped.ReadFile(name)
		if err != nil {
			panic(err)
		}
		d, err := Parse(name, b)
		if err != nil {
			panic(fmt.Sprintf("a shipped topic definition is wrong: %v", err)) // a test parses every one
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b *Definition) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return out
}

// A Broken is a definition's file that cannot be used.
type Broken struct {
	Topic ban.Topic
	Err   error
}

// Find gives a shipped definition, nil where there is none of the topic.
func Find(name ban.Topic) *Definition {
	text, ok := Shipped(name)
	if !ok {
		return nil
	}
	d, err := Parse(string(name), text)
	if err != nil {
		panic(fmt.Sprintf("a shipped topic definition is wrong: %v", err)) // a test parses every one
	}
	return d
}

// Load gives the shipped definitions with the files of dir laid over them:
// DIR/sshd.toml changes the keys of the topic sshd that it names, and defines
// the topic where none is shipped. A dir that does not exist is no error. All
// faults of all files are reported.
func Load(dir string) ([]*Definition, error) {
	all, _, broken, err := LoadEach(dir)
	if err != nil {
		return nil, err
	}
	var faults []error
	for _, b := range broken {
		faults = append(faults, b.Err)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return all, nil
}

// LoadEach is Load for who goes on without the files that cannot be used: those
// are given apart. A shipped topic that such a file should change looks for
// nobody any more, because the intended change is unknown; its bans
// stand. own are the topics that have a file which can be used.
func LoadEach(dir string) (all []*Definition, own map[ban.Topic]bool, broken []Broken, err error) {
	all, own = Builtin(), map[ban.Topic]bool{}
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// Its files would silently not count.
		return nil, nil, nil, fmt.Errorf("listing topic definitions: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".toml") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		name := ban.Topic(strings.TrimSuffix(e.Name(), ".toml"))
		i := slices.IndexFunc(all, func(d *Definition) bool { return d.Name == name })
		d, err := read(filepath.Join(dir, e.Name()), all, i)
		switch {
		case err != nil:
			broken = append(broken, Broken{name, err})
			if i >= 0 {
				all[i].Detect = nil
			}
		case i >= 0:
			all[i], own[name] = d, true
		default:
			all, own[d.Name] = append(all, d), true
		}
	}
	slices.SortFunc(all, func(a, b *Definition) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return all, own, broken, nil
}

// read reads a definition's file, laid over the i-th of those known; -1 is none.
func read(path string, known []*Definition, i int) (*Definition, error) {
	b, err := strict.Read(path, MaxFile)
	if err != nil {
		return nil, err
	}
	if i < 0 {
		return Parse(path, b)
	}
	d := *known[i]
	if d.Detect != nil {
		detect := *d.Detect
		d.Detect = &detect
	}
	return &d, Override(path, b, &d)
}
