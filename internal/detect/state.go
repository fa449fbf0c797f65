package detect

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"banmesh/internal/ban"
	"banmesh/internal/detect/source"
)

// stateVersion is the form of the state file; another one is refused.
const stateVersion = 3

// entriesPerRecord bounds a record of the state file: about 100 bytes an entry.
const entriesPerRecord = 512

// A record is one line of the state file: a part of a batch of changes, all of
// which hold once the record with the batch's Position has come.
type record struct {
	Version int       `json:"version,omitempty"` // in the first record of a file alone
	Topic   ban.Topic `json:"topic,omitempty"`   // of the fields up to BansGone
	Counts  *counts   `json:"counts,omitempty"`
	// Tracked and Bans replace the records of their targets, Gone and BansGone
	// end it.
	Tracked  []entryState            `json:"tracked,omitempty"`
	Gone     []ban.Target            `json:"gone,omitempty"`
	Bans     map[ban.Target]banCount `json:"bans,omitempty"`
	BansGone []ban.Target            `json:"bans_gone,omitempty"`

	// Position ends a batch, and Pending is then all that is pending.
	Position *source.Position `json:"position,omitempty"`
	Pending  []Decision       `json:"pending,omitempty"`
}

type counts struct {
	Found   uint64 `json:"found"`
	Banned  uint64 `json:"banned"`
	Ignored uint64 `json:"ignored"`
}

type entryState struct {
	Target ban.Target `json:"t"`
	Seen   uint32     `json:"n"`
	Events []event    `json:"e"`
	// Of the last episode of weak offences: when it began, its count.
	Episode int64   `json:"es,omitempty"`
	Count   float64 `json:"ec,omitempty"`
	Named   bool    `json:"nm,omitempty"`
}

// restore puts a batch of saved records into the jails that still exist, and
// gives the position that they lead to.
func (d *Detector) restore(batch []record) source.Position {
	last := batch[len(batch)-1]
	for _, r := range batch {
		for _, j := range d.jails {
			if j.topic == r.Topic {
				j.restore(r)
			}
		}
	}
	clear(d.pending)
	for _, v := range last.Pending {
		d.pending[pendingKey{v.Topic, v.Target}] = v
	}
	return *last.Position
}

func (j *jail) restore(r record) {
	if r.Counts != nil {
		j.counts.found, j.counts.banned, j.counts.ignored = r.Counts.Found, r.Counts.Banned, r.Counts.Ignored
	}
	for _, t := range r.Gone {
		j.window.remove(t)
	}
	for _, e := range r.Tracked {
		if !e.Target.IsZero() {
			j.window.put(e)
		}
	}
	for _, t := range r.BansGone {
		delete(j.bans, t)
	}
	for t, c := range r.Bans {
		j.bans[t] = c
	}
}

// Save makes positions and counters durable, as they belong together: the
// changes since the last time are appended to the state file, and now and then
// it is written anew. The file leads to one of the saved states at every
// moment, also when the power fails.
func (d *Detector) Save() error {
	if d.o.StatePath == "" {
		return nil
	}
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	whole := d.file.wantsWhole()
	var batch []record
	d.checkpoint(d.readers, source.Position{}, whole, &batch)
	var err error
	if d.o.Flush != nil {
		err = d.o.Flush()
	}
	if err == nil {
		err = d.file.write(batch, whole)
	} else {
		d.file.size = 0 // the batch is lost: the next one has to be whole
	}
	d.saves.note(context.Background(), d.o.Log, d.o.Now(), d.o.StatePath, err)
	return err
}

// checkpoint takes everything while no line is handled: each reader is held
// while the next one is asked.
func (d *Detector) checkpoint(rest []*reader, at source.Position, whole bool, batch *[]record) {
	if len(rest) == 0 {
		*batch = d.collect(at, whole)
		return
	}
	rest[0].source.Checkpoint(func(p source.Position) {
		at.Time = p.Time
		at.Files = append(at.Files, p.Files...)
		at.Docker = append(at.Docker, p.Docker...)
		at.Journal = append(at.Journal, p.Journal...)
		d.checkpoint(rest[1:], at, whole, batch)
	})
}

