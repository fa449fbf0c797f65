package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/enforcers"
)

// enforcedFile, in the state directory, lists the enforcers with which this node
// enforces or did, as far as their bans may still be there.
const enforcedFile = "enforced.json"

// enforced is an entry of [enforcedFile].
type enforced struct {
	Enforcer       string `json:"enforcer"`
	Table          string `json:"table,omitempty"`
	IPTablesLegacy bool   `json:"iptables_legacy,omitempty"`
}

// leftovers are bans in the kernel that this agent does not keep: of a run
// before it that enforced, where this one does not or does it elsewhere. It
// takes them away at its start. Those of an agent that runs stay, as do those
// that it lacks the right to remove; a person is told.
type leftovers struct {
	file string
	log  *slog.Logger

	mu   sync.Mutex
	kept []leftover
}

// A leftover is an enforcer whose bans could not be removed, and why.
type leftover struct {
	by  firewall.Enforcer
	why error
	fix string // the command that ends them
}

// clear removes the bans of every enforcer of this node but the one in use;
// off says that none is. now is the choice of the settings.
func (l *leftovers) clear(ctx context.Context, chosen firewall.Enforcer, now enforced, off bool) {
	l.kept = nil
	var left []enforced
	known := false
	for _, before := range l.read() {
		current := before == now
		known = known || current
		if current && !off {
			continue
		}
		e, fix := chosen, "agent firewall flush"
		if !current {
			var err error
			if e, err = enforcers.Find(before.Enforcer, firewall.Setup{Table: before.Table, IPTablesLegacy: before.IPTablesLegacy}); err != nil {
				continue
			}
			fix = "agent firewall flush, with enforcer and table in [firewall] as they were"
		}
		if !l.remove(ctx, e, true, fix) {
			left = append(left, before)
		}
	}
	switch {
	case !off:
		left = append(left, now)
	case !known:
		l.remove(ctx, chosen, false, "agent firewall flush")
	}
	if err := l.write(left); err != nil {
		l.log.ErrorContext(ctx, "choice of the enforcer not recorded", slog.Any("error", err))
	}
}

// remove takes an enforcer's bans away. known says that this node enforced with
// it: then bans that cannot be seen may be there, and else none is its own.
func (l *leftovers) remove(ctx context.Context, e firewall.Enforcer, known bool, fix string) (gone bool) {
	s, err := e.Inspect(ctx, nil)
	switch {
	case errors.Is(err, firewall.ErrUnseen), err == nil && !s.Present, err != nil && !known:
		return true
	case err == nil && !known:
		err = errNotOurs
	case err == nil:
		err = e.Remove(ctx)
	}
	if err == nil {
		l.log.InfoContext(ctx, "bans of an earlier run removed", slog.String("where", e.Where()))
		return true
	}
	l.log.WarnContext(ctx, "bans of an earlier run stay", slog.String("where", e.Where()), slog.Any("error", err))
	if errors.Is(err, firewall.ErrBusy) {
		fix = strings.Replace(fix, "flush", "panic", 1)
	}
	l.kept = append(l.kept, leftover{e, err, fix})
	return false
}

// errNotOurs says that somebody else's bans may be in the table.
var errNotOurs = errors.New("another state directory's agent put them there")

// warnings says which bans are in force though this agent does not keep them.
func (l *leftovers) warnings(ctx context.Context) (list []control.Warning) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.kept {
		s, err := x.by.Inspect(ctx, nil)
		text := ""
		switch {
		case err != nil:
			text = fmt.Sprintf("bans of an earlier run may still be in force %s, and cannot be seen: %v", x.by.Where(), err)
		case !s.Present:
			continue
		default:
			count := "bans are"
			switch n, known := s.Bans(); {
			case known && n == 0:
				continue
			case known && n == 1:
				count = "1 ban is"
			case known:
				count = fmt.Sprintf("%d bans are", n)
			}
			text = fmt.Sprintf("%s still in force %s, and not this agent's: %v", count, x.by.Where(), x.why)
		}
		list = append(list, api.BansLeft.Warn(text, x.fix))
	}
	return list
}

// Left implements [api.Firewall].
func (l *leftovers) Left(ctx context.Context, targets []ban.Target) (held []control.LeftBan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.kept {
		for _, t := range targets {
			p, ip := t.Prefix()
			if !ip {
				continue
			}
			if h, err := x.by.Holds(ctx, p); err == nil && h.Banned {
				held = append(held, control.LeftBan{Target: t, Where: x.by.Where(), Fix: x.fix})
			}
		}
	}
	return held
}

// read gives the enforcers that may have bans of this node. A record that cannot
// be read says nothing.
func (l *leftovers) read() (list []enforced) {
	b, err := os.ReadFile(l.file)
	if err != nil || json.Unmarshal(b, &list) != nil {
		return nil
	}
	return list
}

// write records them.
func (l *leftovers) write(list []enforced) error {
	if len(list) == 0 {
		if err := os.Remove(l.file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	next := l.file + ".next"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, l.file)
}
