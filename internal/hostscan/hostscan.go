// Package hostscan looks at a machine and says which topics have their service,
// and a log, here.
package hostscan

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"banmesh/internal/procnet"
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
	Ports      []uint16 // at which the service listens, as far as that can be seen
	Journal    bool     // its log is in the journal
	Files      []string // that exist
	Containers []string // whose names the definition knows
}

// HasLog says whether there is anything to read.
func (f *Found) HasLog() bool { return f.Journal || len(f.Files) > 0 || len(f.Containers) > 0 }

// An Other is a program that bans, or rules a firewall, beside us.
type Other struct{ Name, Text string }

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
			f.Ports = ports
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
func (f *Found) look(root string, containers []string) {
	d := f.Definition
	for _, pattern := range d.Detect.Files {
		found, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, file := range found {
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
				f.Files = append(f.Files, "/"+strings.TrimPrefix(strings.TrimPrefix(file, root), "/"))
			}
		}
	}
	for _, pattern := range d.Detect.Docker {
		for _, c := range containers {
			if ok, _ := path.Match(pattern, c); ok && !slices.Contains(f.Containers, c) {
				f.Containers = append(f.Containers, c)
			}
		}
	}
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

// processes gives the names of the processes that run, with the TCP ports at
// which each listens, ascending.
func processes(root string) map[string][]uint16 {
	listening := map[string]uint16{} // by inode
	if sockets, err := procnet.TCP(root); err == nil {
		for _, s := range sockets {
			if s.State == procnet.Listening {
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

// dockerContainers gives the names of all containers.
func dockerContainers(root string) (names []string) {
	files, _ := filepath.Glob(filepath.Join(root, "/var/lib/docker/containers/*/config.v2.json"))
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || info.Size() > 1<<20 {
			continue
		}
		b, err := os.ReadFile(file)
		var c struct{ Name string }
		if err == nil && json.Unmarshal(b, &c) == nil && c.Name != "" {
			names = append(names, strings.TrimPrefix(c.Name, "/"))
		}
	}
	slices.Sort(names)
	return names
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

// others gives the programs with our task, or rule the firewall.
func others(root string, running map[string][]uint16) (out []Other) {
	_, fail2ban := running["fail2ban-server"]
	_, crowdsec := running["crowdsec"]
	_, firewalld := running["firewalld"]
	for _, o := range []struct {
		here       bool
		name, text string
	}{
		{fail2ban, "fail2ban", "runs here: `agent import fail2ban --dry-run` shows what its jails become, and docs/compat/fail2ban.md how both run side by side"},
		{crowdsec, "CrowdSec", "runs here: its bouncers can enforce these bans too, see docs/compat/crowdsec-bouncers.md"},
		{exists(root, "/etc/csf/csf.conf"), "CSF", "is here: it flushes iptables when it restarts; nftables tables of others stay"},
		{firewalld, "firewalld", "runs here: its reload leaves other programs' nftables tables alone"},
		{exists(root, "/etc/ufw/ufw.conf") && enabled(root, "/etc/ufw/ufw.conf"), "ufw", "is on: it and the agent's nftables table do not touch each other"},
	} {
		if o.here {
			out = append(out, Other{o.name, o.text})
		}
	}
	return out
}

func enabled(root, file string) bool {
	b, err := os.ReadFile(filepath.Join(root, file))
	return err == nil && strings.Contains(string(b), "ENABLED=yes")
}
