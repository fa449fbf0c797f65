package page

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/printable"
	"banmesh/internal/span"
)

//go:embed templates static
var files embed.FS

// A view is a page in the making.
type view struct {
	Title    string
	Template string // the file below templates, without .html
	Data     any
}

// A frame is the surroundings of every page.
type frame struct {
	view
	Path   string
	Here   string // the path with its query, to lead back to
	Form   string // the token of the forms of whoever is signed in
	Menu   []part
	Status control.Status
	State  state
	Notice *notice
	Now    time.Time
	Fault  string // why the node does not answer
}

// templates are every page's, each with the layout. They are read when the first page is asked
// for: no other command of this program needs them.
var templates = sync.OnceValue(parse)

func parse() map[string]*template.Template {
	list, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	all := map[string]*template.Template{}
	for _, file := range list {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "layout" || name == "bare" || name == "parts" {
			continue
		}
		all[name] = template.Must(template.New("layout.html").Funcs(functions).ParseFS(files, "templates/layout.html", "templates/parts.html", file))
	}
	return all
}

var bareTemplate = template.Must(template.ParseFS(files, "templates/bare.html"))

// bareStyle is the style of pages for who is not signed in; the policy of those pages
// has its hash.
const bareStyle template.CSS = `:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto 0;padding:0 1rem}h1{font-size:1.4rem}code{font-size:1.1em}button{font:inherit;padding:.5rem 1.2rem}`

var bareStyleHash = func() string {
	sum := sha256.Sum256([]byte(bareStyle))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}()

// functions are those of the templates.
var functions = template.FuncMap{
	"short":   func(d time.Duration) string { return span.Short(d) },
	"clock":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") + " UTC" },
	"rfc3339": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"number":  func(n any) string { return thousands(fmt.Sprint(n)) },
	"plural":  plural,
	"join":    func(list []string) string { return strings.Join(list, ", ") },
	"dict": func(pairs ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i+1 < len(pairs); i += 2 {
			m[fmt.Sprint(pairs[i])] = pairs[i+1]
		}
		return m
	},
	"until": func(t, now time.Time) string { return span.Short(t.Sub(now)) },
	"ago": func(t, now time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return span.Short(max(now.Sub(t), 0)) + " ago"
	},
	"inc": func(n int) int { return n + 1 },
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(strconv.Itoa(n)) + " " + noun + "s"
}

// thousands puts commas into a number of more than four digits.
func thousands(s string) string {
	if len(s) < 5 || strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		return s
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// render writes a page whole: one that cannot be made is a fault and no half
// page. Every character that could turn the direction of writing or hide is
// written as a question mark, whoever said it.
func (s *Server) render(w http.ResponseWriter, r *http.Request, status int, v view) {
	who := sessionOf(r.Context())
	f := frame{view: v, Path: r.URL.Path, Here: r.URL.RequestURI(), Form: who.form, Menu: parts, Now: s.o.Now()}
	if r.Method != http.MethodGet {
		f.Here = r.URL.Path
	}
	if err := s.node.Get(r.Context(), "/v1/status", nil, &f.Status); err != nil {
		f.Fault = err.Error()
	}
	f.State = stateOf(f.Status)
	if r.Header.Get(liveHeader) == "" {
		f.Notice = who.told()
	}
	var b bytes.Buffer
	if err := templates()[v.Template].Execute(printable.Writer(&b), f); err != nil {
		s.o.Log.ErrorContext(r.Context(), "page not made", "page", v.Template, "error", err)
		http.Error(w, "this page cannot be made; the agent's log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the reader went away; there is nobody to tell
}

// serveStatic gives the style sheet, the script and the icon.
func serveStatic(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	text, err := files.ReadFile("static/" + name)
	if err != nil || strings.Contains(name, "/") {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", cmp.Or(map[string]string{
		".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	}[path.Ext(name)], "application/octet-stream"))
	_, _ = w.Write(text)
}
