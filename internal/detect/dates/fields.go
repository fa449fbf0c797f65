package dates

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The fields of a date pattern, as strptime(3) names them; those that begin
// with Ex take exact widths only. %Z and %z differ from %ExZ and %Exz in
// which abbreviations they take.
const (
	zoneAbbreviation = `[A-Z](?:[A-Z]{2,4})?`
	weekdays         = `monday|tuesday|wednesday|thursday|friday|saturday|sunday`
	weekdaysShort    = `mon|tue|wed|thu|fri|sat|sun`
	months           = `september|february|november|december|january|october|august|march|april|june|july|may`
	monthsShort      = `jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec`
)

var fieldPatterns = map[string]string{
	"%": `%`,
	"a": `(?P<a>` + weekdaysShort + `)`, "A": `(?P<A>` + weekdays + `)`,
	"b": `(?P<b>` + monthsShort + `)`, "B": `(?P<B>` + months + `)`,
	"d": `(?P<d>[1-2]\d|[0 ]?[1-9]|3[0-1])`, "Exd": `(?P<d>[1-2]\d|0[1-9]|3[0-1])`,
	"m": `(?P<m>0?[1-9]|1[0-2])`, "Exm": `(?P<m>0[1-9]|1[0-2])`,
	"Y": `(?P<Y>\d{4})`, "y": `(?P<y>\d\d)`, "Exy": `(?P<y>\d{2})`,
	"H": `(?P<H>[0-1]?\d|2[0-3])`, "ExH": `(?P<H>[0-1]\d|2[0-3])`,
	"k": ` ?(?P<H>[0-2]?\d)`, "Exk": ` ?(?P<H>[0-1]?\d|2[0-3])`,
	"I": `(?P<I>1[0-2]|0[1-9]|[1-9])`,
	"l": ` ?(?P<I>1?\d)`, "Exl": ` ?(?P<I>1[0-2]|\d)`,
	"M": `(?P<M>[0-5]?\d)`, "ExM": `(?P<M>[0-5]\d)`,
	"S": `(?P<S>[0-5]?\d|6[0-1])`, "ExS": `(?P<S>[0-5]\d|6[0-1])`,
	"f": `(?P<f>[0-9]{1,6})`, "p": `(?P<p>am|pm)`,
	"j": `(?P<j>36[0-6]|3[0-5]\d|[1-2]\d\d|0[1-9]\d|00[1-9]|[1-9]\d|0[1-9]|[1-9])`,
	"U": `(?P<U>5[0-3]|[0-4]\d|\d)`, "W": `(?P<W>5[0-3]|[0-4]\d|\d)`, "w": `(?P<w>[0-6])`,
	"Z": `(?P<Z>Z|[A-Z]{3,5})`, "ExZ": `(?P<Z>` + zoneAbbreviation + `)`,
	"z":   `(?P<z>Z|UTC|GMT|[+-][01]\d(?::?\d{2})?)`,
	"Exz": `(?P<z>(?:` + zoneAbbreviation + `)?[+-][01]\d(?::?\d{2})?|` + zoneAbbreviation + `)`,
}

var fieldNames = map[string]string{
	"a": "DAY", "A": "DAYNAME", "b": "MON", "B": "MONTH", "d": "Day", "H": "24hour", "I": "12hour", "j": "Yearday",
	"m": "Month", "M": "Minute", "p": "AMPM", "S": "Second", "U": "Yearweek", "w": "Weekday", "W": "Yearweek",
	"y": "Year2", "Y": "Year", "%": "%", "z": "Zone offset", "f": "Microseconds", "Z": "Zone name",
}

// nameOf is how a report names a field.
func nameOf(field string) string {
	if n, ok := fieldNames[field]; ok {
		return n
	}
	if n, ok := fieldNames[strings.TrimPrefix(field, "Ex")]; ok && strings.HasPrefix(field, "Ex") {
		return "Ex" + n
	}
	return "%" + field
}

