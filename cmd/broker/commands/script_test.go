package commands

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banmesh/internal/ban"
	"banmesh/internal/broker"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/wire"
)

// The test binary is the command: scripts run `broker` as people do.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"broker": func() {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
			code := Run(ctx, cli.Program{Name: "broker", Version: "unknown"}, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
			stop()
			os.Exit(code)
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("BANMESH_BROKER_CONFIG", e.WorkDir+"/broker.toml")
			e.Setenv("BANMESH_BROKER_SOCKET", e.WorkDir+"/broker.sock")
			return nil
		},
		RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// hangup sends SIGHUP to everything that runs in the background.
			"hangup": func(ts *testscript.TestScript, _ bool, _ []string) {
				for _, c := range ts.BackgroundCmds() {
					ts.Check(c.Process.Signal(syscall.SIGHUP))
				}
			},
			// card writes an operator's signed card to NAME.card, and its topic
			// and the operator into the variables NAME_topic and NAME_operator.
			"card": func(ts *testscript.TestScript, _ bool, args []string) {
				seed := sha256.Sum256([]byte(args[0]))
				root, now := ed25519.NewKeyFromSeed(seed[:]), time.Now()
				b, err := (&wire.Card{Serial: uint64(now.UnixNano()), Issued: now, Name: args[0]}).Sign(root)
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]+".card"), b, 0o600))
				name := wire.Name{Network: "net", Kind: wire.KindCard, Operator: ban.OperatorOf(root.Public().(ed25519.PublicKey))}
				ts.Setenv(args[0]+"_topic", name.String())
				ts.Setenv(args[0]+"_operator", name.Operator.String())
			},
			// waitclient waits until a client is connected.
			"waitclient": func(ts *testscript.TestScript, gone bool, args []string) {
				c := control.NewClient(ts.Getenv("BANMESH_BROKER_SOCKET"))
				deadline := time.Now().Add(20 * time.Second)
				for {
					var all []broker.Session
					ts.Check(c.Get(context.Background(), "/v1/clients", nil, &all))
					if slices.ContainsFunc(all, func(s broker.Session) bool { return s.ID == args[0] }) != gone {
						return
					}
					if time.Now().After(deadline) {
						ts.Fatalf("%s: connected the other way round for too long", args[0])
					}
					<-time.After(10 * time.Millisecond)
				}
			},
			// waitup waits until the broker answers.
			"waitup": func(ts *testscript.TestScript, _ bool, _ []string) {
				c := control.NewClient(ts.Getenv("BANMESH_BROKER_SOCKET"))
				deadline := time.Now().Add(20 * time.Second)
				for {
					var s broker.Status
					err := c.Get(context.Background(), "/v1/status", nil, &s)
					if err == nil {
						return
					}
					if time.Now().After(deadline) {
						ts.Fatalf("the broker does not answer: %v", err)
					}
					<-time.After(10 * time.Millisecond)
				}
			},
		},
	})
}
