package source

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestJournalsOfNamespacesAndOfSomeFilesAlone(t *testing.T) {
	t.Parallel()
	dir, machine := t.TempDir(), strings.Repeat("a", 32)
	for i, name := range []string{"/system", ".sftp/system", ".other/system", "/user-1000"} {
		path := filepath.Join(dir, machine+name+".journal")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		writeJournal(t, path, fmt.Sprintf("__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\nMESSAGE=of %s\n_PID=1\n\n", int64(1700000000000000)+int64(i), 1+i, strings.Repeat("b", 32), name), true, false)
	}
	for name, c := range map[string]struct {
		spec Spec
		want []string
	}{
		"the directory whole":      {Spec{}, []string{"of /system", "of .sftp/system", "of .other/system", "of /user-1000"}},
		"one namespace":            {Spec{JournalNamespace: "sftp"}, []string{"of .sftp/system"}},
		"all namespaces":           {Spec{JournalNamespace: "*"}, []string{"of /system", "of .sftp/system", "of .other/system", "of /user-1000"}},
		"no users' files":          {Spec{JournalNamespace: "*", JournalFiles: []string{"system"}}, []string{"of /system", "of .sftp/system", "of .other/system"}},
		"none but those of a boot": {Spec{JournalFiles: []string{"runtime"}}, nil},
	} {
		c.spec.Journal, c.spec.JournalDirs = []string{""}, []string{dir}
		got, s := readOnce(t, c.spec, Position{}, Options{Start: StartBeginning})
		if !slices.Equal(got.texts, c.want) {
			t.Errorf("%s: read %q, want %q", name, got.texts, c.want)
		}
		for _, p := range s.Position().Journal {
			if p.Of != c.spec.JournalKey() || p.Of == "" {
				t.Errorf("%s: its position is of %q", name, p.Of)
			}
		}
	}
	for _, bad := range []Spec{{JournalNamespace: "../x"}, {JournalNamespace: "a/b"}, {JournalFiles: []string{"users"}}} {
		bad.Journal = []string{""}
		if _, err := Open(bad, Position{}, Options{}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
