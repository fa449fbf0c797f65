package xarf

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
)

var last = time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)

func incident() Incident {
	return Incident{
		Address: netip.MustParseAddr("::ffff:203.0.113.9"), Port: 4711, First: last.Add(-time.Minute), Last: last,
		Class: ban.ClassAuth, Topic: "sshd", Count: 5, Line: "Failed password for root",
	}
}

func party(t *testing.T) Party {
	t.Helper()
	p, err := NewParty("Example", "mailto:abuse@example.org")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// required are the fields that the format wants of every report, and of those of
// the category connection.
var required = []string{"xarf_version", "report_id", "timestamp", "reporter", "sender", "source_identifier", "source_port", "category", "type", "protocol", "first_seen"}

func TestAReportHasWhatTheFormatWants(t *testing.T) {
	r, err := New(incident(), party(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for _, f := range required {
		if m[f] == nil || m[f] == "" {
			t.Errorf("no %s in %s", f, b)
		}
	}
	if m["source_identifier"] != "203.0.113.9" || m["type"] != "login_attack" || m["first_seen"] != "2026-11-28T09:59:00Z" || r.Reporter.Domain != "example.org" {
		t.Errorf("the report is %s", b)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(r.ReportID) {
		t.Errorf("%s is no UUID", r.ReportID)
	}
	line, err := base64.StdEncoding.DecodeString(r.Evidence[0].Payload)
	if err != nil || string(line) != "Failed password for root" {
		t.Errorf("the evidence is %q, %v", line, err)
	}
	i := incident()
	i.Line = ""
	if r, err := New(i, party(t)); err != nil || r.Evidence != nil {
		t.Errorf("a line that is kept: %v, %v", r.Evidence, err)
	}
}

func TestAnIncidentThatCannotBeReportedIsRefused(t *testing.T) {
	for claim, c := range map[string]struct {
		change func(*Incident)
		want   error
	}{
		"without a port":   {func(i *Incident) { i.Port = 0 }, ErrPort},
		"banned by hand":   {func(i *Incident) { i.Class = ban.ClassManual }, ErrClass},
		"without a time":   {func(i *Incident) { i.First = time.Time{} }, nil},
		"before its start": {func(i *Incident) { i.Last = i.First.Add(-time.Second) }, nil},
		"of nobody":        {func(i *Incident) { i.Address = netip.Addr{} }, nil},
	} {
		i := incident()
		c.change(&i)
		if _, err := New(i, party(t)); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", claim, err)
		}
	}
	for _, c := range [][2]string{{"", "a@example.org"}, {"x", ""}, {"x", "https://example.org"}} {
		if _, err := NewParty(c[0], c[1]); !errors.Is(err, ErrParty) {
			t.Errorf("%q: %v", c, err)
		}
	}
}

func TestAReportIsMailedWithItsAttachment(t *testing.T) {
	r, err := New(incident(), party(t))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := r.Mail("abuse@example.net")
	if err != nil {
		t.Fatal(err)
	}
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || m.Header.Get("X-XARF") != "PLAIN" || m.Header.Get("To") != "<abuse@example.net>" {
		t.Errorf("the header is %v, %v", m.Header, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	text, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(text)
	if err != nil || !strings.Contains(string(b), "login attack from port 4711 of 203.0.113.9") {
		t.Errorf("the text is %q, %v", b, err)
	}
	file, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	b, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, file))
	if err != nil {
		t.Fatal(err)
	}
	var attached Report
	if err := json.Unmarshal(b, &attached); err != nil || attached.ReportID != r.ReportID {
		t.Errorf("the attachment is %s, %v", b, err)
	}
	for _, to := range []string{"", "nobody", "a@b.example\r\nBcc: c@d.example"} {
		if _, err := r.Mail(to); err == nil {
			t.Errorf("mailed to %q", to)
		}
	}
}
