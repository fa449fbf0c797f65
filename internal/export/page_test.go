package export

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestAVisitorGetsAPageAndAProgramJSON(t *testing.T) {
	h, url := serve(t, Options{Bans: bans(), Now: func() time.Time { return start }, Appeal: "abuse@example.org", References: NewReferences(make([]byte, ReferenceKey))})
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	status, header, body := get(t, url+"/v1/check?ip=192.0.2.7", "Accept", browser)
	reference := header.Get("X-Banmesh-Ref")
	if status != 403 || !strings.HasPrefix(header.Get("Content-Type"), "text/html") || header.Get("Retry-After") != "7200" || header.Get("Cache-Control") != "no-store" || !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%d %v", status, header)
	}
	for _, want := range []string{"<strong>2 hours</strong>", "21 November 2026, 14:00 UTC", reference, `<a href="mailto:abuse@example.org">`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	_, _, short := get(t, url+"/v1/check?ip=192.0.2.7&page=1", "Accept", "application/json")
	for _, secret := range []string{"sshd", "spam", "192.0.2.7", "\"network\"", "\"here\""} {
		if strings.Contains(body, secret) || strings.Contains(short, secret) {
			t.Errorf("a visitor is told %q: %s %s", secret, body, short)
		}
	}
	var n notice
	if err := json.Unmarshal([]byte(short), &n); err != nil || n != (notice{true, reference, start.Add(2 * time.Hour).Unix(), 7200, "abuse@example.org"}) {
		t.Errorf("%+v %v", n, err)
	}
	if target, topic, ok := h.o.References.Find(reference, h.o.Bans); !ok || target.String() != "192.0.2.7" || topic != "spam" {
		t.Errorf("the reference finds %v %s %v", target, topic, ok)
	}
	for _, accept := range []string{"*/*", "application/json", "text/html;q=0", ""} {
		if status, _, body := get(t, url+"/v1/check?ip=192.0.2.7", "Accept", accept); status != 403 || !strings.Contains(body, `"matches"`) {
			t.Errorf("a program that accepts %q gets %d %s", accept, status, body)
		}
	}
	if status, _, body := get(t, url+"/v1/check?ip=192.0.2.9&page=1", "Accept", browser); status != 200 || !strings.Contains(body, `"banned":false`) {
		t.Errorf("who is not banned: %d %s", status, body)
	}
}

func TestThePageSaysHowLongAndWhereToObject(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Second: "1 minute", time.Minute: "1 minute", 61 * time.Second: "2 minutes", time.Hour: "60 minutes", time.Hour + 1: "2 hours",
		24 * time.Hour: "24 hours", 25 * time.Hour: "2 days", 90 * 24 * time.Hour: "90 days",
	} {
		if got := inWords(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for appeal, link := range map[string]string{
		"abuse@example.org": "mailto:abuse@example.org", "https://example.org/appeal?a=1": "https://example.org/appeal?a=1",
		"javascript:alert(1)@x": "", "call us @ noon": "", "": "",
	} {
		if got := pageOf(notice{Appeal: appeal, Rest: 1}).Link; got != link {
			t.Errorf("%q links to %q", appeal, got)
		}
	}
	if p := pageOf(notice{Rest: int64(longest/time.Second) + 1}); p.Rest != "" {
		t.Errorf("a ban for good ends in %s", p.Rest)
	}
}

func TestAReferenceIsReadAsPeopleTypeIt(t *testing.T) {
	for text, want := range map[string]string{
		"7ZK3M-0QX9V": "7ZK3M-0QX9V", "7zk3m0qx9v": "7ZK3M-0QX9V", " 7zk3m oqx9v ": "7ZK3M-0QX9V", "7ZK3M-0QX9": "", "7ZK3M-0QX9U": "", "192.0.2.7": "", "": "",
	} {
		if got, ok := ParseReference(text); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v", text, got, ok)
		}
	}
	a, b := NewReferences(make([]byte, ReferenceKey)), NewReferences([]byte(strings.Repeat("k", ReferenceKey)))
	k := Key{entry("192.0.2.7", "sshd", 1).Target, "sshd"}
	again := NewReferences(make([]byte, ReferenceKey))
	if a.Of(k) == b.Of(k) || a.Of(k) != again.Of(k) {
		t.Error("a reference is that of its ban and of this node's key")
	}
}
