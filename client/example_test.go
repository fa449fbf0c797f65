package client_test

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"banmesh.example/client"
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

func ExampleClient_Denied() {
	errDenied := errors.New("denied")
	verify := func(bans *client.Client, sender [20]byte) error {
		if bans.Denied(sender) {
			return errDenied
		}
		return nil
	}
	_ = verify
}

// gRPC's server takes the listener too: peers that are banned later lose their
// streams. server is a *grpc.Server.
func ExampleClient_Listener() {
	serve := func(bans *client.Client, server interface{ Serve(net.Listener) error }) error {
		l, err := net.Listen("tcp", ":8935")
		if err != nil {
			return err
		}
		return server.Serve(bans.Listener(l))
	}
	_ = serve
}

// net/http's own messages about failed handshakes become evidence.
func ExampleClient_ErrorLog() {
	server := func(bans *client.Client) *http.Server {
		return &http.Server{
			ErrorLog:          log.New(bans.ErrorLog("livepeer", os.Stderr), "", 0),
			ReadHeaderTimeout: 10 * time.Second,
		}
	}
	_ = server
}

func ExampleClient_Report() {
	handshakeFailed := func(bans *client.Client, peer netip.AddrPort) {
		bans.Report(client.Offence{Topic: "livepeer", IP: peer.Addr(), Class: "scan"})
	}
	_ = handshakeFailed
}
