package f2bconf

import (
	"reflect"
	"testing"
)

func TestIncludesStandBeforeAndAfterTheirFile(t *testing.T) {
	f, err := ReadFilter(tree(t, map[string]string{
		"filter.d/a.conf": "[INCLUDES]\nbefore = b.conf\nafter = c.conf\n[Definition]\nfailregex = a <HOST>\nprefregex = a\ndatepattern = a\n",
		"filter.d/b.conf": "[Definition]\nprefregex = b\nfailregex = b\n",
		"filter.d/c.conf": "[Definition]\nprefregex = c\n",
	}), "a", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if f.Prefregex != "c" || !reflect.DeepEqual(f.Failregex, []string{"a <HOST>"}) || len(f.Files) != 3 {
		t.Errorf("%+v", f)
	}
}

func TestPercentSignsTagsAndKnownValues(t *testing.T) {
	f, err := ReadFilter(tree(t, map[string]string{
		"filter.d/a.conf":  "[Definition]\nfailregex = a%%b <HOST>\nprefregex = one\nignoreregex = <known/prefregex>\nmode = normal\n[Init]\nlevel = 3\n",
		"filter.d/a.local": "[Definition]\nprefregex = two\n",
	}), "a[mode=extra]", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.Failregex, []string{"a%b <HOST>"}) || f.Prefregex != "two" || !reflect.DeepEqual(f.Ignoreregex, []string{"one"}) {
		t.Errorf("%+v", f)
	}
	if f.Options["mode"] != "extra" || f.Options["level"] != "3" || f.Options["known/level"] != "3" {
		t.Errorf("options %q", f.Options)
	}
	c, err := parse("x", []byte("[s]\nx = 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.get("s", "x", map[string]string{"x": "100%"}); err != nil || got != "100%" {
		t.Errorf("a given value: %q, %v", got, err)
	}
}

func TestLimitsOfAFilter(t *testing.T) {
	for text, want := range map[string]int{"1": 1, "10": 10, "0": -1, "-1": -1} {
		f, err := ReadFilter(tree(t, map[string]string{"filter.d/a.conf": "[Definition]\nfailregex = <HOST>\nmaxlines = " + text + "\n"}), "a", "", nil)
		if (err != nil) != (want < 0) || err == nil && f.Maxlines != want {
			t.Errorf("maxlines = %s: %+v, %v", text, f, err)
		}
	}
}

func TestASectionForSomeAddressesChangesNoOthers(t *testing.T) {
	c, err := parse("x", []byte("[a]\nb = 1\n[a?family=inet6]\nb = 2\n"))
	if err != nil {
		t.Fatal(err)
	}
	merged := newConfig()
	merged.merge(c)
	b, errB := merged.get("a", "b", nil)
	six, errSix := merged.get("a", "b?family=inet6", nil)
	if b != "1" || six != "2" || errB != nil || errSix != nil {
		t.Errorf("b = %q, for IPv6 %q (%v, %v)", b, six, errB, errSix)
	}
}

func TestJailsThatAreEnabledWithTheirOwnOptions(t *testing.T) {
	jails, err := ReadJails(tree(t, map[string]string{
		"jail.conf": "[DEFAULT]\nmode = normal\nenabled = false\nmaxretry = 5\n" +
			"[on]\nenabled = yes\nfilter = f[mode=hard]\nlogpath = /a tail\n  /b head\n  /c\naction = one[x='a] b', y=\"c d\"]\n  two\n" +
			"[off]\nfilter = f\n[also-off]\nenabled = no\nfilter = missing\n" +
			"[own]\nenabled = 1\nfilter = f\nmode = soft\nfailregex = %(known/failregex)s\n  own <HOST>\nlogpath = /d\n",
		"filter.d/f.conf": "[Definition]\nfailregex = <m-<mode>> <HOST>\n[Init]\nmode = normal\nm-normal = N\nm-hard = H\nm-soft = S\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if len(jails) != 2 || jails[0].Name != "on" || jails[1].Name != "own" {
		t.Fatalf("%+v", jails)
	}
	j := jails[0]
	if !reflect.DeepEqual(j.Logpath, []string{"/a", "/b", "/c"}) || j.Options["maxretry"] != "5" {
		t.Errorf("logs %q, options %q", j.Logpath, j.Options)
	}
	if got := j.Filter.Failregex; !reflect.DeepEqual(got, []string{"H <HOST>"}) {
		t.Errorf("the filter's own mode gives way to that of [DEFAULT]: %q", got)
	}
	if len(j.Actions) != 2 || j.Actions[0].Name != "one" || j.Actions[0].Options["x"] != "a] b" || j.Actions[0].Options["y"] != "c d" || j.Actions[1].Name != "two" {
		t.Errorf("actions %+v", j.Actions)
	}
	if got := jails[1].Filter.Failregex; len(got) != 2 || got[1] != "own <HOST>" {
		t.Errorf("the jail's own expression: %q", got)
	}
}
