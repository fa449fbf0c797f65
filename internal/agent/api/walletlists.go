package api

import (
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/wallet/signedlist"
	"banmesh/internal/wire"
)

// walletList converts an operator's published list. Evidence that is no address
// and no hash is left out: people open it.
func (s *Server) walletList(l federation.PublishedList) control.WalletList {
	return control.WalletList{
		Operator: l.Operator, By: s.o.Settings().NameOf(l.Operator), Topic: l.Topic, Number: l.Number, Issued: l.Issued,
		Name: l.Name, Contact: l.Contact, Criteria: l.Criteria,
		Entries: each(l.Entries, func(e wire.Listed) control.ListedWallet {
			t, _ := ban.TargetOfWallet(e.Wallet)
			if (signedlist.Details{Evidence: e.Evidence}).Check() != nil {
				e.Evidence = ""
			}
			return control.ListedWallet{Wallet: t, Note: e.Note, Evidence: e.Evidence}
		}),
	}
}

// addListed puts into an explanation the entries of the claims' operators for the wallet
// in the lists that they publish.
func (s *Server) addListed(x *control.Explanation) {
	if x.Target.Kind() != ban.KindWallet {
		return
	}
	for _, p := range s.o.Sharing.Lists() {
		l := s.walletList(p)
		for i := range x.Standings {
			if x.Standings[i].Topic != p.Topic {
				continue
			}
			for j := range x.Standings[i].Claims {
				c := &x.Standings[i].Claims[j]
				if c.Operator != p.Operator.String() {
					continue
				}
				if about, ok := l.About(x.Target); ok {
					c.Listed = &about
				}
			}
		}
	}
}
