package export

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// notice is the text for a visitor who is refused: no topic, no origin, no
// address but in the page's own request.
type notice struct {
	Banned    bool   `json:"banned"`
	Reference string `json:"reference,omitempty"`
	// Until is in seconds since the Unix epoch, Rest in seconds from now.
	Until  int64  `json:"until"`
	Rest   int64  `json:"rest"`
	Appeal string `json:"appeal,omitempty"`
}

// longest is a ban that counts as one without an end.
const longest = 20 * 365 * 24 * time.Hour

// noticeOf describes the ban that lasts longest.
func (h *Handler) noticeOf(matches []Match) notice {
	last := matches[0]
	for _, m := range matches[1:] {
		if m.Until.After(last.Until) {
			last = m
		}
	}
	n := notice{Banned: true, Until: toJSON(last).Until, Appeal: h.o.Appeal}
	n.Rest = max(1, n.Until-h.o.Now().Unix())
	if h.o.References != nil {
		n.Reference = h.o.References.Of(Key{last.Target, last.Topic})
	}
	return n
}

// wantsPage says that a browser asks: it names HTML, which programs do not.
func wantsPage(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for kind := range strings.SplitSeq(accept, ",") {
			kind, weight, _ := strings.Cut(kind, ";")
			if strings.EqualFold(strings.TrimSpace(kind), "text/html") && strings.ReplaceAll(weight, " ", "") != "q=0" {
				return true
			}
		}
	}
	return false
}

// refuseVisitor answers 403 to whoever is banned, with a page for a browser and JSON
// for a program.
func (h *Handler) refuseVisitor(w http.ResponseWriter, n notice, page bool) {
	w.Header().Set("Retry-After", strconv.FormatInt(n.Rest, 10))
	if n.Reference != "" {
		w.Header().Set("X-Banmesh-Ref", n.Reference)
	}
	w.Header().Set("Vary", "Accept")
	if !page {
		writeJSON(w, http.StatusForbidden, n)
		return
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, pageOf(n)); err != nil {
		writeJSON(w, http.StatusForbidden, n)
		return
	}
	head := w.Header()
	head.Set("Content-Type", "text/html; charset=utf-8")
	head.Set("Cache-Control", "no-store")
	head.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("X-Robots-Tag", "noindex")
	w.WriteHeader(http.StatusForbidden)
	_, _ = w.Write(b.Bytes()) // the visitor went away: there is nobody to tell
}

// pageText is a notice in words.
type pageText struct {
	Reference, Rest, Until, Machine, Appeal, Link string
}

func pageOf(n notice) pageText {
	p := pageText{Reference: n.Reference, Appeal: n.Appeal}
	switch {
	case strings.HasPrefix(n.Appeal, "https://"), strings.HasPrefix(n.Appeal, "http://"):
		p.Link = n.Appeal
	case strings.Contains(n.Appeal, "@") && !strings.ContainsAny(n.Appeal, " /:?&"):
		p.Link = "mailto:" + n.Appeal
	}
	rest := time.Duration(min(n.Rest, int64(longest/time.Second))) * time.Second
	if rest >= longest {
		return p
	}
	until := time.Unix(n.Until, 0).UTC()
	p.Rest, p.Until, p.Machine = inWords(rest), until.Format("2 January 2006, 15:04 MST"), until.Format(time.RFC3339)
	return p
}

// inWords gives a time in its largest unit, rounded up, so that nobody comes
// back too early.
func inWords(d time.Duration) string {
	for _, u := range []struct {
		name string
		of   time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}} {
		if d > u.of || u.of == time.Minute {
			n := (d + u.of - 1) / u.of
			if n == 1 {
				return "1 " + u.name
			}
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return ""
}

var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Access refused</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 12vh auto; padding: 0 1.25rem; color: #1a1a1a; background: #fff }
h1 { font-size: 1.5rem }
code { font-size: 1.25rem; letter-spacing: .05em; user-select: all }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #161616 } a { color: #9cf } }
</style>
</head>
<body>
<main>
<h1>Access refused</h1>
<p>Attacks were seen from your network address, so this site does not answer it for now. Other people who share the address
are affected too; that may be you.</p>
{{if .Rest}}<p>This ends in <strong>{{.Rest}}</strong>, on <time datetime="{{.Machine}}">{{.Until}}</time>, by itself.</p>
{{else}}<p>This does not end by itself.</p>
{{end}}{{if .Reference}}<p>Reference: <code>{{.Reference}}</code></p>
{{end}}<p>{{if .Link}}If this is a mistake, tell <a href="{{.Link}}">{{.Appeal}}</a>{{else if .Appeal}}If this is a mistake: {{.Appeal}}{{else}}If this is a mistake, tell the people who run this site{{end}}{{if .Reference}}, and give them the reference{{end}}.</p>
</main>
</body>
</html>
`))