// substitute replaces the fields of a pattern, f giving each one's text.
func substitute(p string, f func(field string) string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] != '%' || i+1 >= len(p) {
			b.WriteByte(p[i])
			continue
		}
		field := p[i+1 : i+2]
		if strings.HasPrefix(p[i+1:], "Ex") && i+3 < len(p) {
			field = p[i+1 : i+4]
		}
		if text := f(field); text != "" {
			b.WriteString(text)
			i += len(field)
			continue
		}
		b.WriteByte('%')
	}
	return b.String()
}

// errDate says that fields make no date, such as 30 February.
var errDate = errors.New("no such date")

// values are the fields of one date; missing ones are "".
type values struct {
	y, Y, m, b, B, d, H, I, p, M, S, a, A, w, j, U, W, z string
}

func number(s string, otherwise int) int {
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return otherwise
	}
	return n
}

func indexFold(list, name string) int {
	for i, s := range strings.Split(list, "|") {
		if strings.EqualFold(s, name) {
			return i
		}
	}
	return -1
}

const monthsInOrder = `january|february|march|april|may|june|july|august|september|october|november|december`

// date computes the time that fields mean. Missing parts are filled in from
// now: the year so that the date is not more than a day ahead, else the year
// before; the day so that the time is not ahead, else yesterday.
func (v *values) date(now time.Time, zone *time.Location) (time.Time, error) {
	year, month, day := number(v.Y, -1), number(v.m, -1), number(v.d, -1)
	if v.y != "" {
		if year = number(v.y, 0); year <= 2000 {
			year += 2000
		}
	}
	if v.b != "" {
		month = indexFold(monthsShort, v.b) + 1
	}
	if v.B != "" {
		month = indexFold(monthsInOrder, v.B) + 1
	}
	hour := number(v.H, 0)
	if v.I != "" {
		hour = number(v.I, 0) % 12
		if strings.EqualFold(v.p, "pm") {
			hour += 12
		}
	}
	if v.z != "" {
		offset, err := ZoneOffset(v.z)
		if err != nil {
			return time.Time{}, err
		}
		zone = time.FixedZone(v.z, offset)
	}
	now = now.In(zone)
	assumeYear, assumeToday := year < 0, false
	if assumeYear {
		year = now.Year()
	}
	if month < 0 || day < 0 {
		switch julian := v.dayOfYear(year); {
		case julian > 0:
			t := time.Date(year, 1, julian, 0, 0, 0, 0, time.UTC)
			year, month, day = t.Year(), int(t.Month()), t.Day()
		case month < 0 && day < 0:
			month, day, assumeToday = int(now.Month()), now.Day(), true
		default:
			return time.Time{}, errDate
		}
	}
	minute, second := number(v.M, 0), number(v.S, 0)
	if month < 1 || month > 12 || hour > 23 || second > 59 || minute > 59 {
		return time.Time{}, errDate
	}
	at := time.Date(year, time.Month(month), day, hour, minute, second, 0, zone)
	if at.Month() != time.Month(month) {
		return time.Time{}, errDate
	}
	if assumeToday && at.After(now) {
		at = at.AddDate(0, 0, -1)
	}
	if assumeYear && at.After(now.Add(24*time.Hour)) {
		at = time.Date(year-1, time.Month(month), day, hour, minute, second, 0, zone)
		if at.Month() != time.Month(month) {
			return time.Time{}, errDate
		}
	}
	return at, nil
}

// dayOfYear gives %j, or the day of %U or %W and a weekday; 0 for neither.
func (v *values) dayOfYear(year int) int {
	if v.j != "" {
		return number(v.j, 0)
	}
	week, monday := v.U, false
	if v.W != "" {
		week, monday = v.W, true
	}
	weekday := -1 // 0 is Monday
	switch {
	case v.A != "":
		weekday = indexFold(weekdays, v.A)
	case v.a != "":
		weekday = indexFold(weekdaysShort, v.a)
	case v.w != "":
		weekday = (number(v.w, 0) + 6) % 7
	}
	if week == "" || weekday < 0 {
		return 0
	}
	first := (int(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Weekday()) + 6) % 7
	if !monday {
		first, weekday = (first+1)%7, (weekday+1)%7
	}
	n := number(week, 0)
	if n == 0 {
		return 1 + weekday - first
	}
	return 1 + (7-first)%7 + 7*(n-1) + weekday
}