// collect gives the batch that leads from the last saved state to this one, or
// with whole from nothing, and takes the changes as saved.
func (d *Detector) collect(at source.Position, whole bool) (batch []record) {
	for _, j := range d.jails {
		j.mu.Lock()
		batch = j.collect(batch, whole)
		j.mu.Unlock()
	}
	end := record{Position: &at}
	d.pendingMu.Lock()
	for _, v := range d.pending {
		end.Pending = append(end.Pending, v)
	}
	d.pendingMu.Unlock()
	return append(batch, end)
}

func (j *jail) collect(batch []record, whole bool) []record {
	c := counts{j.counts.found, j.counts.banned, j.counts.ignored}
	if whole || c != j.saved {
		batch = append(batch, record{Topic: j.topic, Counts: &c})
		j.saved = c
	}
	tracked, gone := j.window.changes(whole)
	for part := range slices.Chunk(gone, entriesPerRecord) {
		batch = append(batch, record{Topic: j.topic, Gone: part})
	}
	for part := range slices.Chunk(tracked, entriesPerRecord) {
		batch = append(batch, record{Topic: j.topic, Tracked: part})
	}
	bans, bansGone := j.banChanges(whole)
	for part := range slices.Chunk(bansGone, entriesPerRecord) {
		batch = append(batch, record{Topic: j.topic, BansGone: part})
	}
	for part := range slices.Chunk(bans, entriesPerRecord) {
		r := record{Topic: j.topic, Bans: make(map[ban.Target]banCount, len(part))}
		for _, t := range part {
			r.Bans[t] = j.bans[t]
		}
		batch = append(batch, r)
	}
	return batch
}

// changes gives the entries that changed since it was last asked, oldest
// first, and the targets that are no longer tracked; with whole all entries.
func (w *window) changes(whole bool) (tracked []entryState, gone []ban.Target) {
	if whole {
		tracked = make([]entryState, 0, len(w.entries))
		for e := w.oldest; e != nil; e = e.newer {
			tracked = append(tracked, e.state())
		}
	} else {
		for t := range w.changed {
			if e := w.entries[t]; e != nil {
				tracked = append(tracked, e.state())
			} else {
				gone = append(gone, t)
			}
		}
		slices.SortFunc(tracked, func(a, b entryState) int { return cmp.Compare(a.last(), b.last()) })
	}
	w.changed = map[ban.Target]struct{}{} // a cleared map keeps the memory of a flood
	return tracked, gone
}

func (e *entry) state() entryState {
	x := e.known()
	return entryState{Target: e.target, Seen: e.seen, Events: slices.Clone(e.events), Episode: x.episode, Count: x.episodeCount, Named: x.named}
}

// last is when the newest event was.
func (s *entryState) last() int64 { return s.Events[len(s.Events)-1].At }

// put gives a target the entry that was saved.
func (w *window) put(s entryState) {
	w.remove(s.Target)
	if len(s.Events) == 0 || len(s.Events) > maxEvents {
		return
	}
	e := w.count(s.Target, s.Events[len(s.Events)-1])
	e.events, e.seen = s.Events, s.Seen
	e.sum()
	w.charge(e)
	if s.Episode != 0 || s.Named {
		e.more = &details{s.Episode, s.Count, s.Named}
	}
}

// banChanges gives the targets whose count of bans changed since it was last
// asked, with whole all that have one, and those that have none any more.
func (j *jail) banChanges(whole bool) (bans, gone []ban.Target) {
	if whole {
		for t := range j.bans {
			bans = append(bans, t)
		}
	} else {
		for t := range j.bansChanged {
			if _, has := j.bans[t]; has {
				bans = append(bans, t)
			} else {
				gone = append(gone, t)
			}
		}
	}
	j.bansChanged = map[ban.Target]struct{}{}
	return bans, gone
}

// errNoState says that a state file has no whole batch of changes.
var errNoState = errors.New("it holds no whole state")
