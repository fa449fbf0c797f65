// Hostile is a peer that is trusted and turns: it publishes claims of whatever
// it is told on standard input, correctly certified and signed, for the tests
// of acts that no trusted peer can do.
//
//	hostile -broker tcp://198.51.100.1:1883 -topic sshd -state DIR < targets
//
// Its first line of output is its operator's identity. It reads a target a line
// and publishes those that it has at each empty line; it ends with its input.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/federation"
	"banmesh/internal/keys"
	"banmesh/internal/store"
)

func main() {
	broker := flag.String("broker", "", "URL of the broker")
	topic := flag.String("topic", "sshd", "topic")
	network := flag.String("network", "banmesh", "network")
	state := flag.String("state", "", "directory of keys and state")
	flag.Parse()
	if err := run(*broker, *network, ban.Topic(*topic), *state); err != nil {
		fmt.Fprintln(os.Stderr, "hostile: error:", err)
		os.Exit(1)
	}
}

func run(broker, network string, topic ban.Topic, state string) (err error) {
	identity, err := keys.Open(state, "mallory", time.Now())
	if err != nil {
		return err
	}
	fmt.Println(identity.Operator())
	s, err := store.Open(filepath.Join(state, "hostile.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	session, err := federation.New(federation.Options{
		Network: network, Brokers: []federation.Broker{{URL: broker}}, Identity: identity, Store: s,
		Apply: func(context.Context, ban.Change) error { return nil },
	})
	if err != nil {
		return err
	}
	session.Publish([]ban.Topic{topic})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- session.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-done)
	}()
	var claims []ban.Claim
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "" {
			if err := session.Say(topic, claims, nil); err != nil {
				return err
			}
			fmt.Println("published", len(claims))
			claims = nil
			continue
		}
		target, err := ban.ParseTarget(in.Text())
		if err != nil {
			return err
		}
		claims = append(claims, ban.Claim{Target: target, End: time.Now().Add(time.Hour), Class: ban.ClassAuth, Hits: 50, Established: true, Basis: ban.BasisStrong})
	}
	return in.Err()
}
