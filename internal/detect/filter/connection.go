package filter

import "time"

// Lines of one connection are matched to each other by what <F-MLFID>
// captures, for so long and so many at a time. fail2ban keeps 100; more lets
// an attack with many connections at once hide nothing.
const (
	connectionTTL  = 5 * time.Minute
	maxConnections = 1024
)

// A connection is what the lines with one id have told so far.
type connection struct {
	fields      Fields
	users       []string
	lines       []string // of offences, not yet reported for
	nofailLines []string
	pending     bool // an offence waits for the offender's address
	until       time.Time
}

type connections struct {
	byID  map[string]*connection
	order []string // oldest first; may name what is gone
}

func (c *connections) get(id string, now time.Time) *connection {
	e := c.byID[id]
	if e != nil && now.After(e.until) {
		delete(c.byID, id)
		return nil
	}
	return e
}

func (c *connections) put(id string, e *connection) {
	if c.byID == nil {
		c.byID = map[string]*connection{}
	}
	for len(c.byID) >= maxConnections && len(c.order) > 0 {
		delete(c.byID, c.order[0])
		c.order = c.order[1:]
	}
	c.byID[id] = e
	c.order = append(c.order, id)
	if len(c.order) > 2*maxConnections { // most of them are gone
		kept := make([]string, 0, len(c.byID))
		for _, id := range c.order {
			if c.byID[id] != nil {
				kept = append(kept, id)
			}
		}
		c.order = kept
	}
}

// merge joins a match with what its connection told before. The rules are
// fail2ban's: a line in <F-NOFAIL> is remembered and no offence; <F-MLFFORGET>
// ends the connection; <F-MLFGAINED> is a success, which clears offences that
// wait for an address; a second user on one connection cancels both.
func (c *connections) merge(id string, fields Fields, matched []tuple, now time.Time, fresh bool) *connection {
	gained := fields.value("mlfgained") != ""
	if gained && fields.value("nofail") == "" {
		fields.set(Field{Name: "nofail", Value: fields.value("mlfgained")})
	}
	nofail := fields.value("nofail") != ""
	forget := fields.value("mlfforget") != ""
	fields.remove("mlfforget")
	user := fields.value("user")

	e := c.get(id, now)
	switch {
	case e != nil:
		e.addUser(user)
		reported := e.fields.value("nofail") == "" && e.fields.value("mlfgained") == ""
		e.fields.remove("nofail")
		e.fields.remove("mlfgained")
		if gained {
			e.pending = false
		}
		if reported && !e.pending {
			e.lines = nil
		}
		for _, f := range fields {
			e.fields.set(f)
		}
		if forget {
			delete(c.byID, id)
		}
	default:
		e = &connection{fields: fields, until: now.Add(connectionTTL)}
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
		// Lines that were reported belong to whoever got them: never append
		// to the same array.
		lines := append(append([]string(nil), e.nofailLines...), e.lines...)
		e.nofailLines = nil
		if !gained {
			lines = appendLines(lines, matched)
		}
		e.lines = lines
	case !forget:
		e.nofailLines = appendLines(e.nofailLines, matched)
	}
	return e
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
