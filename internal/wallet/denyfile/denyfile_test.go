package denyfile

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/wallet"
)

const (
	one   = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
	two   = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
	wrong = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAec"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestListsAreReadInEveryFormat(t *testing.T) {
	for _, c := range []struct {
		claim  string
		format Format
		text   string
		want   string
	}{
		{"plain", Plain, "# a list\n\n" + one + "\n  " + strings.ToLower(two) + "  # a name\r\n", one + " , " + two + " "},
		{"plain without a line end", Plain, one, one + " "},
		{"CSV", CSV, "note,Address,until,reason\nx,y," + one + ",\n", ""},
		{"CSV with columns in any order", CSV, "note,Address,until,reason\n\"a, b\"," + one + ",2026-12-01T00:00:00Z,payment\n,\"" + two + "\",,\n", one + " payment 2026-12-01T00:00:00Z, " + two + " "},
		{"CSV of a spreadsheet", CSV, "\xef\xbb\xbfaddress\r\n" + one + "\r\n", one + " "},
		{"JSON", JSON, `["` + one + `", {"address": "` + two + `", "reason": "spam", "until": "2026-11-22T00:00:00+01:00", "comment": 1}]`, one + " , " + two + " spam 2026-11-21T23:00:00Z"},
		{"the last of two", JSON, `["` + one + `",{"address":"` + one + `","reason":"spam"}]`, one + " spam"},
	} {
		entries, err := Read(strings.NewReader(c.text), c.format, now)
		if (err != nil) != (c.want == "") {
			t.Errorf("%s: %v", c.claim, err)
			continue
		}
		var got []string
		for _, e := range entries {
			s := wallet.Format(e.Wallet) + " " + e.Reason
			if !e.Until.IsZero() {
				s += " " + untilText(e)
			}
			got = append(got, s)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: read as %q, want %q", c.claim, strings.Join(got, ", "), c.want)
		}
	}
}

func TestEveryFaultIsToldWithItsLine(t *testing.T) {
	for _, c := range []struct {
		format Format
		text   string
		want   []string
	}{
		{Plain, one + "\nname.eth\n\n" + wrong + "\n0x0000000000000000000000000000000000000000\n", []string{`2: "name.eth": a name can come`, "4: " + wrong + ": the capital letters", "5: the zero address"}},
		{Plain, "# nothing\n", []string{"1: the list names no wallet"}},
		{CSV, "wallet\n" + one + "\n", []string{"1: the heading has no column address"}},
		{CSV, "address,until\n" + one + ",yesterday\n" + one + ",2026-11-21T11:59:59Z\n" + one + ",2027-11-21T12:00:00Z\n" + one + "\n", []string{"2: until: \"yesterday\" is not a time", "3: until: 2026-11-21T11:59:59Z is over", "4: until: 2027-11-21T12:00:00Z is more than 90 days", "5: the line has 1 columns, the heading 2"}},
		{CSV, "", []string{"1: no heading"}},
		{CSV, "address\n\"" + one + "\n", []string{"2: parse error"}},
		{JSON, `{"address":"` + one + `"}`, []string{"1: not a JSON array"}},
		{JSON, "[\n\"" + one + "\",\n1,\n\"x\"\n]", []string{"3: json:", `4: "x": an Ethereum address begins`}},
		{JSON, `["` + one + `"`, []string{"1: "}},
		{JSON, `["` + one + `"] 1`, []string{"1: more behind the array"}},
		{Plain, strings.Repeat("x\n", 1000), slices.Repeat([]string{""}, maxFaults)},
		{Plain, strings.Repeat(" ", maxFile+1), []string{"1: the list has more than 16 MB"}},
	} {
		entries, err := Read(strings.NewReader(c.text), c.format, now)
		if err == nil || entries != nil {
			t.Errorf("%.60q is read as %v", c.text, entries)
			continue
		}
		got := strings.Split(err.Error(), "\n")
		if len(got) != len(c.want) {
			t.Errorf("%.60q has the faults %q, want %q", c.text, got, c.want)
			continue
		}
		for i, fault := range got {
			if !strings.HasPrefix(fault, c.want[i]) {
				t.Errorf("%.60q: fault %q, want %q", c.text, fault, c.want[i])
			}
		}
	}
}

func TestAListHasAnEnd(t *testing.T) {
	var b strings.Builder
	for n := range maxEntries + 1 {
		fmt.Fprintf(&b, "0x%040x\n", n+1)
	}
	if _, err := Read(strings.NewReader(b.String()), Plain, now); err == nil || !strings.HasPrefix(err.Error(), "100001: ") {
		t.Errorf("a list of %d: %v", maxEntries+1, err)
	}
}

func FuzzWhatIsWrittenReadsBack(f *testing.F) {
	f.Add(one+"\n"+two, 0)
	f.Add("address,reason,until\n"+one+",payment,2026-12-01T00:00:00Z\n", 1)
	f.Add(`[{"address":"`+one+`","reason":"a,\"b"}]`, 2)
	f.Fuzz(func(t *testing.T, text string, format int) {
		entries, err := Read(strings.NewReader(text), Format(uint(format)%3), now)
		if err != nil {
			return
		}
		for _, format := range []Format{CSV, JSON} {
			var b strings.Builder
			if err := Write(&b, format, entries); err != nil {
				t.Fatal(err)
			}
			back, err := Read(strings.NewReader(b.String()), format, now)
			if err != nil || len(back) != len(entries) {
				t.Fatalf("%q -> %q: %d of %d, %v", text, b.String(), len(back), len(entries), err)
			}
			for i := range back {
				if back[i].Wallet != entries[i].Wallet || untilText(back[i]) != untilText(entries[i]) {
					t.Fatalf("%v -> %v", entries[i], back[i])
				}
			}
		}
	})
}
