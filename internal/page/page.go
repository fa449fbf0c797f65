// Package page shows a node in a browser: every answer is one of the control
// interface, so that no figure can differ from that of the command line. It
// works without JavaScript, loads nothing from elsewhere, and shows nobody
// anything without a session that a one-time link began.
package page

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/doctor"
	"banmesh/internal/ledger"
)

// Options are the inputs of [New].
type Options struct {
	// Listen is a TCP address or the absolute path of a unix socket.
	Listen string
	// URL is the address for browsers; "" is that of Listen.
	URL string
	// Certificate and Key are files with which TCP speaks TLS; "" is plain HTTP.
	Certificate, Key string
	// Counts is the file that keeps the counts of the charts; "" keeps none.
	Counts string
	Now    func() time.Time
	Log    *slog.Logger

	// Topics lists every topic that is defined, by name, as `agent topics list` does.
	Topics func() []Topic
	// Examine gathers the facts that `agent doctor` judges.
	Examine func(context.Context) doctor.Facts
	// Trial tries a filter on lines as `agent filter test` does.
	Trial func(context.Context, TrialRequest) (*detect.TrialReport, []detect.TrialLine, error)
	// Why says how far a line came that a topic misses, as `agent explain-line` does.
	Why func(topic ban.Topic, line string) detect.Explanation
	// Harmless are lines that are no offence, of the topic's definition.
	Harmless func(ban.Topic) []string
	// Replay tries the rules on the history as `agent policy test` does, or others
	// in one topic; nil is none. An error in warn leaves a result.
	Replay func(ctx context.Context, last time.Duration, other *control.RulesRequest) (t ledger.Trial, warn, err error)
	// Switch sets a switch of a topic as `agent topics` does.
	Switch func(context.Context, SwitchRequest) (control.Effect, error)
	// Invite makes a signed invitation as `agent network invite` does.
	Invite func(context.Context, InviteRequest) (string, error)
	// Nodes are other nodes of the operator, by name; each is a control socket.
	Nodes map[string]string
}

// A Topic is one that is defined, and the node's part in it.
type Topic struct {
	Topic      ban.Topic
	Title      string
	Wallets    bool // its targets are wallets
	Detectable bool // it has a filter
	Detect     bool
	Subscribe  bool
	Publish    bool
	Simulate   bool
	Observe    bool
	Policy     string   // the rule that bans
	OnPage     []string // the switches that were set on the page
}

// A TrialRequest is lines to try a topic's filter on, or one rule.
type TrialRequest struct {
	Spec  string // a topic or a filter of fail2ban's
	Rule  string // a failregex in its place
	Lines string
}

// A SwitchRequest sets one switch of a topic.
type SwitchRequest struct {
	Topic ban.Topic
	Field string // "detect", "subscribe" or "publish"
	Value bool
	Yes   bool // without the question that more than a handful of bans begins
}

// An InviteRequest is the contents of an invitation.
type InviteRequest struct {
	Brokers []string
	Topics  []ban.Topic
	Self    bool // suggest this operator
	Note    string
	Days    int
}

// A Server shows one node.
type Server struct {
	o        Options
	node     *control.Client
	doors    *doors
	hub      *hub
	counts   *counts
	mux      *http.ServeMux
	sessions *sessions
	buttons  buttons
	facts    facts
	heavy    chan struct{} // held while something costly runs, of which one runs at a time

	mu sync.Mutex
	at string // the address that is listened on
}

// Limits of a server.
const (
	// MaxLive is how many readers follow along at once.
	MaxLive = 1000
	// maxConns leaves room beside them for people who look.
	maxConns = MaxLive + 200
	// maxBody bounds a form, in bytes: pasted lines.
	maxBody = 256 << 10
	// maxBusy bounds the requests that are answered at once.
	maxBusy = 32
	// answerWithin bounds the time for which a request is answered.
	answerWithin = time.Minute
)

// New makes a server. It starts nothing.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, at: o.Listen, sessions: newSessions(o.Now), buttons: buttons{now: o.Now}, heavy: make(chan struct{}, 1)}
	s.hub = newHub(s.state, o.Log)
	s.counts = openCounts(o.Counts, o.Now, o.Log)
	s.mux = s.routes()
	return s
}

// URL is the page's address for browsers, without a slash at its end.
func (s *Server) URL() string {
	if s.o.URL != "" {
		return strings.TrimRight(s.o.URL, "/")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	scheme := "http"
	if s.o.Certificate != "" {
		scheme = "https"
	}
	return scheme + "://" + s.at
}

// Open makes a link that signs one browser in, once.
func (s *Server) Open() (control.PageLink, error) {
	token, until := s.sessions.link()
	return control.PageLink{URL: s.URL() + "/sign-in?link=" + url.QueryEscape(token), Until: until}, nil
}

// Close ends every session and every link.
func (s *Server) Close() control.PageClosed { return s.sessions.close() }

// Run shows the node until ctx ends. node answers for it.
func (s *Server) Run(ctx context.Context, node *control.Client) error {
	l, err := s.listen(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.at = l.Addr().String()
	s.mu.Unlock()
	s.o.Log.InfoContext(ctx, "page shown", slog.String("url", s.URL()))
	return s.serve(ctx, l, node)
}
