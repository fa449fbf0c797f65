package lists

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

// floors are those that an import has by default.
var floors = Options{Floor4: 16, Floor6: 32}

func texts(list []ban.Target) string {
	var out []string
	for _, t := range list {
		out = append(out, t.String())
	}
	return strings.Join(out, " ")
}

// samples are lists in the forms in which they are published, with documentation
// addresses.
var samples = []struct {
	name, list string
	format     Format
	want       string
}{
	{"Spamhaus DROP", "; Spamhaus DROP List 2026/11/28 - (c) 2026 The Spamhaus Project SLU\n; Last-Modified: Sat, 28 Nov 2026 10:00:00 GMT\n; Expires: Sat, 28 Nov 2026 22:00:00 GMT\n203.0.113.0/24 ; SBL256893\n198.51.100.0/25 ; SBL1\n", Lines, "203.0.113.0/24 198.51.100.0/25"},
	{"Spamhaus DROP as JSON lines", `{"cidr":"203.0.113.0/24","sblid":"SBL256893","rir":"ripencc"}` + "\n" + `{"cidr":"2001:db8:1::/48","sblid":"SBL1","rir":"arin"}` + "\n" + `{"type":"metadata","timestamp":1764324000,"size":2,"records":2,"copyright":"(c) 2026","terms":"https://www.spamhaus.example/"}` + "\n", JSON, "203.0.113.0/24 2001:db8:1::/48"},
	{"blocklist.de", "198.51.100.7\n2001:db8::7\n198.51.100.8\n", Lines, "198.51.100.7 2001:db8::7 198.51.100.8"},
	{"FireHOL netset", "#\n# firehol_level1\n#\n# Maintainer      : FireHOL\n# Entries         : 2 subnets, 258 unique IPs\n#\n198.51.100.0/24\n203.0.113.6/31\n", Lines, "198.51.100.0/24 203.0.113.6/31"},
	{"Emerging Threats", "# Feodo\n\n198.51.100.7\n\n# Spamhaus DROP Nets\n203.0.113.0/24\n", Lines, "198.51.100.7 203.0.113.0/24"},
	{"DShield", "# DShield.org Recommended Block List\nStart\tEnd\tNetmask\tAttacks\tName\tCountry\temail\n203.0.113.0\t203.0.113.255\t24\t1234\tEXAMPLE\tZZ\tabuse@example.org\n198.51.100.0\t198.51.100.255\t24\t99\t\t\t\n", DShield, "203.0.113.0/24 198.51.100.0/24"},
	{"ipsum", "# IPsum Threat Intelligence Feed\n# Last update: Sat\n198.51.100.7\t9\n198.51.100.8\t1\n", Ipsum, "198.51.100.7 198.51.100.8"},
	{"CSV with a header", "# Turris\nAddress,Tags\n198.51.100.7,\"ssh,telnet\"\n2001:db8::7,smtp\n", CSV, "198.51.100.7 2001:db8::7"},
	{"CSV without a header", "1,198.51.100.7,ssh\n2,198.51.100.8,smtp\n", CSV, "198.51.100.7 198.51.100.8"},
	{"a document", `{"meta":{"generatedAt":"2026-11-28T12:00:00+00:00"},"data":[{"ipAddress":"198.51.100.7","countryCode":"ZZ","abuseConfidenceScore":100},{"ipAddress":"2001:db8::7","abuseConfidenceScore":90}]}`, JSON, "198.51.100.7 2001:db8::7"},
	{"an array of texts", `["198.51.100.7", "203.0.113.0/24"]`, JSON, "198.51.100.7 203.0.113.0/24"},
	{"hosts of one a line, with names behind them", "198.51.100.7 scanner.example\n198.51.100.8\tother.example # seen twice\n", Lines, "198.51.100.7 198.51.100.8"},
	{"ranges", "203.0.113.0-203.0.113.255\n198.51.100.1 - 198.51.100.2\n", Lines, "203.0.113.0/24 198.51.100.1 198.51.100.2"},
	{"Windows' line ends and a byte order mark", "\xef\xbb\xbf198.51.100.7\r\n198.51.100.8\r\n", Lines, "198.51.100.7 198.51.100.8"},
	{"IPv4 in IPv6", "::ffff:198.51.100.7\n198.51.100.7\n", Lines, "198.51.100.7"},
}

