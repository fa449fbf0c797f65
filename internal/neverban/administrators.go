package neverban

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"banmesh/internal/procnet"
)

// administrators adds the addresses of people who are logged in: from logind's
// sessions, from utmp, and from connections of sshd processes that have
// authenticated someone. A connection that has not is an attacker as likely as
// not.
func (d *discovery) administrators() {
	d.logind()
	for _, s := range parseUtmp(d.read("run/utmp")) {
		d.addr(s.addr, SourceAdmin, "login of "+s.user+" on "+s.line)
	}
	d.sshSessions()
}

// logind reads the session files of systemd-logind. They are private to
// systemd, which has kept these two keys since 2011; where they are missing the other
// ways remain.
func (d *discovery) logind() {
	dir := filepath.Join("/", d.o.Root, "run/systemd/sessions")
	files, err := os.ReadDir(dir)
	if err != nil {
		return // no logind here
	}
	for _, f := range files {
		if !f.Type().IsRegular() {
			continue
		}
		values := map[string]string{}
		for line := range strings.Lines(string(d.read(filepath.Join("run/systemd/sessions", f.Name())))) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				values[key] = value
			}
		}
		if values["REMOTE"] != "1" || values["STATE"] == "closing" {
			continue
		}
		if a, err := netip.ParseAddr(values["REMOTE_HOST"]); err == nil {
			d.addr(a, SourceAdmin, "session "+f.Name()+" of "+cmpOr(values["USER"], "uid "+values["UID"]))
		}
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// session is a login that utmp knows.
type session struct {
	user, line string
	addr       netip.Addr
}

// parseUtmp reads glibc's utmp records of user processes (utmp(5)): 384 bytes
// each on Linux where time fields have 32 bits.
func parseUtmp(b []byte) (list []session) {
	const (
		size, userProcess                  = 384, 7
		lineAt, userAt, hostAt, addrAt     = 8, 44, 76, 348
		lineLength, userLength, hostLength = 32, 32, 256
	)
	for ; len(b) >= size; b = b[size:] {
		if binary.NativeEndian.Uint16(b) != userProcess {
			continue
		}
		s := session{user: text(b[userAt : userAt+userLength]), line: text(b[lineAt : lineAt+lineLength])}
		if a, err := netip.ParseAddr(text(b[hostAt : hostAt+hostLength])); err == nil {
			s.addr = a
		} else if raw := [16]byte(b[addrAt : addrAt+16]); bytes.Equal(raw[4:], make([]byte, 12)) {
			s.addr = netip.AddrFrom4([4]byte(raw[:4]))
		} else {
			s.addr = netip.AddrFrom16(raw)
		}
		if !s.addr.IsUnspecified() {
			list = append(list, s)
		}
	}
	return list
}

// text is a C string without control characters.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return '?'
		}
		return r
	}, string(b))
}

// sshSessions adds the far ends of sshd's authenticated connections. After
// authentication OpenSSH titles the process that holds the connection
// "sshd: NAME@TTY" ("sshd-session: ..." from 9.8 on); before, the title ends in
// "[priv]", "[net]", "[preauth]" or "[accepted]".
func (d *discovery) sshSessions() {
	if runtime.GOOS != "linux" {
		return
	}
	proc := filepath.Join("/", d.o.Root, "proc")
	entries, err := os.ReadDir(proc)
	if err != nil {
		return
	}
	inodes := map[string]string{} // socket inode -> process title
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		title, ok := authenticated(cmdline)
		if !ok {
			continue
		}
		fds, err := os.ReadDir(filepath.Join(proc, e.Name(), "fd"))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			link, err := os.Readlink(filepath.Join(proc, e.Name(), "fd", fd.Name()))
			if inode, ok := strings.CutPrefix(link, "socket:["); err == nil && ok {
				inodes[strings.TrimSuffix(inode, "]")] = title
			}
		}
	}
	if len(inodes) == 0 {
		return
	}
	for _, path := range []string{"proc/net/tcp", "proc/net/tcp6"} {
		for _, s := range procnet.Parse(d.read(path)) {
			if title, ok := inodes[s.Inode]; ok && s.State == procnet.Established {
				d.addr(s.Remote.Addr(), SourceAdmin, "connection of "+title)
			}
		}
	}
}

// authenticated recognises the title of an authenticated sshd process.
func authenticated(cmdline []byte) (title string, ok bool) {
	title = strings.TrimSpace(text(cmdline))
	rest, ok := strings.CutPrefix(title, "sshd: ")
	if !ok {
		rest, ok = strings.CutPrefix(title, "sshd-session: ")
	}
	_, tty, at := strings.Cut(rest, "@")
	return title, ok && at && tty != "" && !strings.ContainsAny(rest, " []")
}
