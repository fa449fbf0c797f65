// Package f2bbans reads the bans in force out of fail2ban's database, without
// fail2ban and without a library: a SQLite file, of which it understands as
// much as two plain tables need.
package f2bbans

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// A Ban is one row of fail2ban's database.
type Ban struct {
	Jail, IP string
	At       time.Time
	// For is how long it lasts; negative means for good.
	For time.Duration
}

// Longest is how long a ban that has no end is taken over for: a node says
// nothing for good.
const Longest = 90 * 24 * time.Hour

// Left says how much of a ban is left, and whether anything is.
func (b Ban) Left(now time.Time) (time.Duration, bool) {
	if b.For < 0 {
		return Longest, true
	}
	left := min(b.At.Add(b.For).Sub(now), Longest)
	return left, left >= time.Second
}

// Errors of [Read].
var (
	// ErrDatabase says that the file is no database that can be read here.
	ErrDatabase = errors.New("not a database of fail2ban's that can be read")
	// ErrBusy says that the database changed while it was read.
	ErrBusy = errors.New("the database is being written to")
)

// maxDatabase bounds the file: fail2ban keeps a day of bans in it, and a
// hundred thousand of them have 100 MB.
const maxDatabase = 512 << 20

// Read gives the bans that a database holds, also those that ended. It changes
// nothing and takes no lock; a database that is written to meanwhile is
// [ErrBusy].
func Read(path string) ([]Ban, error) {
	if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
		return nil, fmt.Errorf("%s: %w: it has a write-ahead log beside it", path, ErrDatabase)
	}
	for range 3 {
		before, err := load(path)
		if err != nil {
			return nil, err
		}
		bans, err := Parse(before)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		after, err := changes(path)
		if err != nil {
			return nil, err
		}
		if after == counter(before) {
			return bans, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", path, ErrBusy)
}

func load(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening fail2ban's database: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDatabase+1))
	if err != nil {
		return nil, fmt.Errorf("reading fail2ban's database: %w", err)
	}
	if len(b) > maxDatabase {
		return nil, fmt.Errorf("%s: %w: it has more than %d bytes", path, ErrDatabase, maxDatabase)
	}
	return b, nil
}

// changes reads the counter that SQLite raises at every change.
func changes(path string) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("opening fail2ban's database: %w", err)
	}
	defer f.Close()
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(f, head); err != nil {
		return 0, fmt.Errorf("reading fail2ban's database: %w", err)
	}
	return counter(head), nil
}

// Parse reads the bytes of a database. Since fail2ban 0.11 the table bips holds
// each address's latest ban in a jail, as its server restores it;
// before, the table bans did.
func Parse(b []byte) ([]Ban, error) {
	d, err := open(b)
	if err != nil {
		return nil, err
	}
	tables, err := d.tables()
	if err != nil {
		return nil, err
	}
	t, ok := tables["bips"]
	if !ok {
		if t, ok = tables["bans"]; !ok {
			return nil, fmt.Errorf("%w: it has no table of bans", ErrDatabase)
		}
	}
	jail, ip, at, lasts := t.column("jail"), t.column("ip"), t.column("timeofban"), t.column("bantime")
	if jail < 0 || ip < 0 || at < 0 || lasts < 0 {
		return nil, fmt.Errorf("%w: its table of bans is of a version that is not known", ErrDatabase)
	}
	var bans []Ban
	err = d.rows(t.root, func(row []value) {
		get := func(i int) value {
			if i < len(row) {
				return row[i]
			}
			return value{}
		}
		n := get(lasts).number
		if n > int64(maxLasts/time.Second) {
			n = -1
		}
		bans = append(bans, Ban{Jail: get(jail).text, IP: get(ip).text, At: time.Unix(get(at).number, 0), For: time.Duration(n) * time.Second})
	})
	return bans, err
}

// maxLasts is the longest ban that has an end.
const maxLasts = 100 * 365 * 24 * time.Hour
