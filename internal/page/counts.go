package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/wholefile"
)

const (
	// countEvery is how often counters are read and written to disk.
	countEvery = 5 * time.Minute
	// keepHours is how many hours are kept: a week, and the hour that has begun.
	keepHours = 7*24 + 1
	// maxCounted bounds the names of one hour's series; those beyond it are counted as
	// [others].
	maxCounted = 64
	others     = "others"
	// maxCounts bounds the file: four series of that many names in each hour.
	maxCounts = 16 << 20
)

// bootFile has another content after each boot of the machine, from which on the
// kernel's counters begin at zero.
const bootFile = "/proc/sys/kernel/random/boot_id"

// counts are the bans that began and the packets that bans met, by the hour. Bans are
// counted out of the history behind a cursor, packets by how much the kernel's
// counters grew. Counts, cursor and counters are one file that is replaced as a whole:
// after a kill, bans and packets since the last write are counted again, and the chart
// lacks nothing and has nothing twice. Packets that the kernel met while no agent
// ran count in the hour in which the next one began.
type counts struct {
	file string // "": in memory alone
	boot string
	now  func() time.Time
	log  *slog.Logger

	reading sync.Mutex // held while the node is asked

	mu sync.Mutex
	s  countState
}

// countState is the form on disk.
type countState struct {
	// Boot is the boot of the machine in which Topics and Operators were read.
	Boot   string `json:"boot"`
	Cursor uint64 `json:"cursor"` // of the last event of the history that is counted
	// Since is when packets began to be counted, zero where they were not yet.
	Since     time.Time         `json:"since,omitzero"`
	Topics    map[string]uint64 `json:"topics"`    // the packets of each topic, as last read
	Operators map[string]uint64 `json:"operators"` // and of each operator, where a topic is observed
	Hours     []hour            `json:"hours"`     // oldest first
}

// An hour has the counts of one hour, by name.
type hour struct {
	At        time.Time      `json:"at"`
	Bans      map[string]int `json:"bans,omitempty"`      // begun, by topic
	Origins   map[string]int `json:"origins,omitempty"`   // begun, by operator
	Packets   map[string]int `json:"packets,omitempty"`   // met, by topic
	Operators map[string]int `json:"operators,omitempty"` // met, by operator
}

// openCounts reads the file. One that is damaged is begun anew, out of the history.
func openCounts(file string, now func() time.Time, log *slog.Logger) *counts {
	c := &counts{file: file, now: now, log: log}
	if b, err := os.ReadFile(bootFile); err == nil {
		c.boot = string(b)
	}
	if err := c.load(); err != nil {
		log.Error("counts of the charts begin anew", slog.Any("error", err))
		c.s = countState{}
	}
	if c.s.Boot != c.boot {
		c.s.Boot, c.s.Topics, c.s.Operators = c.boot, nil, nil
	}
	return c
}

