package doctor

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// serviceUser is whom the shipped unit runs the agent as, and serviceGroups
// are those that the unit adds.
const serviceUser = "banmesh"

var serviceGroups = []string{"systemd-journal", "adm"}

// someone is a user as the kernel sees one.
type someone struct {
	name   string
	uid    uint32
	groups []uint32
	all    bool // may read every file
}

// theService gives the user of the service, if this machine has one.
func theService() (who someone, ok bool) {
	u, err := user.Lookup(serviceUser)
	if err != nil {
		return who, false
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return who, false
	}
	groups, _ := u.GroupIds()
	more, all := unitRights(dropIns)
	for _, name := range more {
		if g, err := user.LookupGroup(name); err == nil {
			groups = append(groups, g.Gid)
		}
	}
	who = someone{name: serviceUser, uid: uint32(uid), all: all}
	for _, g := range groups {
		if id, err := strconv.ParseUint(g, 10, 32); err == nil {
			who.groups = append(who.groups, uint32(id))
		}
	}
	return who, true
}

// dropIns extend the unit of the service on this machine.
const dropIns = "/etc/systemd/system/banmesh-agent.service.d/*.conf"

// unitRights gives the groups that the service has beside the user's own, and says whether
// it may read every file.
func unitRights(pattern string) (groups []string, all bool) {
	groups = serviceGroups
	files, _ := filepath.Glob(pattern)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch words := strings.Fields(value); strings.TrimSpace(name) {
			case "SupplementaryGroups":
				groups = append(slices.Clone(groups), words...)
			case "AmbientCapabilities":
				all = all || slices.Contains(words, "CAP_DAC_READ_SEARCH")
			}
		}
	}
	return groups, all
}

// Withheld says which of the files the service's user may not read, and the
// command that changes it; nothing on a machine without the service.
func Withheld(files []string) []Finding {
	if who, ok := theService(); ok {
		return who.withheld(files)
	}
	return nil
}

// withheld says which of the files someone may not read, and the command that
// changes it.
func (w someone) withheld(files []string) (out []Finding) {
	for _, name := range files {
		for at := name; ; at = filepath.Dir(at) {
			bit := os.FileMode(4)
			if at != name {
				bit = 1 // to go through a directory
			}
			if info, err := os.Stat(at); err == nil && !w.may(info, bit) {
				out = append(out, Finding{
					Check: "readable", Level: LevelWrong, Text: fmt.Sprintf("%s: the service's user %s may not read it", name, w.name),
					Fix: AccessFix(w.name, at, bit),
				})
				break
			}
			if at == "/" || at == "." {
				break
			}
		}
	}
	return out
}

// AccessFix gives the command after which a user has rights on a path: 4 to read and 1
// to go through, as in a file's mode. The user joins the path's group where that has
// rights already, which others may need; otherwise the group becomes the user's own.
func AccessFix(name, path string, rights os.FileMode) string {
	add := fmt.Sprintf("chmod g+%s %s", map[os.FileMode]string{1: "x", 4: "r", 5: "rx"}[rights], path)
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Sprintf("chgrp %s %s && %s", name, path, add)
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if has := info.Mode() >> 3 & 7; ok && has != 0 && s.Gid != 0 {
		g, err := user.LookupGroupId(strconv.FormatUint(uint64(s.Gid), 10))
		switch {
		case err != nil || g.Name == name:
		case has&rights == rights:
			return fmt.Sprintf("usermod -aG %s %s && systemctl restart banmesh-agent", g.Name, name)
		default:
			return fmt.Sprintf("%s && usermod -aG %s %s && systemctl restart banmesh-agent", add, g.Name, name)
		}
	}
	return fmt.Sprintf("chgrp %s %s && %s", name, path, add)
}

func (w someone) may(info os.FileInfo, bit os.FileMode) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case !ok || w.uid == 0 || w.all:
		return true
	case s.Uid == w.uid:
		return mode>>6&bit != 0
	case slices.Contains(w.groups, s.Gid):
		return mode>>3&bit != 0
	}
	return mode&bit != 0
}
