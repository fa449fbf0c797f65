// Package api answers on the agent's control socket, in the types of package
// control: status and its closed list of warnings, bans, decisions of a person,
// explanations, metrics. It reads the parts of a node and owns none of them.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/usage"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/export"
	"banmesh/internal/federation"
	"banmesh/internal/firewall"
	"banmesh/internal/guests"
	"banmesh/internal/ledger"
	"banmesh/internal/neverban"
	"banmesh/internal/settings"
)

// Options are the parts of a node that [New] reads. All of them are required
// but the page.
type Options struct {
	Version string
	Started time.Time
	Now     func() time.Time
	Log     *slog.Logger

	Ledger *ledger.Ledger
	Table  *export.Table // bans in force
	// References names bans to visitors who are refused.
	References *export.References
	// Settings gives those in force. Reload reads the files again and gives the
	// effect, Effect that of other rules in a topic.
	Settings func() *settings.Settings
	Reload   func(context.Context, control.ReloadRequest) (control.Effect, error)
	Effect   func(control.RulesRequest) (control.Effect, error)

	Detection Detection
	Firewall  Firewall
	Sharing   Sharing
	// NeverBan lists the entries that shield here, shared addresses last.
	NeverBan func() []neverban.Entry
	// Guests lists who lately logged in or worked here, RemoveGuest ends some.
	// Guest says why a target is one.
	Guests func() []guests.Guest
	Guest  func(ban.Target) (string, bool)
	// Held lists decisions about a target that were not carried out.
	Held func(ban.Target) []control.HeldOffender
	// Shielded lists the offences of a target whom the never-ban list shields, and
	// of everybody for the zero target.
	Shielded func(ban.Target) []control.Shielded
	// AfterBan lists the offences of a target that are dated after its ban.
	AfterBan    func(context.Context, ban.Target) []control.AfterBan
	RemoveGuest func(ban.Target) (int, error)
	// Gate asks the wallet gate how it is, false where none is kept.
	Gate     func(context.Context) (control.GateStatus, bool)
	Bouncers Bouncers
	// Shared divides traffic that programs report for several operators together.
	Shared   *usage.Attribution
	Fail2ban Fail2ban
	CrowdSec CrowdSec
	Lists    PublicLists
	// Vallumds gives the private brokers of [[vallumd]]; nil for none.
	Vallumds  func() []control.Vallumd
	Chronicle Chronicle
	Messages  Messages
	// Page is the page for browsers; nil where there is none.
	Page Page
	// LineLatency and ClaimLatency time bans on their way to the kernel.
	LineLatency, ClaimLatency *Latency
	// Warnings gives those of the parts that have nothing else to say here.
	Warnings func(context.Context) []control.Warning
}

// Detection finds offenders.
type Detection interface {
	Status() detect.Status
	// Forget drops the offences that were counted of a target.
	Forget(ban.Topic, ban.Target)
	// Counted gives the offences of a target that are too few for a ban.
	Counted(ban.Target) []detect.Counted
	Report(context.Context, detect.Observation) error
}

// Firewall enforces bans.
type Firewall interface {
	// Enforcement gives the enforcer's name, "observe" or "off", and why it is
	// one of the last two.
	Enforcement() (mode, why string)
	// Counters gives the packets that bans met, false where nothing counts.
	Counters(context.Context) (map[ban.Topic]firewall.Counter, bool)
	// Operators gives them by those on whose word an observed ban rests.
	Operators(context.Context) map[ban.Topic][]control.OperatorCount
	// Holds asks the kernel about a target, false where it cannot be asked.
	Holds(context.Context, ban.Target) (firewall.Held, bool)
	// Carry waits until the enforcer has been given every change of before, for some
	// seconds at most, and says why some of it is not in force; "" where it is.
	Carry(context.Context) string
	// Check compares the kernel with the bans now, puts it right, and gives how many
	// prefixes are banned and why some are not in force.
	Check(context.Context) (bans int, late string)
	// Unenforced says why a ban in force drops no packet of its target, "" where it
	// does or where nothing can be asked.
	Unenforced(context.Context, ban.Topic, ban.Target) string
	// Left says of which targets packets are dropped by bans that this agent does
	// not keep, and how to end it.
	Left(context.Context, []ban.Target) []control.LeftBan
	// Untracked says why connections are not remembered, nil where they are.
	Untracked() error
	// Remembers says whether there is anything that could remember connections.
	Remembers() bool
	Warnings(context.Context) []control.Warning
}

