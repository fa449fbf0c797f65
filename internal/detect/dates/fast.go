package dates

import "time"

// A Usual reads dates in the two forms that most lines have, and remembers the
// last one: many lines are of one second. It belongs to one goroutine.
type Usual struct {
	zone *time.Location
	last string // of the form without a year
	at   time.Time
	asOf int64 // the clock that filled in the year
}

// Alike says that two read every line alike.
func (u *Usual) Alike(other *Usual) bool {
	return u == other || u != nil && other != nil && u.zone == other.zone
}

// Find reads the date at the start of a line, and gives its text too. ok is
// false for anything that is not exactly of the two forms, which says nothing
// of the line.
func (u *Usual) Find(line []byte, now time.Time) (f Found, date string, ok bool) {
	if n := len(u.last); n > 0 && len(line) > n && string(line[:n]) == u.last && line[n] == ' ' && now.Unix() == u.asOf && !yearFollows(line) {
		return Found{To: n, Time: u.at, Matched: true, form: 1}, u.last, true
	}
	to, at, ok := fast(line, now, u.zone)
	if !ok {
		return Found{}, "", false
	}
	f, date = Found{To: to, Time: at, Matched: true}, string(line[:to])
	if !isDigit(line[0]) {
		f.form = 1
		u.last, u.at, u.asOf = date, at, now.Unix()
	}
	return f, date, true
}

// yearFollows says that the date is of another form, "Jan 23 21:59:59 2005".
func yearFollows(line []byte) bool {
	return len(line) >= 20 && two(line[16:]) == 20 && isDigit(line[18]) && isDigit(line[19])
}

// fast reads the two forms that most lines have, both at the start of a line:
// "Nov 21 09:14:02" and "2026-11-21T09:14:02[.frac][zone]". ok is false for
// anything that is not exactly of that form, which says nothing of the line.
func fast(line []byte, now time.Time, zone *time.Location) (to int, at time.Time, ok bool) {
	if len(line) < 15 {
		return 0, time.Time{}, false
	}
	if line[0] >= '0' && line[0] <= '9' {
		return fastISO(line, now, zone)
	}
	return fastSyslog(line, now, zone)
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// isWordByte is the ASCII part of \w; bytes of UTF-8 count as such.
func isWordByte(c byte) bool {
	return isDigit(c) || (c|0x20) >= 'a' && (c|0x20) <= 'z' || c == '_' || c >= 0x80
}

func two(b []byte) int {
	if !isDigit(b[0]) || !isDigit(b[1]) {
		return -1
	}
	return int(b[0]-'0')*10 + int(b[1]-'0')
}

// clock reads "HH:MM:SS", -1 where it is none.
func clock(b []byte) (h, m, s int) {
	if b[2] != ':' || b[5] != ':' {
		return -1, -1, -1
	}
	return two(b), two(b[3:]), two(b[6:])
}

func validClock(h, m, s int) bool {
	return h >= 0 && h < 24 && m >= 0 && m < 60 && s >= 0 && s < 60
}

func monthOf(b []byte) time.Month {
	if len(b) < 3 {
		return 0
	}
	switch uint32(b[0]|0x20)<<16 | uint32(b[1]|0x20)<<8 | uint32(b[2]|0x20) {
	case 'j'<<16 | 'a'<<8 | 'n':
		return 1
	case 'f'<<16 | 'e'<<8 | 'b':
		return 2
	case 'm'<<16 | 'a'<<8 | 'r':
		return 3
	case 'a'<<16 | 'p'<<8 | 'r':
		return 4
	case 'm'<<16 | 'a'<<8 | 'y':
		return 5
	case 'j'<<16 | 'u'<<8 | 'n':
		return 6
	case 'j'<<16 | 'u'<<8 | 'l':
		return 7
	case 'a'<<16 | 'u'<<8 | 'g':
		return 8
	case 's'<<16 | 'e'<<8 | 'p':
		return 9
	case 'o'<<16 | 'c'<<8 | 't':
		return 10
	case 'n'<<16 | 'o'<<8 | 'v':
		return 11
	case 'd'<<16 | 'e'<<8 | 'c':
		return 12
	}
	return 0
}

// fastSyslog reads "Mmm dd HH:MM:SS" followed by a space.
func fastSyslog(line []byte, now time.Time, zone *time.Location) (int, time.Time, bool) {
	if len(line) < 16 || line[15] != ' ' || line[3] != ' ' || line[6] != ' ' {
		return 0, time.Time{}, false
	}
	month := monthOf(line)
	day := int(line[5] - '0')
	if !isDigit(line[5]) || month == 0 {
		return 0, time.Time{}, false
	}
	if line[4] != ' ' {
		day = two(line[4:])
	}
	h, m, s := clock(line[7:])
	if day < 1 || day > 31 || !validClock(h, m, s) {
		return 0, time.Time{}, false
	}
	if yearFollows(line) {
		return 0, time.Time{}, false
	}
	t := now.In(zone)
	at := time.Date(t.Year(), month, day, h, m, s, 0, zone)
	if at.Day() != day {
		return 0, time.Time{}, false
	}
	if at.After(t.Add(24 * time.Hour)) {
		at = time.Date(t.Year()-1, month, day, h, m, s, 0, zone)
	}
	return 15, at, true
}

// fastISO reads "YYYY-MM-DD" and a T or space, the time, up to nine digits of
// a fraction, and a zone.
func fastISO(line []byte, now time.Time, zone *time.Location) (int, time.Time, bool) {
	if len(line) < 20 || line[4] != '-' || line[7] != '-' || line[10] != 'T' && line[10] != ' ' {
		return 0, time.Time{}, false
	}
	y1, y2, month, day := two(line), two(line[2:]), two(line[5:]), two(line[8:])
	h, m, s := clock(line[11:])
	if y1 != 20 || y2 < 0 || y2/10 > (now.Year()+3)/10%10 || month < 1 || month > 12 || day < 1 || day > 31 || !validClock(h, m, s) {
		return 0, time.Time{}, false
	}
	i := 19
	if line[i] == '.' || line[i] == ',' {
		from := i + 1
		for i++; i < len(line) && isDigit(line[i]); i++ {
		}
		if i == from || i > from+6 || i >= len(line) {
			return 0, time.Time{}, false
		}
	}
	switch c := line[i]; {
	case c == 'Z' && (i+1 == len(line) || line[i+1] == ' '):
		zone = time.UTC
		i++
	case (c == '+' || c == '-') && i+6 < len(line) && line[i+3] == ':' && line[i+6] == ' ':
		oh, om := two(line[i+1:]), two(line[i+4:])
		if oh < 0 || oh > 19 || om < 0 {
			return 0, time.Time{}, false
		}
		offset := oh*3600 + om*60
		if c == '-' {
			offset = -offset
		}
		at := time.Date(y1*100+y2, time.Month(month), day, h, m, s, 0, time.UTC)
		if at.Day() != day {
			return 0, time.Time{}, false
		}
		return i + 6, at.Add(-time.Duration(offset) * time.Second), true
	case c == ' ' && i+1 < len(line) && line[i+1] != 'Z' && line[i+1] != 'U' && line[i+1] != 'G' && line[i+1] != '+' && line[i+1] != '-' && line[i+1] != ' ' && line[i+1] != '\t':
	default:
		return 0, time.Time{}, false
	}
	at := time.Date(y1*100+y2, time.Month(month), day, h, m, s, 0, zone)
	if at.Day() != day {
		return 0, time.Time{}, false
	}
	return i, at, true
}
