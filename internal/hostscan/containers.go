package hostscan

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// DockerRoot is where Docker keeps its containers.
const DockerRoot = "/var/lib/docker/containers"

// maxContainer bounds a file about a container, in bytes.
const maxContainer = 1 << 20

// A container is one of Docker's.
type container struct {
	name   string
	driver string   // of its log
	ports  []uint16 // of this machine, TCP, that lead to it, ascending
}

// dockerContainers gives all containers, by name.
func dockerContainers(root string) (list []container) {
	dirs, _ := filepath.Glob(filepath.Join(root, DockerRoot, "*"))
	for _, dir := range dirs {
		var c struct{ Name string }
		var host struct {
			LogConfig    struct{ Type string }
			PortBindings map[string][]struct{ HostIP, HostPort string }
		}
		if !readJSON(filepath.Join(dir, "config.v2.json"), &c) || c.Name == "" {
			continue
		}
		readJSON(filepath.Join(dir, "hostconfig.json"), &host)
		x := container{name: strings.TrimPrefix(c.Name, "/"), driver: host.LogConfig.Type}
		for inside, bindings := range host.PortBindings {
			for _, b := range bindings {
				at, err := netip.ParseAddr(b.HostIP)
				port, fault := strconv.ParseUint(b.HostPort, 10, 16)
				if strings.HasSuffix(inside, "/tcp") && fault == nil && port > 0 && (err != nil || !at.IsLoopback()) {
					x.ports = append(x.ports, uint16(port))
				}
			}
		}
		slices.Sort(x.ports)
		x.ports = slices.Compact(x.ports)
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b container) int { return strings.Compare(a.name, b.name) })
	return list
}

// readJSON reads a file of another program; false where it is none of its kind.
func readJSON(file string, to any) bool {
	info, err := os.Stat(file)
	if err != nil || info.Size() > maxContainer {
		return false
	}
	b, err := os.ReadFile(file)
	return err == nil && json.Unmarshal(b, to) == nil
}

// dockerDriver gives the log driver that Docker's daemon uses by default.
func dockerDriver(root string) string {
	if !exists(root, "/var/lib/docker") {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(root, "/etc/docker/daemon.json"))
	var c struct {
		Driver string `json:"log-driver"`
	}
	if err == nil && json.Unmarshal(b, &c) == nil && c.Driver != "" {
		return c.Driver
	}
	return "json-file"
}
