package ledger

import (
	"encoding/binary"
	"fmt"

	"banmesh/internal/store"
)

// A journal is a log of small records in the pages of one bucket, so that a
// ban costs one small page and not one key. Pages are cleaned oldest first:
// records of the oldest page that are still true are written again at the end,
// and the page is deleted, in the transaction that appends. A later record of the same
// thing wins, so cleaning and replay cannot disagree.
type journal struct {
	bucket  string
	weigh   func([]byte) int // how many things a record is about; nil: one
	sealed  []page           // full pages, oldest first
	last    page             // the page that is appended to; number 0: none yet
	records int              // in all pages, each as often as it weighs
	tail    []byte           // the last page's bytes
}

type page struct {
	number  uint64
	records int
}

const (
	// pageBytes keeps the write of a single ban small; bbolt's own pages are
	// 4 KiB.
	pageBytes = 3 << 10
	// slack is how many records of the past a journal keeps before it cleans.
	slack = 2048
	// pageVersion is the first byte of a page.
	pageVersion = 1
	// maxEntry bounds one record.
	maxEntry = 1 << 10
)

func pageKey(n uint64) string { return fmt.Sprintf("%016x", n) }

// replay calls f with every record, oldest first. The bytes are valid during
// the call only.
func (j *journal) replay(tx store.Tx, f func([]byte) error) error {
	*j = journal{bucket: j.bucket, weigh: j.weigh}
	err := tx.Each(j.bucket, "", func(key string, value []byte) error {
		p := page{}
		if _, err := fmt.Sscanf(key, "%016x", &p.number); err != nil || len(key) != 16 {
			return fmt.Errorf("%s: page %q: %w", j.bucket, key, ErrCorrupt)
		}
		if err := eachRecord(value, func(b []byte) error {
			p.records += j.weight(b)
			return f(b)
		}); err != nil {
			return fmt.Errorf("%s: page %s: %w", j.bucket, key, err)
		}
		if j.last.number != 0 {
			j.sealed = append(j.sealed, j.last)
		}
		j.last = p
		j.records += p.records
		j.tail = append(j.tail[:0], value...)
		return nil
	})
	return err
}

func (j *journal) weight(b []byte) int {
	if j.weigh == nil {
		return 1
	}
	return j.weigh(b)
}

// eachRecord splits a page.
func eachRecord(value []byte, f func([]byte) error) error {
	if len(value) > 0 && value[0] > pageVersion {
		return fmt.Errorf("format %d, and this program reads %d: %w", value[0], pageVersion, ErrNewer)
	}
	if len(value) == 0 || value[0] != pageVersion {
		return fmt.Errorf("unknown version: %w", ErrCorrupt)
	}
	for rest := value[1:]; len(rest) > 0; {
		n, k := binary.Uvarint(rest)
		if k <= 0 || n > maxEntry || n > uint64(len(rest)-k) {
			return fmt.Errorf("a record is cut off: %w", ErrCorrupt)
		}
		if err := f(rest[k : k+int(n)]); err != nil {
			return err
		}
		rest = rest[k+int(n):]
	}
	return nil
}

// write appends records in a transaction, and cleans the oldest pages where
// less than half of the journal is still true: two for each page that it
// appends, so that cleaning keeps up with whatever arrives. live is how many
// records would be enough; rewrite gives the part of a record that is still true, or nil.
// The result is the journal as it is if the transaction commits.
func (j journal) write(tx store.Tx, records [][]byte, live int, rewrite func([]byte) []byte) (journal, error) {
	// j is a copy: slices that it shares with the original are only appended to.
	j.tail = append([]byte(nil), j.tail...)
	appended := 0
	for _, b := range records {
		appended += len(b)
	}
	for most := 4 + 2*appended/pageBytes; len(j.sealed) > 0 && j.records > 2*live+slack && most > 0; most-- {
		oldest := j.sealed[0]
		var kept [][]byte
		if err := eachRecord(tx.Get(j.bucket, pageKey(oldest.number)), func(b []byte) error {
			if b = rewrite(b); b != nil {
				kept = append(kept, append([]byte(nil), b...))
			}
			return nil
		}); err != nil {
			return j, err
		}
		// Kept records were true before this call's, so they go first.
		records = append(kept, records...)
		if err := tx.Delete(j.bucket, pageKey(oldest.number)); err != nil {
			return j, err
		}
		j.sealed = j.sealed[1:]
		j.records -= oldest.records
	}
	written := false
	for _, b := range records {
		if len(b) > maxEntry {
			return j, fmt.Errorf("a record of %d bytes is too long", len(b))
		}
		if j.last.number == 0 || len(j.tail)+len(b)+2 > pageBytes {
			if j.last.number != 0 {
				if err := j.flush(tx); err != nil {
					return j, err
				}
				j.sealed = append(j.sealed, j.last)
			}
			j.last = page{number: j.last.number + 1}
			j.tail = append(j.tail[:0], pageVersion)
		}
		j.tail = binary.AppendUvarint(j.tail, uint64(len(b)))
		j.tail = append(j.tail, b...)
		weight := j.weight(b)
		j.last.records += weight
		j.records += weight
		written = true
	}
	if !written {
		return j, nil
	}
	return j, j.flush(tx)
}

// flush stores the tail.
func (j *journal) flush(tx store.Tx) error {
	return tx.Put(j.bucket, pageKey(j.last.number), j.tail)
}
