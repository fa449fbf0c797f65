package source

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody runs do with the rights of a user who owns nothing. It is only for
// this thread; root needs it, whom no permission stops.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	if os.Getuid() != 0 {
		do()
		return
	}
	const nobody = 65534
	runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
	if _, _, errno := unix.RawSyscall(unix.SYS_SETFSUID, nobody, 0, 0); errno != 0 {
		t.Skip("setfsuid is not permitted")
	}
	do()
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
	runtime.UnlockOSThread()
}

func put(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// open makes the directories of a test readable for everybody.
func opened(t *testing.T) string {
	dir := t.TempDir()
	for at := dir; at != "/" && at != os.TempDir(); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEachNamedLogSaysWhyItIsNotRead(t *testing.T) {
	dir := opened(t)
	put(t, dir+"/open/auth.log", "x\n", 0o644)
	put(t, dir+"/open/secret.log", "x\n", 0)
	put(t, dir+"/closed/auth.log", "x\n", 0o644)
	put(t, dir+"/closed/deep/auth.log", "x\n", 0o644)
	put(t, dir+"/half/a/x.log", "x\n", 0o644)
	put(t, dir+"/half/b/x.log", "x\n", 0o644)
	put(t, dir+"/open/x.log.1.gz", "x\n", 0o644)
	for _, d := range []string{"/closed", "/half/b"} {
		if err := os.Chmod(dir+d, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(dir+d, 0o755) })
	}
	if err := unix.Mkfifo(dir+"/open/pipe", 0o644); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		glob  string
		found int
		why   string // the path stands for the directory of the test
	}{
		{"/open/auth.log", 1, ""},
		{"/open/none.log", 0, ""},
		{"/none/auth.log", 0, ""},
		{"/open/secret.log", 1, "permission denied"},
		{"/open/*.log", 2, "permission denied: /open/secret.log"},
		{"/closed/auth.log", 0, "permission denied: /closed"},
		{"/closed/*.log", 0, "permission denied: /closed"},
		{"/closed/deep/*.log", 0, "permission denied: /closed"},
		{"/*/auth.log", 1, "permission denied: /closed"},
		{"/half/*/*.log", 1, "permission denied: /half/b"},
		{"/open/*.gz", 0, ""},
		{"/open/pipe", 0, "/open/pipe: not a regular file"},
	} {
		asNobody(t, func() {
			spec := Spec{Files: []string{dir + x.glob}}
			h := Look(spec, Options{})[0]
			if why := strings.ReplaceAll(h.Cannot(spec.Logs()[0]), dir, ""); h.Found != x.found || why != x.why {
				t.Errorf("%s: found %d, %q; want %d, %q", x.glob, h.Found, why, x.found, x.why)
			}
		})
	}
}

func TestEachContainerSaysWhoKeepsItsLog(t *testing.T) {
	root := opened(t)
	for name, driver := range map[string]string{"web": "json-file", "db": "local", "quiet": "none", "logged": "journald", "old": ""} {
		id := strings.Repeat(name[:1], 64)
		put(t, root+"/"+id+"/config.v2.json", `{"Name":"/`+name+`"}`, 0o644)
		if driver != "" {
			put(t, root+"/"+id+"/hostconfig.json", `{"LogConfig":{"Type":"`+driver+`","Config":{}}}`, 0o644)
		}
		switch driver {
		case "json-file":
			put(t, root+"/"+id+"/"+id+"-json.log", "", 0o644)
		case "local":
			put(t, root+"/"+id+"/local-logs/container.log", "", 0o644)
		}
	}
	o := Options{DockerRoot: root}
	for _, x := range []struct {
		name  string
		found int
		why   string
	}{
		{"web", 1, ""},
		{"db", 1, ""},
		{"quiet", 1, "Docker keeps no log of it: log driver none"},
		{"logged", 1, "Docker's log driver journald writes no file that can be read"},
		{"old", 1, ""},
		{"nobody", 0, ""},
	} {
		if h := Look(Spec{Docker: []string{x.name}}, o)[0]; h.Found != x.found || h.Cannot(Log{}) != x.why {
			t.Errorf("%s: %+v, %q", x.name, h, h.Cannot(Log{}))
		}
	}
	local := root + "/" + strings.Repeat("d", 64) + "/local-logs"
	if err := os.Chmod(local, 0); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if h := Look(Spec{Docker: []string{"db"}}, o)[0]; h.Denied != local+"/container.log" {
			t.Errorf("%+v", h)
		}
	})
	if err := os.Chmod(local, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if h := Look(Spec{Docker: []string{"web"}}, o)[0]; h.Denied != root {
			t.Errorf("%+v", h)
		}
	})
}

func TestAJournalThatMayNotBeReadSaysSo(t *testing.T) {
	dir := opened(t)
	spec := Spec{Journal: []string{"_SYSTEMD_UNIT=ssh.service", ""}, JournalDirs: []string{dir}}
	if h := Look(spec, Options{}); len(h) != 2 || h[0].Found != 0 || h[0].Cannot(Log{}) != "" {
		t.Errorf("without a journal: %+v", h)
	}
	put(t, dir+"/0123456789abcdef0123456789abcdef/user-1000.journal", "x", 0o644)
	file := put(t, dir+"/0123456789abcdef0123456789abcdef/system.journal", "x", 0)
	asNobody(t, func() {
		if h := Look(spec, Options{})[1]; h.Denied != file {
			t.Errorf("%+v", h)
		}
	})
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if h := Look(spec, Options{})[0]; h.Found != 1 || h.Cannot(Log{}) != "" {
			t.Errorf("%+v", h)
		}
	})
}