// ErrZone says that a text is no time zone that a log line can name.
var ErrZone = errors.New("unknown or unsupported time zone")

// ZoneOffset reads "Z", "CEST", "+0200", "+02", "+02:00" and "UTC+0200", and
// gives seconds east of UTC. Abbreviations stand for fixed offsets.
func ZoneOffset(s string) (int, error) {
	i := strings.IndexAny(s, "+-")
	name, offset := s, ""
	if i >= 0 {
		name, offset = s[:i], s[i:]
	}
	base, ok := 0, true
	if name != "" {
		if base, ok = zones[name]; !ok {
			base, ok = zones[strings.ToUpper(name)]
		}
	}
	if !ok || name == "" && offset == "" {
		return 0, fmt.Errorf("%q: %w", s, ErrZone)
	}
	if offset == "" {
		return base * 60, nil
	}
	digits := strings.Replace(offset[1:], ":", "", 1)
	if len(digits) != 2 && len(digits) != 4 || strings.Trim(digits, "0123456789") != "" {
		return 0, fmt.Errorf("%q: %w", s, ErrZone)
	}
	minutes := number(digits[:2], 0) * 60
	if len(digits) == 4 {
		minutes += number(digits[2:], 0)
	}
	if offset[0] == '-' {
		minutes = -minutes
	}
	return (base + minutes) * 60, nil
}

// zones are abbreviations as they stand in logs, with the offset, in minutes,
// that fail2ban takes for each: military letters and names, standard and
// daylight-saving ones apart.
var zones = func() map[string]int {
	out := map[string]int{}
	for minutes, names := range map[int]string{
		-720: "Y", -660: "X NUT SST", -600: "W CKT HAST HST TAHT TKT", -570: "MART MIT",
		-540: "V AKST GAMT GIT HADT HNY", -480: "U AKDT CIST HAY HNP PST PT", -420: "T HAP HNR MST PDT",
		-360: "S CST EAST GALT HAR HNC MDT", -300: "R CDT COT EASST ECT EST ET HAC HNE PET",
		-270: "HLV VET", -240: "Q AST BOT CLT COST EDT FKT GYT HAE HNA PYT", -210: "HNT NST NT",
		-180: "P ADT ART BRT CLST FKST GFT HAA PMST PYST SRT UYT WGT", -150: "HAT NDT",
		-120: "O BRST FNT PMDT UYST WGST", -60: "N AZOT CVT EGT", 0: "Z EGST GMT UTC WET WT",
		60: "A CET DFT WAT WEDT WEST", 120: "B CAT CEDT CEST EET SAST WAST", 180: "C EAT EEDT EEST IDT MSK",
		210: "IRST", 240: "D AMT AZT GET GST KUYT MSD MUT RET SAMT SCT", 270: "AFT IRDT",
		300: "E AMST AQTT AZST HMT MAWT MVT PKT TFT TJT TMT UZT YEKT", 330: "SLT", 345: "NPT",
		360: "F ALMT BIOT BTT IOT KGT NOVT OMST YEKST", 390: "CCT MMT",
		420: "G CXT DAVT HOVT ICT KRAT NOVST OMSST THA WIB",
		480: "H ACT AWST BDT BNT CAST HKT IRKT KRAST MYT PHT SGT ULAT WITA WST",
		540: "I AWDT IRKST JST KST PWT TLT WDT WIT YAKT", 570: "ACST", 600: "K AEST ChST PGT VLAT YAKST YAPT",
		630: "ACDT LHST", 660: "L AEDT LHDT MAGT NCT PONT SBT VLAST VUT", 690: "NFT",
		720: "M ANAST ANAT FJT GILT MAGST MHT NZST PETST PETT TVT WFT", 780: "FJST NZDT",
	} {
		for _, name := range strings.Fields(names) {
			out[name] = minutes
		}
	}
	return out
}()
