package fail2ban

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/compat/pickle"
)

// Version is the version of fail2ban whose commands are answered: clients
// compare it with theirs.
const Version = "1.0.2"

// A Jail is a topic as fail2ban's clients see it.
type Jail struct {
	Name                     string
	Failed, Banned           int    // now
	TotalFailed, TotalBanned uint64 // since the start
	// Files and Journal are the logs that are read: matches of the journal as
	// journalctl writes them.
	Files, Journal         []string
	BanTime, FindTime      time.Duration
	MaxRetry, MaxLines     int
	FailRegex, IgnoreRegex []string
	Actions                []string // the enforcer's name
}

// A Ban is a ban in force.
type Ban struct {
	Target       string
	Since, Until time.Time
}

// Errors of a [Node].
var (
	ErrAddress = errors.New("not an IP address or prefix")
	ErrJail    = errors.New("no such jail")
)

// Node is the node behind the socket. Jails are named as topics. Its methods
// may be called from several goroutines.
type Node interface {
	// Jails lists the names, sorted. Jail fails with [ErrJail].
	Jails() []string
	Jail(name string) (Jail, error)
	// Bans lists the bans in force, the oldest first.
	Bans(name string) []Ban
	// Banned says whether an address is banned in a jail, by a range too.
	Banned(name, target string) bool
	// Ban bans targets and says how many were not banned before. Those that may
	// not be banned are in the error; the others are banned.
	Ban(ctx context.Context, name string, targets []string) (int, error)
	// Unban sees to it that targets (nil: all that this node banned) are not
	// banned, in a jail or, for "", in all; it lists those that were.
	Unban(ctx context.Context, name string, targets []string) ([]string, error)
	// Ignored lists who is never banned. Ignore adds an entry or removes it.
	Ignored(name string) []string
	Ignore(name, target string, on bool) error
	// Attempt reports n failures of an address.
	Attempt(ctx context.Context, name, address string, n int) error
	// LogTarget names the log in fail2ban's form, "" for none.
	LogTarget() string
}

// maxAttempt bounds the failures that one command reports.
const maxAttempt = 100

// The exceptions that fail2ban's client has words for.
const (
	classException = "builtins.Exception"
	classValue     = "builtins.ValueError"
	classIndex     = "builtins.IndexError"
	classJail      = "fail2ban.exceptions.UnknownJailException"
)

func fault(class, format string, args ...any) *pickle.Error {
	i := strings.LastIndexByte(class, '.')
	return &pickle.Error{Module: class[:i], Class: class[i+1:], Text: fmt.Sprintf(format, args...)}
}

// errShort says that a command lacks a word.
var errShort = fault(classIndex, "list index out of range")

// answer does a command.
func (s *Server) answer(ctx context.Context, request []any) (any, error) {
	words := make([]string, 0, len(request))
	for _, v := range request {
		switch v := v.(type) {
		case string:
			words = append(words, v)
		case int64, float64, bool:
			words = append(words, fmt.Sprint(v))
		default:
			return nil, fault(classException, "Invalid command")
		}
	}
	if len(words) == 0 {
		return nil, errShort
	}
	args := words[1:]
	switch words[0] {
	case "ping":
		return "pong", nil
	case "version":
		return Version, nil
	case "echo":
		return slices.Clone(args), nil
	case "server-status":
		return "Server ready", nil
	case "flushlogs":
		return "flushed", nil
	case "status":
		return s.status(args)
	case "stats":
		return s.stats(), nil
	case "banned":
		return s.banned(args), nil
	case "unban":
		return s.unban(ctx, args)
	case "get":
		return s.get(args)
	case "set":
		return s.set(ctx, args)
	case "start", "stop", "restart", "reload", "add", "multi-set", "server-stream":
		return nil, fault(classException, "%s is not done here: these jails are topics of the Banmesh agent, which agent.toml configures", words[0])
	}
	return nil, fault(classException, "Invalid command")
}

func (s *Server) jail(name string) (Jail, error) {
	j, err := s.o.Node.Jail(name)
	if errors.Is(err, ErrJail) {
		return j, fault(classJail, "%s", name)
	}
	return j, err
}

