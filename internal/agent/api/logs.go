package api

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
	"banmesh/internal/doctor"
)

// sources gives the named logs that are read.
func sources(d detect.Status) []control.SourceStatus {
	list := []control.SourceStatus{}
	for _, x := range d.Sources {
		for _, l := range x.Logs {
			s := control.SourceStatus{
				Name: LogName(l.Log), Kind: string(l.Kind), Log: l.Name, Topics: l.Topics, Found: l.Health.Found, Driver: l.Health.Driver,
				Read: l.Count.Read, Matched: l.Count.Matched, Ignored: l.Count.Ignored, Unmatched: l.Count.Unmatched,
				Backlog: l.Backlog, LastLine: l.Count.LastLine, Error: l.Health.Cannot(l.Log),
			}
			if s.Error == "" && l.Kind == source.KindSyslog {
				s.Error = recent(x.Status)
			}
			if s.Error != "" {
				s.Fix = logFix(l)
			}
			list = append(list, s)
		}
	}
	return list
}

// LogName names a log for people, as short as it is clear: a journal match by
// its values, but for the user that a service runs as.
func LogName(l source.Log) string {
	switch l.Kind {
	case source.KindJournal:
		var values []string
		for _, word := range strings.Fields(l.Name) {
			field, v, ok := strings.Cut(strings.Trim(word, `"'`), "=")
			if ok && field != "_UID" && !slices.Contains(values, v) {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			return "journal, all of it"
		}
		return "journal " + strings.Join(values, " ")
	case source.KindContainer:
		return "container " + l.Name
	}
	return l.Name
}

// errorFor is how long a failure to read is told after it was the last one: a
// log that cannot be read fails again and again.
const errorFor = 2 * time.Minute

// recent gives a source's last failure to read, "" where it is over.
func recent(st source.Status) string {
	if st.LastError == "" || time.Since(st.LastErrorAt) > errorFor {
		return ""
	}
	return st.LastError
}

// logWarnings gives the conditions of logs that are not read.
func logWarnings(d detect.Status) (list []control.Warning) {
	there, wanted := map[ban.Topic]bool{}, map[ban.Topic][]string{}
	var order []ban.Topic
	for _, x := range d.Sources {
		told := false
		for _, l := range x.Logs {
			missing := l.Health.Found == 0
			if why := l.Health.Cannot(l.Log); why != "" {
				told, missing = true, false // one fault is told once
				list = append(list, Source.Warn(fmt.Sprintf("%s (%s): %s", LogName(l.Log), topicList(l.Topics), why), logFix(l)))
			}
			for _, t := range l.Topics {
				if wanted[t] == nil {
					order = append(order, t)
				}
				wanted[t] = append(wanted[t], LogName(l.Log))
				there[t] = there[t] || !missing
			}
		}
		if why := recent(x.Status); why != "" && !told {
			list = append(list, Source.Warn(why, ""))
		}
	}
	for _, t := range order {
		if !there[t] {
			list = append(list, LogMissing.Warn(fmt.Sprintf("%s: none of its logs is there: %s", t, strings.Join(wanted[t], ", ")),
				fmt.Sprintf("name the log in [topics.%s] of agent.toml (files, journal or docker); or agent topics ignore %s", t, t)))
		}
	}
	return list
}

func topicList(topics []ban.Topic) string {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = string(t)
	}
	return strings.Join(names, ", ")
}

// logFix gives the command that lets a log be read.
func logFix(l detect.LogStatus) string {
	switch h := l.Health; {
	case h.Denied != "" && l.Kind == source.KindContainer:
		return containersFix(examples)
	case h.Denied != "":
		return permissionFix(h.Denied)
	case h.Driver == "journald":
		return fmt.Sprintf("journal = [\"CONTAINER_NAME=%s\"] in the topic, in place of docker", l.Name)
	case h.Driver != "":
		return fmt.Sprintf("make the container again with --log-driver local or json-file, or with journald and journal = [\"CONTAINER_NAME=%s\"]", l.Name)
	}
	return ""
}

// examples is where a package has its examples.
const examples = "/usr/share/doc/banmesh/examples"

// containersFix gives the command that lets the service read containers' logs.
// Docker makes the file and its directory anew with each container, so a right on
// the path would not last.
func containersFix(examples string) string {
	file := filepath.Join(examples, "logs.conf")
	if _, err := os.Stat(file); err != nil {
		file = "deploy/systemd/logs.conf" // of the sources
	}
	return fmt.Sprintf("install -Dm644 -t /etc/systemd/system/banmesh-agent.service.d %s && systemctl daemon-reload && systemctl restart banmesh-agent  # it may read every file then: docs/recipes.md, Logs of root", file)
}

// permissionFix gives the command that lets this process's user read a path.
func permissionFix(path string) string {
	name := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return doctor.AccessFix(name, path, 5) // to list it and to go through
	}
	return doctor.AccessFix(name, path, 4) + "  # a log that rotates: docs/recipes.md, Logs of root"
}
