package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/doctor"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/enforcers"
	"banmesh/internal/settings"
)

// examineEvery is how often the agent examines itself while nothing is found: it reads
// the configuration's files and asks the kernel for its table.
const examineEvery = 10 * time.Minute

// checkup examines the node as `agent doctor` does: for the page, and now and then by
// itself, so that people are told also of faults that no part of the agent warns of.
type checkup struct {
	o       Options
	current func() *settings.Settings
	now     func() time.Time
	client  *control.Client // set before anything is examined

	mu   sync.Mutex
	next time.Time // of the examination
	red  []control.Warning
}

// examine gathers the facts.
func (c *checkup) examine(ctx context.Context) doctor.Facts {
	return doctor.Examine(ctx, doctor.Options{Config: c.o.ConfigDir, State: c.o.StateDir, Client: c.client, Editions: c.o.Editions, Enforcer: func() (firewall.Enforcer, firewall.Setup) {
		sw := SwitchFile(c.o.StateDir)
		setup := settings.Setup(c.current().Config().Firewall, sw)
		if e, err := c.current().Enforcer(sw); err == nil {
			return e, setup
		}
		return enforcers.All(setup)[0], setup
	}})
}

// doctorCode begins the codes of findings of the doctor alone; the check's name follows.
const doctorCode = "doctor-"

// warnings gives the faults that the doctor finds and no warning of the status tells. Where
// it is other than the last time the next call examines again, so that a fault of a
// moment does not stand until the next examination.
func (c *checkup) warnings(ctx context.Context) []control.Warning {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Before(c.next) && c.next.Sub(now) <= examineEvery {
		return c.red
	}
	var red []control.Warning
	for _, f := range doctor.Diagnose(c.examine(ctx), netip.Addr{}) {
		if f.Level == doctor.LevelWrong && !f.Warned {
			title, _ := doctor.Words(f.Check)
			red = append(red, control.Warning{Code: doctorCode + f.Check, Title: title, Severity: control.SeverityHigh, Text: f.Text, Fix: f.Fix})
		}
	}
	if ctx.Err() != nil {
		return c.red
	}
	if slices.EqualFunc(c.red, red, func(a, b control.Warning) bool { return a.Code == b.Code }) {
		c.next = now.Add(examineEvery)
	}
	c.red = red
	return red
}

// mendOfCheck gives the general command for a code of the doctor's.
func mendOfCheck(code string) (mend string, ok bool) {
	check, ok := strings.CutPrefix(code, doctorCode)
	if ok {
		_, mend = doctor.Words(check)
	}
	return mend, ok
}
