package hostscan

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banmesh/internal/procnet"
)

// processes gives the names of the processes that run, with the TCP ports at
// which others reach each, ascending.
func processes(root string) map[string][]uint16 {
	listening := map[string]uint16{} // by inode
	if sockets, err := procnet.TCP(root); err == nil {
		for _, s := range sockets {
			if s.State == procnet.Listening && !s.Local.Addr().IsLoopback() {
				listening["socket:["+s.Inode+"]"] = s.Local.Port()
			}
		}
	}
	out := map[string][]uint16{}
	dirs, _ := filepath.Glob(filepath.Join(root, "/proc/[0-9]*"))
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		name := strings.TrimSpace(string(b))
		out[name] = append(out[name], nil...)
		entries, _ := os.ReadDir(filepath.Join(dir, "fd")) // of others: root alone
		for _, e := range entries {
			to, err := os.Readlink(filepath.Join(dir, "fd", e.Name()))
			if port, ok := listening[to]; err == nil && ok && !slices.Contains(out[name], port) {
				out[name] = append(out[name], port)
			}
		}
	}
	for name := range out {
		slices.Sort(out[name])
	}
	return out
}
