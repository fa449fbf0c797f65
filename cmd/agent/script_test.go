package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banmesh/internal/control"
)

// The test binary is the command: scripts run `agent` as people do.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"agent": func() {
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
			e.Setenv("BANMESH_CONFIG_DIR", e.WorkDir+"/config")
			e.Setenv("BANMESH_STATE_DIR", e.WorkDir+"/state")
			e.Setenv("BANMESH_SOCKET", e.WorkDir+"/agent.sock")
			return nil
		},
		RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// waitfor COUNT-FIELD: `waitup` waits until the agent answers;
			// `waitban TARGET` until it is banned; both fail after a while.
			"waitup": func(ts *testscript.TestScript, neg bool, args []string) {
				poll(ts, "the agent answers", func(c *control.Client) bool {
					var s control.Status
					return c.Get(context.Background(), "/v1/status", nil, &s) == nil
				})
			},
			"waitban": func(ts *testscript.TestScript, neg bool, args []string) {
				poll(ts, strings.Join(args, " ")+" is banned", func(c *control.Client) bool {
					var bans []control.Ban
					if c.Get(context.Background(), "/v1/bans", nil, &bans) != nil {
						return false
					}
					for _, b := range bans {
						if b.Target.String() == args[0] {
							return !neg
						}
					}
					return neg
				})
			},
			// expand FILE replaces ${WORK} and other variables in a file.
			"expand": func(ts *testscript.TestScript, neg bool, args []string) {
				b := ts.ReadFile(args[0])
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(os.Expand(b, ts.Getenv)), 0o644))
			},
			// append FILE LINE adds a line to a file, as a log's writer does; NOW
			// in it becomes the time as classic syslog writes it.
			"append": func(ts *testscript.TestScript, neg bool, args []string) {
				f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
				ts.Check(err)
				_, err = f.WriteString(strings.ReplaceAll(strings.Join(args[1:], " "), "NOW", time.Now().Format(time.Stamp)) + "\n")
				ts.Check(err)
				ts.Check(f.Close())
			},
		},
	})
}

// poll asks the script's agent until a condition holds.
func poll(ts *testscript.TestScript, what string, ok func(*control.Client) bool) {
	c := control.NewClient(ts.Getenv("BANMESH_SOCKET"))
	deadline := time.Now().Add(30 * time.Second)
	for !ok(c) {
		if time.Now().After(deadline) {
			ts.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