func TestPublishedListsAreRead(t *testing.T) {
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			e, err := Read(strings.NewReader(s.list), floors)
			if err != nil {
				t.Fatal(err)
			}
			if e.Format != s.format || texts(e.Targets) != s.want || e.Total() != 0 {
				t.Errorf("read as %s: %q, refused %+v", e.Format, texts(e.Targets), e.Refused)
			}
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			fmt.Fprint(z, s.list)
			z.Close()
			again, err := Read(&packed, floors)
			if err != nil || again.Sum() != e.Sum() {
				t.Errorf("packed: %v", err)
			}
		})
	}
}

func TestAScoreAndAColumnAreRead(t *testing.T) {
	for _, c := range []struct {
		name, list string
		o          Options
		want       string
		low        int
	}{
		{"ipsum's minimum", "198.51.100.7\t9\n198.51.100.8\t3\n198.51.100.9\t2\n", Options{Minimum: 3}, "198.51.100.7 198.51.100.8", 1},
		{"a named column", "from,to\n198.51.100.7,198.51.100.9\n", Options{Column: "To"}, "198.51.100.9", 0},
		{"a numbered column", "198.51.100.7,198.51.100.9\n198.51.100.8,198.51.100.6\n", Options{Format: CSV, Column: "2"}, "198.51.100.9 198.51.100.6", 0},
		{"a score in CSV", "ip,score\n198.51.100.7,80\n198.51.100.8,79.5\n", Options{Score: "score", Minimum: 80}, "198.51.100.7", 1},
		{"semicolons", "ip;score\n198.51.100.7;80\n198.51.100.8;7\n", Options{Format: CSV, Score: "score", Minimum: 80}, "198.51.100.7", 1},
		{"a key", `{"a":"198.51.100.7","b":"198.51.100.8"}`, Options{Column: "b"}, "198.51.100.8", 0},
		{"a score in JSON", `[{"ip":"198.51.100.7","confidence":"90"},{"ip":"198.51.100.8","confidence":10}]`, Options{Score: "confidence", Minimum: 50}, "198.51.100.7", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Floor4, c.o.Floor6 = 16, 32
			e, err := Read(strings.NewReader(c.list), c.o)
			if err != nil {
				t.Fatal(err)
			}
			if texts(e.Targets) != c.want || e.Low != c.low {
				t.Errorf("read %q, %+v", texts(e.Targets), e.Tally)
			}
		})
	}
	for _, list := range []string{"ip,other\n198.51.100.7,80\n", "198.51.100.7,80\n198.51.100.8,10\n"} {
		if e, err := Read(strings.NewReader(list), Options{Format: CSV, Score: "score", Minimum: 80}); err == nil && len(e.Targets) > 0 {
			t.Errorf("entries without the score that was asked for are taken: %q", list)
		}
	}
}

type office []netip.Prefix

func (o office) never(t ban.Target) (string, bool) {
	p, _ := t.Prefix()
	for _, q := range o {
		if q.Overlaps(p) {
			return "the office", true
		}
	}
	return "", false
}