func (c *counts) load() error {
	if c.file == "" {
		return nil
	}
	info, err := os.Stat(c.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() > maxCounts {
		return fmt.Errorf("%s has %d bytes, more than ever are written", c.file, info.Size())
	}
	b, err := os.ReadFile(c.file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &c.s); err != nil {
		return fmt.Errorf("reading %s: %w", c.file, err)
	}
	return nil
}

// run counts until ctx ends.
func (c *counts) run(ctx context.Context, node *control.Client) {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	failing := false
	for {
		var status control.Status
		if node.Get(ctx, "/v1/status", nil, &status) == nil { // else there is a gap, as there should be
			c.read(ctx, node, status)
			err := c.save()
			if err != nil && !failing {
				c.log.ErrorContext(ctx, "counts of the charts are not kept", slog.Any("error", err))
			}
			failing = err != nil
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// read counts new events. While another reading is under way it does nothing.
func (c *counts) read(ctx context.Context, node *control.Client, status control.Status) {
	if !c.reading.TryLock() {
		return
	}
	defer c.reading.Unlock()
	c.packets(status)
	for {
		c.mu.Lock()
		after := c.s.Cursor
		c.mu.Unlock()
		q := url.Values{"kind": {"ban"}, "limit": {strconv.Itoa(eventsAtOnce)}, "since": {c.oldest().Format(time.RFC3339)}}
		if after > 0 {
			q.Set("after", strconv.FormatUint(after, 10))
		}
		var page control.EventPage
		if err := node.Get(ctx, "/v1/events", q, &page); err != nil {
			return // the next reading goes on behind the same cursor
		}
		c.bans(&page)
		if !page.More {
			return
		}
	}
}

// eventsAtOnce is how many events are read together.
const eventsAtOnce = 5_000

// oldest gives the first hour that is kept.
func (c *counts) oldest() time.Time {
	return c.now().UTC().Truncate(time.Hour).Add(-(keepHours - 1) * time.Hour)
}

// bans counts a page of the history and moves the cursor behind it.
func (c *counts) bans(page *control.EventPage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prune()
	for i := range page.Events {
		e := &page.Events[i]
		h := c.hour(e.At)
		if h == nil {
			continue
		}
		count(&h.Bans, string(e.Topic), 1)
		if len(e.Peers) == 0 {
			count(&h.Origins, "this node", 1)
		}
		for _, p := range e.Peers {
			count(&h.Origins, p, 1)
		}
	}
	c.s.Cursor = max(c.s.Cursor, page.Next)
}

// packets counts by how much the counters of a status grew.
func (c *counts) packets(status control.Status) {
	topics, operators := map[string]uint64{}, map[string]uint64{}
	for _, t := range status.Topics {
		if t.Packets > 0 {
			topics[string(t.Topic)] = t.Packets
		}
		for _, o := range t.Operators {
			operators[o.Name] += o.Packets
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.s.Since.IsZero() { // the counters are of a time of which nothing is known
		c.s.Since, c.s.Topics, c.s.Operators = now.UTC(), topics, operators
		return
	}
	c.prune()
	h := c.hour(now)
	grown(&h.Packets, c.s.Topics, topics)
	grown(&h.Operators, c.s.Operators, operators)
	c.s.Topics, c.s.Operators = topics, operators
}

// grown counts by how much counters grew. One that went back was begun anew.
func grown(into *map[string]int, before, now map[string]uint64) {
	for name, packets := range now {
		more := packets
		if was := before[name]; packets >= was {
			more = packets - was
		}
		count(into, name, int(min(more, 1<<26)))
	}
}

// count adds to a series, whose names are bounded.
func count(into *map[string]int, name string, n int) {
	if n == 0 {
		return
	}
	if *into == nil {
		*into = map[string]int{}
	}
	if _, known := (*into)[name]; !known && len(*into) >= maxCounted {
		name = others
	}
	(*into)[name] += n
}

// hour gives the counts of the hour of a time, nil where it is too old to be kept; one
// of the future is a clock that was set back, and counts now. c.mu is held.
func (c *counts) hour(t time.Time) *hour {
	first, last := c.oldest(), c.now().UTC().Truncate(time.Hour)
	at := t.UTC().Truncate(time.Hour)
	if at.Before(first) {
		return nil
	}
	if at.After(last) {
		at = last
	}
	i, known := slices.BinarySearchFunc(c.s.Hours, at, func(h hour, at time.Time) int { return h.At.Compare(at) })
	if !known {
		c.s.Hours = slices.Insert(c.s.Hours, i, hour{At: at})
	}
	return &c.s.Hours[i]
}

// prune drops the hours that are too old, and those of a clock that was set back. c.mu
// is held.
func (c *counts) prune() {
	first, now := c.oldest(), c.now()
	c.s.Hours = slices.DeleteFunc(c.s.Hours, func(h hour) bool { return h.At.Before(first) || h.At.After(now) })
}

// save writes the file.
func (c *counts) save() error {
	if c.file == "" {
		return nil
	}
	c.mu.Lock()
	b, err := json.Marshal(c.s)
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encoding the counts: %w", err)
	}
	return wholefile.Write(c.file, b, 0o600)
}
