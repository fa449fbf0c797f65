package source

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func TestEverySyslogFormatIsRead(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct{ name, message, want string }{
		{"RFC 5424", `<34>1 2025-10-11T22:14:15.003Z mymachine.example.com su 42 ID47 - 'su root' failed`, "2025-10-11T22:14:15.003Z|mymachine.example.com|su|42|'su root' failed"},
		{"RFC 5424 with structured data and a byte order mark", `<165>1 2025-10-11T22:14:15Z h app - ID47 [a@1 b="c\"]d"][e@2 f="g"] ` + "\xEF\xBB\xBFtext", "2025-10-11T22:14:15Z|h|app|0|text"},
		{"RFC 5424 of nobody", `<13>1 - - - - - - text`, "-|||0|text"},
		{"RFC 3164", `<34>Oct 11 22:14:15 mymachine su[7]: 'su root' failed`, "2025-10-11T22:14:15Z|mymachine|su|7|'su root' failed"},
		{"RFC 3164 of this year", `<34>Jan  2 03:00:00 h su: x`, "2026-01-02T03:00:00Z|h|su|0|x"},
		{"with an ISO time", `<34>2026-01-01T00:00:00+01:00 h sshd[9]: x y`, "2025-12-31T23:00:00Z|h|sshd|9|x y"},
		{"without a host", `<34>Jan  2 03:00:00 sshd[9]: x y`, "2026-01-02T03:00:00Z||sshd|9|x y"},
		{"without anything", `hello world`, "-|||0|hello world"},
		{"without a priority", `Jan  2 03:00:00 h sshd: x`, "2026-01-02T03:00:00Z|h|sshd|0|x"},
	} {
		m, ok := parseSyslog([]byte(tt.message), now)
		at := "-"
		if !m.time.IsZero() {
			at = m.time.UTC().Format(time.RFC3339Nano)
		}
		got := fmt.Sprintf("%s|%s|%s|%d|%s", at, m.host, m.tag, m.pid, m.text)
		if !ok || got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	for _, bad := range []string{"", "<", "<34", "<999>x", "<34>", "<34>  ", "<a>x"} {
		if m, ok := parseSyslog([]byte(bad), now); ok {
			t.Errorf("%q was read as %+v", bad, m)
		}
	}
}

func TestSyslogOverUDPIsSpoofableAndOverTCPIsNot(t *testing.T) {
	t.Parallel()
	c := newCollector()
	r := run(t, Spec{Syslog: []string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0"}}, Position{}, Options{}, c.handle)
	r.ready(t, 2)
	address := map[string]string{}
	for _, s := range r.Status().Streams {
		network, a, _ := strings.Cut(s.Name, ":")
		address[network] = a
	}
	u, err := net.Dial("udp", address["udp"])
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	fmt.Fprint(u, "<34>Oct 11 22:14:15 h sshd[1]: over udp\n")
	c.wait(t, 1)
	s, err := net.Dial("tcp", address["tcp"])
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fmt.Fprintf(s, "<34>Oct 11 22:14:15 h sshd[1]: by a newline\n28 <34>1 - h sshd - - - counted<34>%s\n<34>x\n", strings.Repeat("y", 2*MaxLine))
	c.wait(t, 5)
	for i, want := range []string{"over udp", "by a newline", "counted", strings.Repeat("y", MaxLine), "x"} {
		if c.texts[i] != want || c.lines[i].Spoofable != (i == 0) {
			t.Errorf("line %d is %.40q, spoofable %t", i, c.texts[i], c.lines[i].Spoofable)
		}
	}
	if c.lines[4].Host != "127.0.0.1" || c.lines[0].Host != "h" {
		t.Errorf("hosts are %q and %q", c.lines[4].Host, c.lines[0].Host)
	}
	if st := r.Status(); st.Cut != 1 {
		t.Errorf("status says %+v", st)
	}
}

func TestStandardInputIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	in := "one\ntwo\r\n" + strings.Repeat("z", 3*MaxLine) + "\nlast"
	got, s := readOnce(t, Spec{Stdin: true}, Position{}, Options{Stdin: strings.NewReader(in)})
	if len(got.texts) != 4 || got.texts[1] != "two" || len(got.texts[2]) != MaxLine || got.texts[3] != "last" || s.Status().Cut != 1 {
		t.Errorf("%d lines, status %+v", len(got.texts), s.Status())
	}
}

func FuzzSyslog(f *testing.F) {
	f.Add([]byte(`<165>1 2025-10-11T22:14:15Z h app - ID47 [a@1 b="c\"]d"][e@2 f="g"] text`))
	f.Add([]byte("28 <34>1 - h sshd - - - counted<34>Oct 11 22:14:15 h su[7]: x\n"))
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := parseSyslog(b, now); ok && len(m.text)+len(m.tag)+len(m.host) > len(b) {
			t.Fatal("more came out than went in")
		}
		r := bufio.NewReaderSize(bytes.NewReader(b), MaxLine+16)
		for {
			message, _, err := readFrame(r)
			if len(message) > MaxLine+16 {
				t.Fatalf("a message of %d bytes", len(message))
			}
			if err != nil {
				break
			}
		}
	})
}

func TestStandardInputIsReadOnWhereTheSourceBeforeStopped(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	in := NewInput(r)
	read := func(write, until string) (got []string) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		s, err := Open(Spec{Stdin: true}, Position{}, Options{Stdin: in})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString(write); err != nil {
			t.Fatal(err)
		}
		if err := s.Run(ctx, func(l Line) error {
			got = append(got, string(l.Text))
			if string(l.Text) == until {
				stop()
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := read("one\ntwo\nthree ha", "two")
	second := read("lf\nfour\n", "four")
	if got := strings.Join(append(first, second...), ","); got != "one,two,three half,four" {
		t.Errorf("got %s", got)
	}
}
