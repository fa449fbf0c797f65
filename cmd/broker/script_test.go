package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banmesh/internal/broker"
	"banmesh/internal/control"
)

// The test binary is the command: scripts run `broker` as people do.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"broker": func() {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
			code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
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