func TestWhatNoListMayBanIsRefusedAndTold(t *testing.T) {
	o := Options{Floor4: 16, Floor6: 32, Never: office{netip.MustParsePrefix("203.0.113.128/25")}.never}
	e, err := Read(strings.NewReader("0.0.0.0/0\n::/0\n198.51.0.0/15\n198.51.0.0/16\n203.0.113.0/24\n203.0.113.200\n203.0.113.1\n2001:db8::/31\n0.0.0.0-255.255.255.255\nscanner.example\n"), o)
	if err != nil {
		t.Fatal(err)
	}
	if texts(e.Targets) != "198.51.0.0/16 203.0.113.1" || e.Wide != 5 || e.Never != 2 || e.Junk != 1 || e.Total() != 8 {
		t.Errorf("taken %q, %+v", texts(e.Targets), e.Tally)
	}
	for _, want := range []Refusal{{"0.0.0.0/0", wide}, {"203.0.113.0/24", "the office"}, {"scanner.example", hostName}} {
		if !slices.Contains(e.Refused, want) {
			t.Errorf("%+v is not among %+v", want, e.Refused)
		}
	}
	// Nothing at all is refused by no floor, but for everything.
	if e, err := Read(strings.NewReader("0.0.0.0/0\n198.0.0.0/7\n"), Options{}); err != nil || texts(e.Targets) != "198.0.0.0/7" {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestAnErrorPageIsNoList(t *testing.T) {
	for name, list := range map[string]string{
		"a page":            "<html><head><title>429 Too Many Requests</title></head>\n<body>\nYour address 198.51.100.7\n198.51.100.7\n</body></html>\n",
		"a JSON error":      `{"errors":[{"detail":"Daily rate limit","status":429}]` + "\n",
		"names":             "scanner.example\nother.example\n",
		"truncated JSON":    `[{"ip":"198.51.100.7"},{"ip":"198.51`,
		"deep JSON":         strings.Repeat("[", 100_000),
		"binary":            "\x00\x01\x02\n\x7fELF\n",
		"a line that is it": strings.Repeat("9", 1<<20),
	} {
		if e, err := Read(strings.NewReader(list), floors); !errors.Is(err, ErrNoList) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	// As many names as addresses are a list with names in it.
	if e, err := Read(strings.NewReader("a.example\n198.51.100.7\n"), floors); err != nil || e.Junk != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := Read(strings.NewReader(""), floors); err != nil || len(e.Targets) != 0 {
		t.Errorf("an empty list: %+v, %v", e, err)
	}
}

func TestABudgetTakesTheFirstEntries(t *testing.T) {
	var list strings.Builder
	for i := range 102 {
		fmt.Fprintf(&list, "198.51.100.%d\n198.51.100.%d\n", i, i)
	}
	e, err := Read(strings.NewReader(list.String()), Options{Most: 100})
	if err != nil || len(e.Targets) != 100 || e.Targets[99].String() != "198.51.100.99" || e.Beyond != 4 || e.Repeated != 100 {
		t.Errorf("%d taken, %+v, %v", len(e.Targets), e.Tally, err)
	}
}

// endless is an endless list, or an endless line.
type endless struct{ text string }

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n+len(e.text) <= len(p) {
		n += copy(p[n:], e.text)
	}
	if n == 0 {
		n = copy(p, e.text)
	}
	return n, nil
}

func TestAListWithoutEndIsRefusedInBoundedMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, text := range []string{"junk\n", "9", "198.51.100.7\n"} {
		if _, err := Read(endless{text}, Options{testingOnlyBytes: 4 << 20}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%q for ever: %v", text, err)
		}
	}
	runtime.ReadMemStats(&after)
	// Three lists of 4 MiB; how much more is allocated depends on pools and on the race detector.
	if used := after.TotalAlloc - before.TotalAlloc; used > 3*64<<20 {
		t.Errorf("%d MiB were allocated", used>>20)
	}
	// A small file of many zeros.
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	line := bytes.Repeat([]byte("\n"), 1<<20)
	for range 5 {
		z.Write(line)
	}
	z.Close()
	if _, err := Read(&bomb, Options{testingOnlyBytes: 4 << 20}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a gzip bomb: %v", err)
	}
}

func TestAChangeOfMuchIsForAPerson(t *testing.T) {
	numbered := func(from, n int) (list []ban.Target) {
		for i := range n {
			list = append(list, ban.MustTarget(netip.AddrFrom4([4]byte{45, byte((from + i) >> 16), byte((from + i) >> 8), byte(from + i)}).String()))
		}
		return list
	}
	for _, c := range []struct {
		name          string
		before, after []ban.Target
		held          bool
	}{
		{"the first edition", nil, numbered(0, 5000), false},
		{"nothing changed", numbered(0, 1000), numbered(0, 1000), false},
		{"as much as allowed is new", numbered(0, 1000), numbered(0, 1500), false},
		{"one more", numbered(0, 1000), numbered(0, 1501), true},
		{"tenfold", numbered(0, 1000), numbered(0, 10_000), true},
		{"as much as allowed is gone", numbered(0, 1000), numbered(0, 500), false},
		{"one more is gone", numbered(0, 1000), numbered(0, 499), true},
		{"others of the same number", numbered(0, 1000), numbered(5000, 1000), true},
		{"a small list doubles", numbered(0, 10), numbered(0, 60), false},
		{"a small list is empty", numbered(0, 10), nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if why := Compare(c.before, c.after).Suspicious(DefaultMaxChange); (why != "") != c.held {
				t.Errorf("%q", why)
			}
		})
	}
}

