// Package hostscan looks at a machine and says which topics have their service,
// and a log, here.
package hostscan

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"banmesh/topics"
)

// A Report is a look at a machine.
type Report struct {
	Topics []Found
	// Docker is the log driver of its containers by default, "" without Docker.
	Docker string
	Others []Other
}

// A Found is a topic whose service is here.
type Found struct {
	Definition *topics.Definition
	Why        string   // "sshd listens at port 22"
	Ports      []uint16 // at which others reach the service, as far as that can be seen, ascending
	Journal    bool     // its log is in the journal
	Files      []string // that exist
	Containers []string // whose names the definition knows
	// Journaled are those of them whose log Docker writes into the journal.
	Journaled []string
}

// Elsewhere gives the ports that the topic has to close in place of its
// definition's; none where those cover the service.
func (f *Found) Elsewhere() []uint16 {
	e := f.Definition.Enforce
	named := portsOf(e.Ports)
	if e.AllPorts || !slices.ContainsFunc(f.Ports, func(p uint16) bool { return !slices.Contains(named, p) }) {
		return nil
	}
	if len(named) <= 1 { // the service's only port was moved
		return f.Ports
	}
	all := append(named, f.Ports...)
	slices.Sort(all)
	return slices.Compact(all)
}

// portsOf gives the ports of a definition, whose ranges were checked when it was read.
func portsOf(ranges []string) (out []uint16) {
	for _, text := range ranges {
		from, to, ok := strings.Cut(text, "-")
		if !ok {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		for p := first; err1 == nil && err2 == nil && p <= last; p++ {
			out = append(out, uint16(p))
		}
	}
	return out
}

// HasLog says whether there is anything to read.
func (f *Found) HasLog() bool { return f.Journal || len(f.Files) > 0 || len(f.Containers) > 0 }

// programs are the names of the processes of topics' services; a topic that is
// not here is looked for by its own name.
var programs = map[string][]string{
	"sshd": {"sshd"}, "nginx": {"nginx"}, "web-probe": {"nginx", "apache2", "httpd", "caddy", "traefik"}, "postfix": {"master"}, "dovecot": {"dovecot"},
	"mongodb": {"mongod"}, "grafana": {"grafana", "grafana-server"}, "apache": {"apache2", "httpd"}, "mysqld": {"mysqld", "mariadbd"}, "exim": {"exim4", "exim"},
	"home-assistant": {"hass"}, "webmin": {"miniserv.pl"}, "gitlab": {"gitlab-workhorse", "gitlab-workhors"}, "openvpn": {"openvpn"}, "emby": {"EmbyServer"}, "servarr": {"Sonarr", "Radarr", "Lidarr", "Readarr", "Prowlarr", "Whisparr"},
}

// Look looks at the machine below root, which is "/" but in tests. Without
// privileges the ports of other users' processes are not seen.
func Look(root string, definitions []*topics.Definition) *Report {
	running := processes(root)
	containers := dockerContainers(root)
	journal := exists(root, "/run/log/journal") || exists(root, "/var/log/journal")
	r := &Report{Docker: dockerDriver(root), Others: others(root, running)}
	for _, d := range definitions {
		if d.Detect == nil {
			continue
		}
		f := Found{Definition: d}
		names, ok := programs[string(d.Name)]
		if !ok {
			names = []string{string(d.Name)}
		}
		for _, name := range names {
			ports, here := running[name]
			if !here {
				continue
			}
			f.Ports = slices.Clone(ports)
			f.Why = name + " runs"
			if len(ports) > 0 {
				f.Why = name + " listens at port " + join(ports)
			}
			f.Journal = journal && len(d.Detect.Journal) > 0
			break
		}
		f.look(root, containers)
		switch {
		case f.Why != "":
		case len(f.Containers) > 0:
			f.Why = "container " + strings.Join(f.Containers, ", ")
		case len(f.Files) > 0 && !shared(d):
			f.Why = "its log is here"
		default:
			continue
		}
		r.Topics = append(r.Topics, f)
	}
	return r
}

// Asked looks for the logs of a topic that a person chose, whether its service is
// seen here or not.
func Asked(root string, d *topics.Definition) Found {
	f := Found{Definition: d, Why: "asked for"}
	f.Journal = len(d.Detect.Journal) > 0 && (exists(root, "/run/log/journal") || exists(root, "/var/log/journal"))
	f.look(root, dockerContainers(root))
	return f
}

// look finds the files and containers that the topic reads. A file without a line
// says nothing about a service.
func (f *Found) look(root string, containers []container) {
	d := f.Definition
	for _, pattern := range d.Detect.Files {
		found, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, file := range found {
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
				if name := "/" + strings.TrimPrefix(strings.TrimPrefix(file, root), "/"); !slices.Contains(f.Files, name) { // several patterns may fit
					f.Files = append(f.Files, name)
				}
			}
		}
	}
	for _, c := range containers {
		if !slices.ContainsFunc(d.Detect.Docker, func(pattern string) bool { ok, _ := path.Match(pattern, c.name); return ok }) {
			continue
		}
		f.Containers = append(f.Containers, c.name)
		if c.driver == "journald" {
			f.Journaled = append(f.Journaled, c.name)
		}
		f.Ports = append(f.Ports, c.ports...)
	}
	slices.Sort(f.Ports)
	f.Ports = slices.Compact(f.Ports)
}

// shared says whether a topic's files are those of many services, so that their
// being there says nothing.
func shared(d *topics.Definition) bool {
	return slices.ContainsFunc(d.Detect.Files, func(f string) bool {
		base := path.Base(f)
		return base == "auth.log" || base == "syslog" || base == "mail.log" || base == "secure" || base == "messages" || base == "maillog" || base == "daemon.log"
	})
}

func join(ports []uint16) string {
	var out []string
	for _, p := range ports {
		out = append(out, strconv.Itoa(int(p)))
	}
	return strings.Join(out, ", ")
}

func exists(root, name string) bool {
	_, err := os.Stat(filepath.Join(root, name))
	return err == nil
}
