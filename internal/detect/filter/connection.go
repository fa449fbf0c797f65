package filter

import (
	"slices"
	"time"
)

// Lines of one connection are matched to each other by the text that <F-MLFID>
// captures, for so long and so many at a time. fail2ban keeps 100; more lets
// an attack with many connections at once hide nothing.
const (
	connectionTTL  = 5 * time.Minute
	maxConnections = 1024
)

// A connection holds the fields of the lines with one id so far.
type connection struct {
	fields      Fields
	users       []string
	lines       []string // of offences, not yet reported for
	nofailLines []string
	pending     bool // an offence waits for the offender's address
	until       time.Time

	id           string
	older, newer *connection
}

type connections struct {
	byID map[string]*connection
	// oldest and newest chain them by when they began.
	oldest, newest *connection

	free  []*connection
	ended *connection // the one that the last match still refers to
	keep  bool        // matches may be kept, so that nothing is used again
}

// maxFree bounds the connections that are kept to be used again.
const maxFree = 64

// drop lets go of a connection that nothing refers to.
func (c *connections) drop(e *connection) {
	if e != nil && !c.keep && len(c.free) < maxFree {
		c.free = append(c.free, e)
	}
}

// begin gives a connection with nothing but fields.
func (c *connections) begin(fields Fields, until time.Time) *connection {
	var e *connection
	if last := len(c.free) - 1; last >= 0 {
		e, c.free = c.free[last], c.free[:last]
	} else {
		e = new(connection)
	}
	*e = connection{
		fields: append(e.fields[:0], fields...), users: e.users[:0], lines: e.lines[:0], nofailLines: e.nofailLines[:0], until: until,
	}
	return e
}

func (c *connections) get(id string, now time.Time) *connection {
	e := c.byID[id]
	if e != nil && now.After(e.until) {
		c.remove(e)
		c.drop(e)
		return nil
	}
	return e
}

func (c *connections) put(id string, e *connection) {
	if c.byID == nil {
		c.byID = map[string]*connection{}
	}
	for len(c.byID) >= maxConnections {
		first := c.oldest
		c.remove(first)
		c.drop(first)
	}
	c.byID[id] = e
	e.id, e.older, e.newer = id, c.newest, nil
	if c.newest = e; e.older == nil {
		c.oldest = e
	} else {
		e.older.newer = e
	}
}

// remove forgets a connection that was put.
func (c *connections) remove(e *connection) {
	delete(c.byID, e.id)
	if e.older == nil {
		c.oldest = e.newer
	} else {
		e.older.newer = e.newer
	}
	if e.newer == nil {
		c.newest = e.older
	} else {
		e.newer.older = e.older
	}
}

// merge joins a match with its connection's earlier lines. The rules are
// fail2ban's: a line in <F-NOFAIL> is remembered and no offence; <F-MLFFORGET>
// ends the connection; <F-MLFGAINED> is a success, which clears offences that
// wait for an address; a second user on one connection cancels both. Beyond
// those rules, a line that names another address is of another connection: a
// process's number is used again. A line that it
// gives is valid until the next call, with keep for longer. It takes from
// fields.
func (c *connections) merge(id string, fields Fields, matched []tuple, now time.Time, keep bool) *connection {
	c.keep = keep
	c.drop(c.ended)
	c.ended = nil
	gained := fields.value("mlfgained") != ""
	if gained && fields.value("nofail") == "" {
		fields.set(Field{Name: "nofail", Value: fields.value("mlfgained")})
	}
	nofail := fields.value("nofail") != ""
	forget := fields.value("mlfforget") != ""
	fields.remove("mlfforget")
	user := fields.value("user")

	e := c.get(id, now)
	if e != nil && e.fields.differ(fields) {
		c.remove(e)
		c.drop(e)
		e = nil
	}
	switch {
	case e != nil:
		e.addUser(user)
		reported := e.fields.value("nofail") == "" && e.fields.value("mlfgained") == ""
		e.fields.remove("nofail")
		e.fields.remove("mlfgained")
		e.fields.remove("repeated") // of that line alone
		if gained {
			e.pending = false
		}
		if reported && !e.pending {
			e.lines = e.lines[:0]
			if keep {
				e.lines = nil
			}
		}
		for _, f := range fields {
			e.fields.set(f)
		}
		if forget {
			c.remove(e)
		}
	default:
		e = c.begin(fields, now.Add(connectionTTL))
		if !forget {
			e.addUser(user)
			c.put(id, e)
		}
	}
	if e.pending || len(e.users) > 1 {
		e.fields.remove("nofail")
		e.fields.remove("mlfgained")
		nofail, gained = false, false
	}
	e.pending = false
	switch {
	case !nofail:
		lines, spare := e.nofailLines, e.lines[:0]
		if keep { // the old ones belong to whoever got them
			lines, spare = slices.Clone(lines), nil
		}
		lines = append(lines, e.lines...)
		if !gained {
			lines = appendLines(lines, matched)
		}
		e.lines, e.nofailLines = lines, spare
	case !forget:
		e.nofailLines = appendLines(e.nofailLines, matched)
	}
	if forget {
		c.ended = e
	}
	return e
}

// differ says that two lines name different addresses.
func (f Fields) differ(other Fields) bool {
	mine, theirs := f.value("ip4")+f.value("ip6"), other.value("ip4")+other.value("ip6")
	return mine != "" && theirs != "" && mine != theirs
}

func appendLines(lines []string, matched []tuple) []string {
	for _, l := range matched {
		if len(lines) < maxKept {
			lines = append(lines, l.text)
		}
	}
	return lines
}

func (e *connection) addUser(user string) {
	if user == "" || len(e.users) >= maxKept {
		return
	}
	for _, u := range e.users {
		if u == user {
			return
		}
	}
	e.users = append(e.users, user)
}