// status answers for all jails or for one, in one of the flavors.
func (s *Server) status(args []string) (any, error) {
	names := s.o.Node.Jails()
	if len(args) == 0 {
		return pickle.List{pickle.Tuple{"Number of jail", len(names)}, pickle.Tuple{"Jail list", strings.Join(names, ", ")}}, nil
	}
	flavor := "basic"
	if len(args) > 1 {
		flavor = args[1]
	}
	if args[0] != "--all" {
		j, err := s.jail(args[0])
		if err != nil {
			return nil, err
		}
		return s.jailStatus(j, flavor), nil
	}
	if flavor == "stats" {
		return s.stats(), nil
	}
	all := pickle.Dict{}
	for _, name := range names {
		if j, err := s.o.Node.Jail(name); err == nil {
			all = append(all, pickle.Pair{Key: name, Value: s.jailStatus(j, flavor)})
		}
	}
	return pickle.List{pickle.Tuple{"Number of jail", len(names)}, pickle.Tuple{"Jail list", strings.Join(names, ", ")}, all}, nil
}

func (s *Server) jailStatus(j Jail, flavor string) any {
	filter := pickle.List{pickle.Tuple{"Currently failed", j.Failed}, pickle.Tuple{"Total failed", int(j.TotalFailed)}}
	if len(j.Journal) > 0 && len(j.Files) == 0 {
		filter = append(filter, pickle.Tuple{"Journal matches", []string{strings.Join(j.Journal, " + ")}})
	} else {
		filter = append(filter, pickle.Tuple{"File list", j.Files})
	}
	actions := pickle.List{pickle.Tuple{"Currently banned", j.Banned}, pickle.Tuple{"Total banned", int(j.TotalBanned)}}
	if flavor != "short" {
		actions = append(actions, pickle.Tuple{"Banned IP list", targets(s.o.Node.Bans(j.Name))})
	}
	if flavor == "cymru" { // nothing is asked of strangers
		for _, label := range []string{"Banned ASN list", "Banned Country list", "Banned RIR list"} {
			actions = append(actions, pickle.Tuple{label, []string{}})
		}
	}
	if flavor == "stats" {
		return statistics(j)
	}
	return pickle.List{pickle.Tuple{"Filter", filter}, pickle.Tuple{"Actions", actions}}
}

func targets(bans []Ban) []string {
	list := make([]string, 0, len(bans))
	for _, b := range bans {
		list = append(list, b.Target)
	}
	return list
}

func (s *Server) stats() any {
	all := pickle.Dict{}
	for _, name := range s.o.Node.Jails() {
		if j, err := s.o.Node.Jail(name); err == nil {
			all = append(all, pickle.Pair{Key: name, Value: statistics(j)})
		}
	}
	return all
}

func statistics(j Jail) any {
	return pickle.List{"banmesh", pickle.List{j.Failed, int(j.TotalFailed)}, pickle.List{j.Banned, int(j.TotalBanned)}}
}

// banned lists the bans of every jail, or the jails in which addresses are.
func (s *Server) banned(addresses []string) any {
	all := pickle.List{}
	names := s.o.Node.Jails()
	if len(addresses) == 0 {
		for _, name := range names {
			all = append(all, pickle.Dict{{Key: name, Value: targets(s.o.Node.Bans(name))}})
		}
		return all
	}
	for _, a := range addresses {
		in := []string{}
		for _, name := range names {
			if s.o.Node.Banned(name, a) {
				in = append(in, name)
			}
		}
		all = append(all, in)
	}
	return all
}

func (s *Server) unban(ctx context.Context, args []string) (any, error) {
	if len(args) == 0 {
		return nil, fault(classException, "Invalid command")
	}
	if len(args) == 1 && args[0] == "--all" {
		args = nil
	}
	lifted, err := s.o.Node.Unban(ctx, "", args)
	if err != nil {
		return nil, inValue(err)
	}
	return len(lifted), nil
}

// inValue makes the fault of a value that a person typed.
func inValue(err error) error {
	if errors.Is(err, ErrAddress) {
		return fault(classValue, "%v", err)
	}
	return err
}

