package detect

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/topics"
)

// definition gives a shipped topic.
func definition(t *testing.T, name string) *topics.Definition {
	t.Helper()
	for _, d := range topics.Builtin() {
		if string(d.Name) == name {
			return d
		}
	}
	t.Fatalf("no topic %s is shipped", name)
	return nil
}

// TestSshdsLinesAreFoundHoweverTheyAreWritten has each form of a line that
// shows an attempt, in every kind of log file, and those that show none.
func TestSshdsLinesAreFoundHoweverTheyAreWritten(t *testing.T) {
	const peer = "192.0.2.7"
	sampler, err := detect.NewSampler(definition(t, "sshd"), time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	found := func(line string) string { return blamed(sampler.Find(topics.Sample{Line: line})) }
	const failed = "Failed password for root from " + peer + " port 51234 ssh2"
	for _, head := range []string{
		"Nov 21 09:14:02 web1 sshd[1]: ", "Nov 21 09:14:02 web1 sshd-session[1]: ", "Nov 21 09:14:02 web1 sshd-auth[1]: ",
		"2026-11-21T09:14:02.123456+01:00 web1 sshd[1]: ", "2026-11-21T09:14:02+01:00 web1 sshd[1]: ", "2026-11-21T09:14:02Z web1 sshd[1]: ",
		"2026-11-21T09:14:02 web1 sshd[1]: ", "2026-11-21 09:14:02 web1 sshd[1]: ", "<38>Nov 21 09:14:02 web1 sshd[1]: ",
		"<38>1 2026-11-21T09:14:02.123456+01:00 web1 sshd 4711 - - ", `<38>1 2026-11-21T09:14:02.123456+01:00 web1 sshd 4711 - [meta sequenceId="1"] `,
	} {
		for _, line := range []string{head + failed, head + failed + " ", head + "message repeated 3 times: [ " + failed + "]"} {
			if got := found(line); got != peer {
				t.Errorf("%q: %q", line, got)
			}
		}
	}
	for _, message := range []string{
		"Disconnected from invalid user ftp 192.0.2.7 port 26138 [preauth]",
		"error: PAM: User not known to the underlying authentication module for illegal user test from 192.0.2.7",
		"error: PAM: authentication error for root from 192.0.2.7",
		"Unable to negotiate with 192.0.2.7 port 4: no matching key exchange method found. Their offer: diffie-hellman-group1-sha1 [preauth]",
		"fatal: Unable to negotiate with 192.0.2.7 port 4: no matching host key type found. Their offer: ssh-rsa,ssh-dss [preauth]",
		"banner exchange: Connection from 192.0.2.7 port 4: invalid format",
		"banner exchange: Connection from 192.0.2.7 port 4: could not read protocol version",
		"Connection closed by 192.0.2.7 port 4 [preauth]", "Connection reset by 192.0.2.7 port 4 [preauth]",
		"Connection closed by invalid user a 192.0.2.7 port 4 [preauth]", "Connection reset by authenticating user root 192.0.2.7 port 4 [preauth]",
		"Disconnecting authenticating user root 192.0.2.7 port 4: Too many authentication failures [preauth]",
		"Disconnecting invalid user a 192.0.2.7 port 4: Too many authentication failures [preauth]",
		"error: maximum authentication attempts exceeded for invalid user a from 192.0.2.7 port 4 ssh2 [preauth]",
		"drop connection #3 from [192.0.2.7]:50000 on [198.51.100.1]:22 penalty: failed authentication",
		"drop connection #11 from [192.0.2.7]:50000 on [198.51.100.1]:22 past MaxStartups", "drop connection #11 from [192.0.2.7]:50000 on [198.51.100.1]:22 Maxstartups",
	} {
		if got := found("Nov 21 09:14:02 web1 sshd[1]: " + message); got != peer {
			t.Errorf("%q: %q", message, got)
		}
	}
	for _, message := range []string{
		// The address behind "via" is this host's; sshd's own line follows on PAM's, and counts.
		"error: PAM: Authentication failure for root from host.example.org via 192.0.2.7",
		"pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
		"Connection closed by 192.0.2.7 port 51234", "Received disconnect from 192.0.2.7 port 51234:11: disconnected by user",
	} {
		if got := found("Nov 21 09:14:02 web1 sshd[1]: " + message); got != "" {
			t.Errorf("%q: %q", message, got)
		}
	}
}

// bans gives whom a topic bans for a log.
func bans(t *testing.T, topic string, lines ...string) (list []string) {
	t.Helper()
	o := detect.Options{Jails: []detect.Jail{{Definition: definition(t, topic)}}}
	_, err := detect.Replay(t.Context(), o, strings.NewReader(strings.Join(lines, "\n")+"\n"), "log", time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC), func(v detect.Decision) error {
		list = append(list, fmt.Sprintf("%s %d", v.Target, v.Hits))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestARepeatedMessageCountsAsOftenAsItSays(t *testing.T) {
	const line = "Nov 21 09:14:02 web1 sshd[1]: message repeated %s times: [ Failed password for root from 192.0.2.7 port 51234 ssh2]"
	for times, want := range map[string][]string{"4": nil, "5": {"192.0.2.7 5"}, "9999999999": {"192.0.2.7 100"}, "1000": {"192.0.2.7 100"}} {
		if got := bans(t, "sshd", fmt.Sprintf(line, times)); !slices.Equal(got, want) {
			t.Errorf("repeated %s times: %q, want %q", times, got, want)
		}
	}
}

func TestATimeInAFieldIsTheLinesTime(t *testing.T) {
	line := func(at float64) string {
		return fmt.Sprintf(`{"level":"error","ts":%.2f,"logger":"http.log.access","msg":"handled request","request":{"remote_ip":"192.0.2.70","client_ip":"192.0.2.70","method":"POST","uri":"/login","headers":{"Authorization":["REDACTED"]}},"status":401}`, at)
	}
	const first, day = 1794734042.12, 86400
	var days, minutes []string
	for i := range 6 {
		days = append(days, line(first+day*float64(i)))
		minutes = append(minutes, line(first+60*float64(i)))
	}
	if got := bans(t, "caddy", days...); len(got) > 0 {
		t.Errorf("six failures in six days: %q", got)
	}
	if got := bans(t, "caddy", minutes...); !slices.Equal(got, []string{"192.0.2.70 5"}) {
		t.Errorf("six failures in six minutes: %q", got)
	}
}

func TestABlankOrADateInAUsersNameHidesNoGuesser(t *testing.T) {
	var lines []string
	for i := range 10 {
		user := []string{"-", "a b", "2005-01-01T00", `x\x22 [y]`}[i%4]
		lines = append(lines, fmt.Sprintf(`192.0.2.66 - %s [28/Nov/2026:00:55:%02d +0000] "GET /api/conferenceMapper?id=%d HTTP/1.0" 404 153 "-" "-"`, user, i, i))
	}
	if got := bans(t, "conference-pin", lines...); !slices.Equal(got, []string{"192.0.2.66 10"}) {
		t.Errorf("%q", got)
	}
	for _, path := range []string{"/ping", "/shopping", "/pinboard", "/opinions"} {
		var honest []string
		for i := range 40 {
			honest = append(honest, fmt.Sprintf(`192.0.2.66 - - [28/Nov/2026:00:55:%02d +0000] "GET %s HTTP/1.0" 404 153 "-" "-"`, i, path))
		}
		if got := bans(t, "conference-pin", honest...); len(got) > 0 {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// TestATryThatSeveralLinesTellOfCountsOnce: an honest client that is wrong four times in ten
// minutes is not banned for how talkative its server is, and a guesser is banned by whichever line there is.
func TestATryThatSeveralLinesTellOfCountsOnce(t *testing.T) {
	t.Parallel()
	for topic, tries := range map[string][][]string{
		"postfix": {
			{"mail postfix/smtpd[1]: warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: UGFzc3dvcmQ6", "mail postfix/smtpd[1]: lost connection after AUTH from unknown[192.0.2.7]", "mail postfix/smtpd[1]: disconnect from unknown[192.0.2.7] ehlo=1 auth=0/1 commands=1/2"},
			{"mail postfix/smtpd[1]: lost connection after AUTH from unknown[192.0.2.7]"},
		},
		"dovecot": {
			{"mail auth: pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser=me rhost=192.0.2.7", "mail dovecot: auth: pam(me,192.0.2.7,<abc>): unknown user", "mail dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<me>, method=PLAIN, rip=192.0.2.7, lip=198.51.100.9, TLS, session=<abc>"},
			{"mail dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<me>, method=PLAIN, rip=192.0.2.7, lip=198.51.100.9, TLS, session=<abc>"},
		},
	} {
		for _, lines := range tries {
			for n, want := range map[int]bool{4: false, 5: true} {
				var log strings.Builder
				for i := range n {
					for _, line := range lines {
						fmt.Fprintf(&log, "Nov 21 09:1%d:02 %s\n", i, line)
					}
				}
				banned := false
				at := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
				_, err := detect.Replay(t.Context(), detect.Options{Jails: []detect.Jail{{Definition: definition(t, topic)}}}, strings.NewReader(log.String()), "log", at, func(detect.Decision) error {
					banned = true
					return nil
				})
				if err != nil || banned != want {
					t.Errorf("%s, %d tries of %d lines: banned %t, %v", topic, n, len(lines), banned, err)
				}
			}
		}
	}
}
