package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"

	"banmesh/client"
)

// An HTTP server refuses banned peers before it reads a byte, and denied
// wallets once their signature is verified.
func Example() {
	serve := func(ctx context.Context, handler http.Handler) error {
		bans, err := client.Open(ctx, client.Options{Topics: []string{"livepeer", "broadcaster-addresses"}})
		if err != nil {
			return err
		}
		defer bans.Close()
		l, err := net.Listen("tcp", ":8935")
		if err != nil {
			return err
		}
		return http.Serve(bans.Listener(l), handler)
	}
	_ = serve
}

func ExampleClient_Wallet() {
	errDenied := errors.New("denied")
	verify := func(bans *client.Client, sender [20]byte) error {
		if bans.Wallet(sender) {
			return errDenied
		}
		return nil
	}
	_ = verify
}

func ExampleClient_Report() {
	handshakeFailed := func(bans *client.Client, peer netip.AddrPort) {
		bans.Report(client.Offence{Topic: "livepeer", IP: peer.Addr(), Class: "scan", Established: true})
	}
	_ = handshakeFailed
}