// get answers for a setting of the server or of a jail.
func (s *Server) get(args []string) (any, error) {
	if len(args) == 0 {
		return nil, errShort
	}
	switch args[0] {
	case "loglevel":
		return "INFO", nil
	case "logtarget":
		if at := s.o.Node.LogTarget(); at != "" {
			return at, nil
		}
		return "SYSTEMD-JOURNAL", nil
	case "dbfile", "dbmaxmatches", "dbpurgeage":
		return nil, nil
	}
	if len(args) == 1 {
		return nil, errShort
	}
	j, err := s.jail(args[0])
	if err != nil {
		return nil, err
	}
	switch args[1] {
	case "banip":
		return s.banList(j.Name, len(args) > 2 && args[2] == "--with-time"), nil
	case "banned":
		return s.bannedIn(j.Name, args[2:]), nil
	case "ignoreip":
		return s.o.Node.Ignored(j.Name), nil
	}
	settings := map[string]any{
		"bantime": int(j.BanTime / time.Second), "findtime": int(j.FindTime / time.Second), "maxretry": j.MaxRetry, "maxmatches": j.MaxRetry,
		"maxlines": max(j.MaxLines, 1), "logpath": j.Files, "failregex": j.FailRegex, "ignoreregex": j.IgnoreRegex, "actions": j.Actions,
		"logencoding": "UTF-8", "usedns": "no", "ignoreself": true, "ignorecommand": "", "prefregex": "", "datepattern": nil, "journalmatch": matches(j),
	}
	v, ok := settings[args[1]]
	if !ok {
		return nil, fault(classException, "Invalid command (no get action or not yet implemented)")
	}
	return v, nil
}

func matches(j Jail) pickle.List {
	list := pickle.List{}
	for _, m := range j.Journal {
		list = append(list, strings.Fields(m))
	}
	return list
}

// banList lists bans, those that end first before others.
func (s *Server) banList(jail string, withTime bool) []string {
	bans := s.o.Node.Bans(jail)
	slices.SortStableFunc(bans, func(a, b Ban) int { return a.Until.Compare(b.Until) })
	if !withTime {
		return targets(bans)
	}
	list := make([]string, 0, len(bans))
	for _, b := range bans {
		// Ends are kept in whole seconds, rounded up.
		lasts := b.Until.Sub(b.Since).Round(time.Second)
		list = append(list, b.Target+" \t"+clock(b.Since)+" + "+strconv.FormatInt(int64(lasts/time.Second), 10)+" = "+clock(b.Since.Add(lasts)))
	}
	return list
}

func clock(t time.Time) string { return t.Local().Format(time.DateTime) }

// bannedIn answers 1 or 0 for each address, and the whole list for none.
func (s *Server) bannedIn(jail string, addresses []string) any {
	if len(addresses) == 0 {
		return targets(s.o.Node.Bans(jail))
	}
	one := pickle.List{}
	for _, a := range addresses {
		n := 0
		if s.o.Node.Banned(jail, a) {
			n = 1
		}
		one = append(one, n)
	}
	if len(one) == 1 {
		return one[0]
	}
	return one
}

// set bans, unbans, shields or reports in a jail; settings are not changed.
func (s *Server) set(ctx context.Context, args []string) (any, error) {
	if len(args) < 2 {
		return nil, errShort
	}
	j, err := s.jail(args[0])
	if err != nil {
		return nil, err
	}
	values := args[2:]
	switch args[1] {
	case "banip", "unbanip", "addignoreip", "delignoreip", "attempt":
		if len(values) == 0 {
			return nil, errShort
		}
	default:
		return nil, fault(classException, "Invalid command %s (settings of a topic are in agent.toml)", quoted(args[1]))
	}
	switch args[1] {
	case "banip":
		n, err := s.o.Node.Ban(ctx, j.Name, values)
		return n, inValue(err)
	case "unbanip":
		return s.unbanIn(ctx, j.Name, values)
	case "attempt":
		n := min(max(len(values)-1, 1), maxAttempt)
		return 1, inValue(s.o.Node.Attempt(ctx, j.Name, values[0], n))
	}
	for _, v := range values {
		if err := s.o.Node.Ignore(j.Name, v, args[1] == "addignoreip"); err != nil {
			return nil, inValue(err)
		}
	}
	return s.o.Node.Ignored(j.Name), nil
}

func (s *Server) unbanIn(ctx context.Context, jail string, values []string) (any, error) {
	report := values[0] == "--report-absent"
	if report {
		values = values[1:]
	}
	if len(values) == 0 {
		return 0, nil
	}
	lifted, err := s.o.Node.Unban(ctx, jail, values)
	if err != nil {
		return nil, inValue(err)
	}
	var absent []string
	for _, v := range values {
		if report && !slices.Contains(lifted, v) {
			absent = append(absent, quoted(v))
		}
	}
	if len(absent) > 0 {
		return nil, fault(classValue, "not banned: [%s]", strings.Join(absent, ", "))
	}
	return len(lifted), nil
}

// quoted writes a word as Python's repr does, where it is plain.
func quoted(s string) string { return "'" + s + "'" }
