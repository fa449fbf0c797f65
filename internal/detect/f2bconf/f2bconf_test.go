package f2bconf

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLaterFilesOverrideAndKnownIsWhatTheyOverrode(t *testing.T) {
	dir := tree(t, map[string]string{
		"filter.d/a.conf":         "[INCLUDES]\nbefore = b.conf\nafter = missing.conf\n[Definition]\nfailregex = one <HOST>\n  two <HOST> ; a comment\n\n  # another\n  three;no comment <HOST>\n",
		"filter.d/a.local":        "[Definition]\nfailregex = %(known/failregex)s\n  four %(word)s <HOST>\n",
		"filter.d/b.conf":         "[DEFAULT]\nword = five\nlogtype = file\n[Definition]\nignoreregex = <pre-<logtype>> x\n[Init]\npre-journal = J\npre-file = F\n",
		"filter.d/a.d/z.conf":     "[Definition]\nmaxlines = 3\n",
		"filter.d/a.d/ignored.xx": "[",
	})
	f, err := ReadFilter(dir, "a[logtype=journal]", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"one <HOST>", "two <HOST>", "three;no comment <HOST>", "four five <HOST>"}
	if !reflect.DeepEqual(f.Failregex, want) || !reflect.DeepEqual(f.Ignoreregex, []string{"J x"}) || f.Maxlines != 3 {
		t.Errorf("%+v", f)
	}
}

func TestFaultsNameFileAndLine(t *testing.T) {
	for text, want := range map[string]string{
		"[Definition]\nfailregex = a\nfailregex = b\n": "x.conf:3: ",
		"failregex = a\n":                                  "x.conf:1: ",
		"[Definition]\nnonsense\n":                         "x.conf:2: ",
		"[Definition]\nfailregex = %(nothing)s\n":          "x.conf:2: option \"failregex\": cannot interpolate: %(nothing)s is not set",
		"[Definition]\nfailregex = 100%\n":                 "'%' must be followed",
		"[Definition]\nfailregex = %(failregex)s\n":        "nested too deeply",
		"[Definition]\nfailregex = <a>\na = <failregex>\n": "refers to itself",
		"[Definition]\nmaxlines = x\n":                     "x.conf:2: ",
		"[Init]\na = b\n":                                  "no section [Definition]",
	} {
		dir := tree(t, map[string]string{"filter.d/x.conf": text})
		if _, err := ReadFilter(dir, "x", "", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
	if _, err := ReadFilter(t.TempDir(), "x", "", nil); !errors.Is(err, ErrMissing) {
		t.Errorf("%v, want ErrMissing", err)
	}
}

func TestSpecificationsHoldQuotedOptionsInSeveralGroups(t *testing.T) {
	name, options, err := ParseSpec(`sshd[mode=aggressive, x="a,b]c", y='d e'][z=1]`)
	if err != nil || name != "sshd" || !reflect.DeepEqual(options, map[string]string{"mode": "aggressive", "x": "a,b]c", "y": "d e", "z": "1"}) {
		t.Errorf("%q %q %v", name, options, err)
	}
	for _, bad := range []string{"[a=1]", "a[b", "a[=1]", "a[b=1 c=2]x", `a[b="1"c]`} {
		if _, _, err := ParseSpec(bad); err == nil {
			t.Errorf("ParseSpec(%q) took it", bad)
		}
	}
}

func TestIncludesThatIncludeEachOtherEnd(t *testing.T) {
	dir := tree(t, map[string]string{
		"filter.d/a.conf": "[INCLUDES]\nbefore = b.conf\n[Definition]\nfailregex = <HOST>\n",
		"filter.d/b.conf": "[INCLUDES]\nbefore = a.conf\n",
	})
	if f, err := ReadFilter(dir, "a", "", nil); err != nil || len(f.Failregex) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[a]\nb = %(c)s <d>\n  e ; f\n[a?family=inet6]\nb: 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parse("f", b)
		if err != nil {
			return
		}
		merged := newConfig()
		merged.merge(c)
		for name, s := range merged.sections {
			for k := range s {
				if v, err := merged.get(name, k, nil); err == nil && len(v) > maxExpand {
					t.Errorf("%s/%s has %d bytes", name, k, len(v))
				}
			}
		}
		_, _ = c.filter("f", nil, "file", nil)
	})
}

func FuzzParseSpec(f *testing.F) {
	f.Add(`a[b=1,c="d"]`)
	f.Fuzz(func(t *testing.T, s string) { _, _, _ = ParseSpec(s) })
}