// Sharing is the node's part in the network.
type Sharing interface {
	Operator() ban.Operator
	Node() ban.Node
	// Siblings is how many other nodes the operator's card certifies.
	Siblings() int
	// Embedded is the address of the node's own broker, "" for none.
	Embedded() string
	Brokers() []control.BrokerStatus
	Warnings() []control.Warning
	Feeds() []federation.FeedStatus
	// Release ends the quarantine of an operator's feeds, and gives how many there were.
	Release(ban.Operator) (int, error)
	TrustLists() []federation.TrustList
	Definitions() []federation.PublishedDefinition
	Lists() []federation.PublishedList
	Counts() federation.Counts
	// CertificateEnd is when this node's certificate ends, zero where it has none.
	CertificateEnd() time.Time
	// Card gives the newest card of an operator as text, "" for none.
	Card(ban.Operator) string
	// Dispute publishes the unbans that others should know of.
	Dispute() error
}

// A Server answers for a node.
type Server struct {
	o      Options
	public public
}

// New makes a server. It starts nothing.
func New(o Options) *Server { return &Server{o: o} }

// Local answers on the control socket.
func (s *Server) Local() (http.Handler, error) {
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(*http.Request) (any, error){
		"GET /v1/status":    func(r *http.Request) (any, error) { return s.Status(r.Context()), nil },
		"GET /v1/jail":      s.jail,
		"GET /v1/bans":      s.bans,
		"GET /v1/bans/page": s.banPage,
		"POST /v1/bans":     s.ban,
		"POST /v1/bans/all": s.banAll,
		"POST /v1/unban":    s.unban,
		"POST /v1/withdraw": s.withdraw,
		"GET /v1/explain":   s.explain,
		"GET /v1/history":   s.history,
		"GET /v1/events":    s.events,
		"POST /v1/reload":   s.reload,
		"POST /v1/effect":   s.effect,
		"POST /v1/firewall/check": func(r *http.Request) (any, error) {
			bans, late := s.o.Firewall.Check(r.Context())
			return control.CountAnswer{Count: bans, Kernel: late}, nil
		},
		"GET /v1/gate":             s.gate,
		"GET /v1/names":            s.names,
		"GET /v1/allow":            func(*http.Request) (any, error) { return exemptions(s.o.Ledger.Exemptions.List()), nil },
		"POST /v1/allow":           s.allow,
		"POST /v1/allow/remove":    s.allowRemove,
		"GET /v1/never-ban":        func(*http.Request) (any, error) { return neverBan(s.o.NeverBan()), nil },
		"GET /v1/bouncers":         s.bouncers,
		"POST /v1/bouncers":        s.addBouncer,
		"POST /v1/bouncers/remove": s.removeBouncer,
		"POST /v1/crowdsec/join":   s.joinCrowdSec,
		"POST /v1/crowdsec/leave":  s.leaveCrowdSec,
		"GET /v1/lists":            s.publicLists,
		"POST /v1/lists/approve":   s.approveList,
		"GET /v1/guests":           s.guests,
		"GET /v1/notify":           func(*http.Request) (any, error) { return s.o.Messages.Status(), nil },
		"POST /v1/notify/test":     s.notifyTest,
		"POST /v1/guests/remove":   s.removeGuest,
		"POST /v1/page/open":       s.openPage,
		"POST /v1/page/close":      s.closePage,
		"GET /v1/hold":             func(*http.Request) (any, error) { return holds(s.o.Ledger.Peers.Holds()), nil },
		"POST /v1/hold/approve":    s.approve,
		"POST /v1/hold/reject":     s.reject,
		"GET /v1/peers": func(*http.Request) (any, error) {
			return s.Peers(), nil
		},
		"POST /v1/peers/undo":    s.undo,
		"POST /v1/peers/release": s.release,
		"GET /v1/feeds":          func(*http.Request) (any, error) { return feeds(s.o.Sharing.Feeds()), nil },
		"GET /v1/reference":      s.reference,
		"GET /v1/documents":      s.documents,
		"GET /v1/card":           s.card,
	} {
		mux.HandleFunc(pattern, control.Handle(answer))
	}
	mux.Handle("GET /metrics", s.metrics())
	lists, err := s.lists()
	if err != nil {
		return nil, err
	}
	lists.RegisterLocal(mux)
	return mux, nil
}

// Query answers on the query socket: checks, lists, the stream and reports, and
// no commands.
func (s *Server) Query() (http.Handler, error) {
	lists, err := s.lists()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	lists.RegisterLocal(mux)
	return mux, nil
}

// operator reads an operator's name here, or its identity.
func (s *Server) operator(text string) (ban.Operator, error) {
	if o, ok := s.o.Ledger.Policy().Operator(text); ok {
		return o, nil
	}
	o, err := ban.ParseOperator(text)
	if err != nil {
		return o, control.Refuse(control.CodeMissing, "see `agent peers list`", "no operator %.64q is known", text)
	}
	return o, nil
}
