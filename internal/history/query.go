package history

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"sort"
	"sync"
)

// Find answers a query.
func (s *Store) Find(q Query) (Page, error) {
	if q.Limit <= 0 {
		q.Limit = DefaultLimit
	}
	q.Limit = min(q.Limit, MaxLimit)
	s.mu.Lock()
	// Copies: entries are only ever appended, so that theirs stay as they are.
	segments := make([]segment, len(s.segments))
	for i, g := range s.segments {
		segments[i] = *g
	}
	page := Page{Next: s.next - 1}
	removed := s.removed
	s.mu.Unlock()
	switch {
	case len(segments) == 0:
		removed = page.Next
	case removed == 0:
		removed = segments[0].first - 1
	}
	page.Missed = q.After != 0 && q.After < removed
	f := q.filter()
	var err error
	if q.After != 0 || q.Follow {
		page.Next = max(page.Next, q.After)
		err = forward(&f, segments, &page)
	} else {
		err = backward(&f, segments, &page)
	}
	return page, err
}

// Wait answers a query that follows, when there is an event that it selects or when
// ctx ends; then the page is empty.
func (s *Store) Wait(ctx context.Context, q Query) (Page, error) {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		page, err := s.Find(q)
		if err != nil || len(page.Events) > 0 || page.Missed {
			return page, err
		}
		q.After = max(q.After, page.Next)
		select {
		case <-ctx.Done():
			return page, nil
		case <-changed:
		}
	}
}

// forward gives the oldest events behind a cursor first.
func forward(f *filter, segments []segment, page *Page) error {
	for i := range segments {
		g := &segments[i]
		if g.last == 0 || g.last <= f.q.After || f.since > g.to {
			continue
		}
		err := g.each(func(list entries, r *recordReader) {
			// Entries are in the order of their cursors, which are in the records: the
			// first one behind the query's is searched for.
			from := 0
			if f.q.After >= g.first {
				from = sort.Search(list.len(), func(i int) bool {
					e, err := r.at(list.offset(i))
					return err == nil && e.Cursor > f.q.After
				})
			}
			for i := from; i < list.len(); i++ {
				if !f.may(list, i) {
					continue
				}
				e, err := r.at(list.offset(i))
				if err != nil || e.Cursor <= f.q.After || !f.q.matches(&e) {
					continue
				}
				if len(page.Events) == f.q.Limit {
					page.More = true
					page.Next = page.Events[len(page.Events)-1].Cursor
					return
				}
				page.Events = append(page.Events, e)
			}
		})
		if err != nil || page.More {
			return err
		}
	}
	return nil
}

// backward gives the newest events first.
func backward(f *filter, segments []segment, page *Page) error {
	for i := range slices.Backward(segments) {
		g := &segments[i]
		if g.last == 0 || f.since > g.to {
			continue
		}
		err := g.each(func(list entries, r *recordReader) {
			for i := list.len() - 1; i >= 0; i-- {
				if !f.may(list, i) {
					continue
				}
				e, err := r.at(list.offset(i))
				if err != nil || !f.q.matches(&e) {
					continue
				}
				if len(page.Events) == f.q.Limit {
					page.More = true
					return
				}
				page.Events = append(page.Events, e)
			}
		})
		if err != nil || page.More {
			return err
		}
	}
	return nil
}

// buffers hold index files while they are searched: of a million events they are
// 24 MB.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// each hands over the segment's entries and a reader of its records. A segment
// that was removed meanwhile has none.
func (g *segment) each(do func(entries, *recordReader)) error {
	b := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(b)
	list, err := g.read(b)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	file, err := os.Open(g.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	do(list, &recordReader{f: file})
	return nil
}