// Whatever order a list has, it is the same edition; and each range is its addresses.
func TestAnEditionIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return netip.AddrFrom4([4]byte{198, 51, 100, rapid.Byte().Draw(t, "last")}).String()
		}), 0, 30).Draw(t, "lines")
		a, err := Read(strings.NewReader(strings.Join(lines, "\n")), floors)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(lines)
		b, err := Read(strings.NewReader(strings.Join(lines, "\n")), floors)
		if err != nil || a.Sum() != b.Sum() || Compare(a.Targets, b.Targets) != (Change{Before: len(a.Targets), After: len(a.Targets)}) {
			t.Fatalf("%v and %v: %v", a.Targets, b.Targets, err)
		}
		from, to := rapid.Uint16().Draw(t, "from"), rapid.Uint16().Draw(t, "to")
		if from > to {
			from, to = to, from
		}
		at := func(n uint16) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}) }
		pieces, err := piecesOf(at(from), at(to))
		if err != nil {
			t.Fatal(err)
		}
		next := at(from)
		for _, p := range pieces {
			if p.Addr() != next || p.Masked() != p {
				t.Fatalf("%v of %s to %s", pieces, at(from), at(to))
			}
			next = lastOf(p).Next()
		}
		if next != at(to).Next() {
			t.Fatalf("%v ends before %s", pieces, at(to))
		}
	})
}

// FuzzRead reads any bytes in each format: the entries are within the budget and
// the floor, are canonical, and nothing is counted twice.
func FuzzRead(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s.list), string(s.format), "", "")
		f.Add([]byte(s.list), "", "ip", "score")
	}
	f.Add([]byte("1.2.3.4-::1\n\"\",\n;\n"), "csv", "1", "2")
	f.Fuzz(func(t *testing.T, list []byte, format, column, score string) {
		kind, err := ParseFormat(format)
		if err != nil {
			t.Skip()
		}
		o := Options{Format: kind, Column: column, Score: score, Minimum: 1, Most: 10, Floor4: 16, Floor6: 32}
		e, err := Read(bytes.NewReader(list), o)
		if err != nil {
			return
		}
		if len(e.Targets) > 10 || len(e.Refused) > 3*maxRefusals {
			t.Fatalf("%d entries, %d refusals", len(e.Targets), len(e.Refused))
		}
		seen := map[ban.Target]bool{}
		for _, x := range e.Targets {
			p, ok := x.Prefix()
			if !ok || seen[x] || p.Addr().Is4() && p.Bits() < 16 || p.Addr().Is6() && p.Bits() < 32 {
				t.Fatalf("%s is taken", x)
			}
			seen[x] = true
		}
	})
}

func BenchmarkRead(b *testing.B) {
	var list bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&list, "45.%d.%d.%d\n", i>>16, i>>8&0xff, i&0xff)
	}
	b.ReportAllocs()
	for b.Loop() {
		if e, err := Read(bytes.NewReader(list.Bytes()), Options{}); err != nil || len(e.Targets) != 100_000 {
			b.Fatal(err)
		}
	}
}
