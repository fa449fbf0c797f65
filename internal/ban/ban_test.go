package ban

import (
	"net/netip"
	"strings"
	"testing"
)

func TestTargetsThatMeanTheSameAreEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		kind Kind
	}{
		{"192.0.2.7", "::ffff:192.0.2.7", KindAddr4},
		{"192.0.2.7/32", "192.0.2.7", KindAddr4},
		{"192.0.2.77/24", "192.0.2.0/24", KindCIDR4},
		{"::ffff:192.0.2.0/120", "192.0.2.0/24", KindCIDR4},
		{"2001:db8::1/64", "2001:db8:0:0::/64", KindNet6},
		{"2001:DB8::1", "2001:db8::1/128", KindAddr6},
		{"2001:db8::/32", "2001:db8:1::/32", KindCIDR6},
		{"0xABCDEF0123456789abcdef0123456789abcdef01", "0xabcdef0123456789abcdef0123456789abcdef01", KindWallet},
	} {
		a, b := MustTarget(c.a), MustTarget(c.b)
		if a != b || a.Kind() != c.kind || a.Compare(b) != 0 {
			t.Errorf("%s = %v (%v), %s = %v (%v), want the same and %v", c.a, a, a.Kind(), c.b, b, b.Kind(), c.kind)
		}
	}
}

func TestWhatIsNoTargetIsRefused(t *testing.T) {
	for _, s := range []string{
		"", "none", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.4 ", "0x7f.1", "fe80::1%eth0", "fe80::/10%eth0",
		"1.2.3.4/33", "::ffff:1.2.3.4/95", "0x" + strings.Repeat("0", 40), "0x" + strings.Repeat("g", 40), "0x12",
		strings.Repeat("1", 4096),
	} {
		if got, err := ParseTarget(s); err == nil {
			t.Errorf("ParseTarget(%.60q) = %v, want an error", s, got)
		} else if len(err.Error()) > 200 {
			t.Errorf("the error repeats %d bytes of foreign text", len(err.Error()))
		}
	}
	if _, err := TargetOfAddr(netip.Addr{}); err == nil {
		t.Error("the invalid address became a target")
	}
}

func FuzzTargetTextRoundTrips(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "::1/64", "::ffff:1.2.3.4/120", "0xabcdef0123456789abcdef0123456789abcdef01", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseTarget(s)
		if err != nil {
			return
		}
		b, err := ParseTarget(a.String())
		if err != nil || a != b {
			t.Fatalf("%q -> %v -> %v, %v", s, a, b, err)
		}
	})
}

func TestTopicsAreShortLowerCaseWords(t *testing.T) {
	for s, want := range map[string]bool{
		"sshd": true, "broadcaster-addresses": true, "a": true, "0": true, strings.Repeat("a", 32): true,
		"": false, "-a": false, "a-": false, "Sshd": false, "a/b": false, "a+": false, "#": false, strings.Repeat("a", 33): false,
	} {
		if _, err := ParseTopic(s); (err == nil) != want {
			t.Errorf("ParseTopic(%q): %v, want ok=%v", s, err, want)
		}
	}
}

func TestIdentityTextIsCanonical(t *testing.T) {
	o, n := OperatorOf([]byte("root")), NodeOf([]byte("node"))
	if got, err := ParseOperator(o.String()); err != nil || got != o || len(o.String()) != OperatorText {
		t.Errorf("operator %v -> %v, %v", o, got, err)
	}
	if got, err := ParseNode(n.String()); err != nil || got != n || len(n.String()) != NodeText {
		t.Errorf("node %v -> %v, %v", n, got, err)
	}
	// 26 characters hold 130 bits: the two spare ones must be zero.
	last := o.String()[25]
	for _, c := range "abcdefghijklmnopqrstuvwxyz234567" {
		s := o.String()[:25] + string(c)
		got, err := ParseOperator(s)
		if byte(c) == last {
			continue
		}
		if err == nil && got == o {
			t.Errorf("%s and %s are both the operator", s, o)
		}
	}
	for _, s := range []string{"", strings.ToUpper(o.String()), o.String() + "a", strings.Repeat("b", 26), strings.Repeat("1", 26)} {
		if _, err := ParseOperator(s); err == nil {
			t.Errorf("ParseOperator(%q) passed", s)
		}
	}
}

func TestEveryClassHasANameThatReadsBack(t *testing.T) {
	for i := range classNames {
		c := Class(i)
		got, err := ParseClass(c.String())
		if err != nil || got != c {
			t.Errorf("%d: %q -> %v, %v", i, c, got, err)
		}
	}
	if _, err := ParseClass("class-200"); err == nil {
		t.Error("an unknown class has a name that reads back")
	}
}
