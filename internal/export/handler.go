package export

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/printable"
)

// Options configure a [Handler].
type Options struct {
	Bans Bans
	// Offences takes reports on [Handler.Local]; nil refuses them.
	Offences Offences
	Log      *slog.Logger
	// ClientHeader names the header in which a trusted proxy gives the client's
	// address to /v1/check: "X-Real-IP", "X-Forwarded-For". "" takes none.
	ClientHeader string
	// Appeal tells visitors who are refused where to object: an address of mail
	// or of the web, or a sentence. "" sends them to the people who run the site.
	Appeal string
	// References names bans to visitors; nil gives no number.
	References *References
	// TrustedProxies are the only peers whose ClientHeader is believed.
	TrustedProxies []netip.Prefix
	// Heartbeat is how often a silent stream says that it lives; 0 means
	// [DefaultHeartbeat].
	Heartbeat time.Duration
	// WriteTimeout is how long one line of an answer may take to be read; a
	// reader slower than that is cut off. 0 means [DefaultWriteTimeout].
	WriteTimeout time.Duration
	// MaxStreams bounds the streams and lists under way; 0 means 64.
	MaxStreams int
	// Now tells the time; nil means [time.Now].
	Now func() time.Time
	// Identity names this node's operator in STIX bundles, Times says when a ban
	// began and when it was last renewed, both zero where that is not known.
	Identity string
	Times    func(ban.Topic, ban.Target) (began, renewed time.Time)
}

const (
	// DefaultHeartbeat lets a reader notice a dead agent within half a minute.
	DefaultHeartbeat = 10 * time.Second
	// DefaultWriteTimeout is long for a machine that swaps, and short enough
	// that a reader that stopped does not hold a stream for long.
	DefaultWriteTimeout = 10 * time.Second
	// defaultMaxStreams is many programs on one machine, and a bounded number
	// of copies of shards in memory.
	defaultMaxStreams = 64
)

// A Handler answers HTTP requests about bans.
type Handler struct {
	o Options
	// run tells the serials of this process from those of another one.
	run     string
	streams chan struct{}
	// rendering bounds the lists that are built at once: each sorts the table.
	rendering chan struct{}
	readers   readers
}

// New checks the options and gives a handler.
func New(o Options) (*Handler, error) {
	if o.ClientHeader != "" && len(o.TrustedProxies) == 0 {
		return nil, errors.New("a client header needs trusted proxies: anybody else could write it")
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = DefaultHeartbeat
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = DefaultWriteTimeout
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = defaultMaxStreams
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Handler{
		o:         o,
		run:       rand.Text(),
		streams:   make(chan struct{}, o.MaxStreams),
		rendering: make(chan struct{}, 2),
	}, nil
}

// Register adds to mux the questions that anybody who reaches the listener may ask:
//
//	GET /v1/check?ip=192.0.2.7     200 {"banned":false,...} or 403 {"banned":true,...}
//	GET /v1/check?wallet=0x...     the same
//	GET /v1/check                  the same for the client that a trusted proxy names
//	GET /healthz                   200 while the agent answers, for proxies that do without it
//	GET /v1/bans.txt               a target a line
//	GET /v1/bans.json              all there is about each
//	GET /v1/bans.csv, .stix        the same for spreadsheets and for threat platforms
//	GET /v1/bans.netset, .pf, ...  as other programs load it: formats
//	GET /v1/stream                 a snapshot, then changes, a JSON object a line
//
// All take topic=NAME, several times for several topics; lists take kind, limit
// and minprefix.
func (h *Handler) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/check", h.check)
	mux.HandleFunc("GET /healthz", h.health)
	mux.HandleFunc("GET /v1/bans.txt", h.text)
	mux.HandleFunc("GET /v1/bans.json", h.json)
	mux.HandleFunc("GET /v1/bans.csv", h.csv)
	mux.HandleFunc("GET /v1/bans.stix", h.stix)
	for _, f := range formats {
		mux.HandleFunc("GET /v1/bans."+f.name, h.serveFormat(f))
	}
	mux.HandleFunc("GET /v1/stream", h.stream)
}

func (h *Handler) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", plainText)
	_, _ = w.Write([]byte("ok\n")) // the asker went away: there is nobody to tell
}

// RegisterLocal is [Handler.Register] and POST /v1/offences, for a socket
// whose permissions say who may report.
func (h *Handler) RegisterLocal(mux *http.ServeMux) {
	h.Register(mux)
	mux.HandleFunc("POST /v1/offences", h.offences)
}

// topics are those that an answer is about; empty means all.
type topics []ban.Topic

// maxTopics bounds the topics that one request may name.
const maxTopics = 64

// readTopics reads the topic parameters of a request.
func readTopics(q url.Values) (topics, error) {
	if len(q["topic"]) > maxTopics {
		return nil, fmt.Errorf("at most %d topics", maxTopics)
	}
	var t topics
	for _, s := range q["topic"] {
		topic, err := ban.ParseTopic(s)
		if err != nil {
			return nil, err
		}
		t = append(t, topic)
	}
	slices.Sort(t)
	return slices.Compact(t), nil
}

func (t topics) has(topic ban.Topic) bool {
	return len(t) == 0 || slices.Contains(t, topic)
}

// fault is the JSON body of an answer that is an error.
type fault struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}

func refuse(w http.ResponseWriter, status int, err error, hint string) {
	writeJSON(w, status, fault{err.Error(), hint})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(printable.JSONWriter(w))
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the client went away: there is nobody to tell
}

// jsonEntry is an [Entry] in answers.
type jsonEntry struct {
	Target ban.Target `json:"target"`
	Topic  ban.Topic  `json:"topic"`
	// Until is in seconds since the Unix epoch, rounded up.
	Until  int64     `json:"until"`
	Class  ban.Class `json:"class"`
	Origin string    `json:"origin"` // "here" or "network"
}

func toJSON(e Entry) jsonEntry {
	origin := "network"
	if e.Here {
		origin = "here"
	}
	until := e.Until.Unix()
	if e.Until.Nanosecond() > 0 {
		until++
	}
	return jsonEntry{e.Target, e.Topic, until, e.Class, origin}
}
