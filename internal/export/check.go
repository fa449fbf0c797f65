package export

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"banmesh/internal/ban"
)

// checkAnswer is the body of an answer of /v1/check.
type checkAnswer struct {
	Target  ban.Target  `json:"target"`
	Banned  bool        `json:"banned"`
	Matches []jsonEntry `json:"matches"`
}

// check answers 200 or 403, as nginx's auth_request, Traefik's forwardAuth and
// Caddy's forward_auth expect. A request that makes no sense gets 400, which
// those proxies show as an error of their own: a proxy that was set up wrongly
// must be noticed, not let everybody in.
//
// Whoever is banned gets a page where the request names HTML, as a browser's
// does, and a [notice] where a proxy asks for the client that it names, or with page=1.
// Programs that ask about an address get a [checkAnswer].
func (h *Handler) check(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	filter, err := readTopics(q)
	if err != nil {
		refuse(w, http.StatusBadRequest, err, "")
		return
	}
	target, err := h.asked(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err, "ask /v1/check?ip=192.0.2.7 or /v1/check?wallet=0x..., or name the proxy and its header in the configuration")
		return
	}
	matches := slices.DeleteFunc(h.o.Bans.Check(target), func(m Match) bool { return !filter.has(m.Topic) })
	banned := len(matches) > 0
	// A proxy hands the answer on to the visitor, who is told neither topic nor origin.
	visitor := !q.Has("ip") && !q.Has("wallet") || q.Has("page")
	if page := wantsPage(r); banned && (visitor || page) {
		h.refuseVisitor(w, h.noticeOf(matches), page)
		return
	}
	answer := checkAnswer{Target: target, Banned: banned, Matches: []jsonEntry{}}
	for _, m := range matches {
		answer.Matches = append(answer.Matches, toJSON(m))
	}
	status := http.StatusOK
	if banned {
		status = http.StatusForbidden
	}
	writeJSON(w, status, answer)
}

// asked gives the target that a request of /v1/check is about.
func (h *Handler) asked(r *http.Request) (ban.Target, error) {
	q := r.URL.Query()
	ip, byIP := q["ip"]
	address, byWallet := q["wallet"]
	switch {
	case len(ip)+len(address) > 1:
		return ban.Target{}, errors.New("ask for one ip or one wallet")
	case byIP:
		a, err := netip.ParseAddr(ip[0])
		if err != nil {
			return ban.Target{}, fmt.Errorf("ip: %.64q is not an IP address", ip[0])
		}
		return ban.TargetOfAddr(a.WithZone(""))
	case byWallet:
		// A program asks, not a person: the spelling of EIP-55 is not checked.
		t, err := ban.ParseTarget(address[0])
		if err != nil || t.Kind() != ban.KindWallet {
			return ban.Target{}, fmt.Errorf("wallet: %.64q is not 0x and 40 hex digits, or is the zero address", address[0])
		}
		return t, nil
	}
	a, err := h.client(r)
	if err != nil {
		return ban.Target{}, err
	}
	return ban.TargetOfAddr(a)
}

// client gives the address of the client that a trusted proxy names. In a list
// of addresses it is the last that is no trusted proxy itself: anything
// further left was written by whoever sent the request.
func (h *Handler) client(r *http.Request) (netip.Addr, error) {
	if h.o.ClientHeader == "" {
		return netip.Addr{}, errors.New("no ip or wallet given, and no proxy is trusted to name the client")
	}
	peer, ok := peerOf(r)
	if !ok || !h.trusted(peer) {
		return netip.Addr{}, errors.New("no ip or wallet given, and the peer is not a trusted proxy")
	}
	named := strings.Split(strings.Join(r.Header.Values(h.o.ClientHeader), ","), ",")
	for _, s := range slices.Backward(named) {
		s = strings.TrimSpace(s)
		a, err := netip.ParseAddr(s)
		if err != nil {
			// Some proxies write a port behind the address.
			ap, portErr := netip.ParseAddrPort(s)
			if portErr != nil {
				return netip.Addr{}, fmt.Errorf("%s: %.64q is not an IP address", h.o.ClientHeader, s)
			}
			a = ap.Addr()
		}
		a = a.Unmap().WithZone("")
		if !h.trusted(a) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s names trusted proxies only", h.o.ClientHeader)
}

func (h *Handler) trusted(a netip.Addr) bool {
	return slices.ContainsFunc(h.o.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// peerOf gives the address at the other end of the connection.
func peerOf(r *http.Request) (netip.Addr, bool) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(host)
	return a.Unmap().WithZone(""), err == nil
}
