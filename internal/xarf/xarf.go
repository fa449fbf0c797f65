// Package xarf writes reports to abuse desks in the format XARF, version 4
// (xarf.org): one incident, one report.
package xarf

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/netip"
	"net/textproto"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// Version is the version of the format.
const Version = "4.2.0"

const (
	// maxDescription and maxEvidence are limits of the format, in characters and
	// bytes: a log line fits many times.
	maxDescription = 1000
	maxEvidence    = 4096
)

// A Report is one incident. Fields are the format's.
type Report struct {
	XARFVersion string     `json:"xarf_version"`
	ReportID    string     `json:"report_id"` // a UUID
	Timestamp   time.Time  `json:"timestamp"` // of the incident
	Reporter    Party      `json:"reporter"`
	Sender      Party      `json:"sender"`
	Source      netip.Addr `json:"source_identifier"`
	SourcePort  uint16     `json:"source_port"`
	Category    string     `json:"category"`
	Type        string     `json:"type"`
	Protocol    string     `json:"protocol"`
	FirstSeen   time.Time  `json:"first_seen"`
	Description string     `json:"description,omitempty"`
	Evidence    []Evidence `json:"evidence,omitempty"`
	Tags        []string   `json:"tags,omitempty"`
}

// Party is who reports.
type Party struct {
	Org     string `json:"org"`
	Contact string `json:"contact"` // a mail address
	Domain  string `json:"domain"`
}

// Evidence is a piece of proof.
type Evidence struct {
	ContentType string `json:"content_type"`
	Description string `json:"description"`
	Payload     string `json:"payload"` // base64
	Hash        string `json:"hash"`    // sha256:HEX of the bytes
}

// An Incident is a node's knowledge of an offender.
type Incident struct {
	Address     netip.Addr
	Port        uint16 // the offender's, 0 where no line named it
	First, Last time.Time
	Class       ban.Class
	Topic       ban.Topic
	Count       int
	Line        string // of the log, "" to keep it
}

// Errors that callers branch on.
var (
	ErrPort  = errors.New("no log line named the client's port, and a report of an address needs it: many customers may share the address")
	ErrClass = errors.New("no kind of report fits")
	ErrParty = errors.New("a report names who reports: an organisation and a mail address")
)

// kinds are the format's types by class; all of the category connection.
var kinds = map[ban.Class]string{
	ban.ClassAuth: "login_attack", ban.ClassInvalidUser: "login_attack", ban.ClassScan: "reconnaissance", ban.ClassScanWeak: "reconnaissance",
	ban.ClassExploit: "vulnerability_scan", ban.ClassFlood: "ddos",
}

// NewParty makes a party of an organisation's name and a mail address, which may
// begin with mailto:.
func NewParty(org, contact string) (Party, error) {
	a, err := mail.ParseAddress(strings.TrimPrefix(contact, "mailto:"))
	if err != nil || org == "" {
		return Party{}, ErrParty
	}
	_, domain, _ := strings.Cut(a.Address, "@")
	return Party{Org: org, Contact: a.Address, Domain: domain}, nil
}

// New makes a report.
func New(i Incident, by Party) (Report, error) {
	kind, ok := kinds[i.Class]
	switch {
	case !ok:
		return Report{}, fmt.Errorf("%w: the offences are of class %s", ErrClass, i.Class)
	case i.Port == 0:
		return Report{}, ErrPort
	case !i.Address.IsValid() || i.First.IsZero() || i.Last.Before(i.First):
		return Report{}, errors.New("an incident has an address, and a first and a last time")
	}
	text := fmt.Sprintf("%d offences between %s and %s, found by the rules for %s.", max(i.Count, 1), i.First.UTC().Format(time.RFC3339), i.Last.UTC().Format(time.RFC3339), i.Topic)
	r := Report{
		XARFVersion: Version, ReportID: newUUID(), Timestamp: i.Last.UTC(), Reporter: by, Sender: by, Source: i.Address.Unmap(), SourcePort: i.Port,
		Category: "connection", Type: kind, Protocol: "tcp", FirstSeen: i.First.UTC(), Description: text[:min(len(text), maxDescription)],
		Tags: []string{"banmesh:" + string(i.Topic)},
	}
	if i.Line != "" {
		line := strings.ToValidUTF8(i.Line, "?")
		line = strings.ToValidUTF8(line[:min(len(line), maxEvidence)], "")
		sum := sha256.Sum256([]byte(line))
		r.Evidence = []Evidence{{
			ContentType: "text/plain", Description: "A line of the log", Payload: base64.StdEncoding.EncodeToString([]byte(line)), Hash: "sha256:" + hex.EncodeToString(sum[:]),
		}}
	}
	return r, nil
}

// newUUID gives a random one (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// JSON gives the report as people and programs read it.
func (r Report) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the report: %w", err)
	}
	return append(b, '\n'), nil
}

// Mail gives the report as a message to an abuse desk, with the JSON attached.
func (r Report) Mail(to string) ([]byte, error) {
	a, err := mail.ParseAddress(to)
	if err != nil {
		return nil, fmt.Errorf("%q is no mail address", to)
	}
	attached, err := r.JSON()
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	text, err := w.CreatePart(textproto.MIMEHeader{"Content-Type": {"text/plain; charset=utf-8"}, "Content-Transfer-Encoding": {"quoted-printable"}})
	if err != nil {
		return nil, err
	}
	q := quotedprintable.NewWriter(text)
	fmt.Fprintf(q, "%s from port %d of %s.\r\n%s\r\n\r\nThe attachment is a report in the format XARF %s. To answer, write to %s.\r\n", strings.ReplaceAll(r.Type, "_", " "), r.SourcePort, r.Source, r.Description, Version, r.Reporter.Contact)
	if err := q.Close(); err != nil {
		return nil, err
	}
	file, err := w.CreatePart(textproto.MIMEHeader{"Content-Type": {`application/json; name="xarf.json"`}, "Content-Disposition": {`attachment; filename="xarf.json"`}, "Content-Transfer-Encoding": {"base64"}})
	if err != nil {
		return nil, err
	}
	encoded := base64.StdEncoding.EncodeToString(attached)
	for len(encoded) > 0 {
		n := min(76, len(encoded))
		fmt.Fprintf(file, "%s\r\n", encoded[:n])
		encoded = encoded[n:]
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	from := mail.Address{Name: r.Reporter.Org, Address: r.Reporter.Contact}
	var out bytes.Buffer
	fmt.Fprintf(&out, "From: %s\r\nTo: %s\r\nSubject: Abuse report: %s from %s\r\nDate: %s\r\nMessage-ID: <%s@%s>\r\nMIME-Version: 1.0\r\nX-XARF: PLAIN\r\nAuto-Submitted: auto-generated\r\nContent-Type: multipart/mixed; boundary=%q\r\n\r\n",
		from.String(), a.String(), strings.ReplaceAll(r.Type, "_", " "), r.Source, time.Now().UTC().Format(time.RFC1123Z), r.ReportID, r.Reporter.Domain, w.Boundary())
	out.Write(body.Bytes())
	return out.Bytes(), nil
}
