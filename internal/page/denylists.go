package page

import (
	"net/http"
	"net/url"

	"banmesh/internal/control"
)

// denylistsData is which wallets are denied, and the lists about them.
type denylistsData struct {
	Wallets  control.BanPage
	Lists    []control.WalletList
	Gate     *control.GateStatus
	NoWallet bool
}

func (s *Server) denylists(r *http.Request) (view, error) {
	var d denylistsData
	var docs control.Documents
	if err := s.node.Get(r.Context(), "/v1/documents", nil, &docs); err != nil {
		return view{}, err
	}
	d.Lists = docs.Lists
	if err := s.node.Get(r.Context(), "/v1/bans/page", url.Values{"search": {"0x"}, "limit": {"500"}}, &d.Wallets); err != nil {
		return view{}, err
	}
	var gate control.GateStatus
	if s.node.Get(r.Context(), "/v1/gate", nil, &gate) == nil { // none is kept where it is refused
		d.Gate = &gate
	}
	return view{Title: "Denylists", Template: "denylists", Data: d}, nil
}
