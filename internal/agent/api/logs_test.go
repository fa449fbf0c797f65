package api

import (
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
)

func TestALogsWarningNamesTheLogAndTheCommand(t *testing.T) {
	log := func(k source.Kind, name string, h source.Health, topics ...ban.Topic) detect.LogStatus {
		return detect.LogStatus{Log: source.Log{Kind: k, Name: name}, Topics: topics, Health: h}
	}
	d := detect.Status{Sources: []detect.SourceStatus{
		{Logs: []detect.LogStatus{
			log(source.KindFile, "/var/log/auth.log", source.Health{Found: 1}, "sshd"),
			log(source.KindFile, "/var/log/secure", source.Health{}, "sshd"), // another system's place
			log(source.KindFile, "/var/log/nginx/access.log", source.Health{Denied: "/var/log/nginx"}, "nginx", "web"),
		}},
		{Logs: []detect.LogStatus{
			log(source.KindContainer, "db", source.Health{Found: 1, Driver: "syslog"}, "mysql"),
			log(source.KindContainer, "app", source.Health{}, "gitea"),
			log(source.KindJournal, "_SYSTEMD_UNIT=ssh.service", source.Health{Found: 2}, "sshd"),
		}},
		// A warning that is over is not told for ever.
		{Status: source.Status{LastError: "an hour ago", LastErrorAt: time.Now().Add(-time.Hour)}, Logs: []detect.LogStatus{log(source.KindSyslog, "udp://127.0.0.1:514", source.Health{Found: -1}, "mail")}},
		{Status: source.Status{LastError: "address already in use", LastErrorAt: time.Now()}, Logs: []detect.LogStatus{log(source.KindSyslog, "udp://127.0.0.1:515", source.Health{Found: -1}, "mail")}},
	}}
	var got []string
	for _, w := range logWarnings(d) {
		got = append(got, w.Code+" "+w.Text)
	}
	want := []string{
		"source /var/log/nginx/access.log (nginx, web): permission denied: /var/log/nginx",
		"source container db (mysql): Docker's log driver syslog writes no file that can be read",
		"source address already in use",
		"log-missing gitea: none of its logs is there: container app",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	list := sources(d)
	if len(list) != 8 || list[2].Fix == "" || list[3].Name != "container db" || !strings.Contains(list[3].Fix, "json-file") || list[5].Name != "journal ssh.service" || list[6].Error != "" || list[7].Error == "" {
		t.Errorf("%+v", list)
	}
}

// A right on a container's log would go with the container.
func TestTheFixForAContainersLogLasts(t *testing.T) {
	denied := detect.LogStatus{Log: source.Log{Kind: source.KindContainer, Name: "app"}, Health: source.Health{Denied: "/var/lib/docker"}}
	if got := logFix(denied); !strings.Contains(got, "/etc/systemd/system/banmesh-agent.service.d") || strings.Contains(got, "setfacl") {
		t.Errorf("%s", got)
	}
}
