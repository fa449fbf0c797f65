package commands

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/wallet/signedlist"
)

// The test binary is the command: scripts run `agent` as people do.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"agent": func() {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
			code := Run(ctx, cli.Program{Name: "agent", Version: "unknown"}, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
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
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// hangup sends SIGHUP to everything that runs in the background.
			"hangup": func(ts *testscript.TestScript, _ bool, _ []string) {
				for _, c := range ts.BackgroundCmds() {
					ts.Check(c.Process.Signal(syscall.SIGHUP))
				}
			},
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
			// waitevent KIND [TARGET] [WHY] waits until the history has such an event;
			// TARGET may be "".
			"waitevent": func(ts *testscript.TestScript, _ bool, args []string) {
				poll(ts, "the history has "+strings.Join(args, " "), func(c *control.Client) bool {
					var p control.EventPage
					q := url.Values{"kind": {args[0]}, "target": args[1:2]}
					return c.Get(context.Background(), "/v1/history", q, &p) == nil && slices.ContainsFunc(p.Events, func(e control.Event) bool {
						return len(args) < 3 || strings.Contains(e.Why, args[2])
					})
				})
			},
			// waitwarning CODE waits until status warns of it, or with ! until it
			// does not; waitnowarning until it warns of nothing.
			"waitwarning": func(ts *testscript.TestScript, neg bool, args []string) {
				poll(ts, "status warns of "+args[0], func(c *control.Client) bool {
					return slices.Contains(warnings(c), args[0]) != neg
				})
			},
			"waitnowarning": func(ts *testscript.TestScript, neg bool, args []string) {
				poll(ts, "status warns of nothing", func(c *control.Client) bool { return len(warnings(c)) == 0 })
			},
			// attack FILE logs five failed logins from each of 600 addresses.
			"attack": func(ts *testscript.TestScript, neg bool, args []string) {
				var b strings.Builder
				for _, net := range []string{"192.0.2", "198.51.100", "203.0.113"} {
					for host := range 200 {
						for range 5 {
							fmt.Fprintf(&b, "%s web sshd[8]: Failed password for root from %s.%d port 4001 ssh2\n", time.Now().Format(time.Stamp), net, host)
						}
					}
				}
				f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
				ts.Check(err)
				_, err = f.WriteString(b.String())
				ts.Check(err)
				ts.Check(f.Close())
			},
			// sink FILE receives requests at $SINK and writes each to a file, without its
			// address: method, path, the headers of a webhook, body.
			"sink": func(ts *testscript.TestScript, _ bool, args []string) {
				f, err := os.Create(ts.MkAbs(args[0]))
				ts.Check(err)
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					fmt.Fprintf(f, "%s %s %s %s\n", r.Method, r.URL.Path, r.Header.Get("Banmesh-Signature"), b)
					if strings.Contains(string(b), "refuse") {
						http.Error(w, "no such channel", http.StatusForbidden)
						return
					}
					fmt.Fprint(w, "taken")
				}))
				ts.Defer(func() { s.Close(); f.Close() })
				ts.Setenv("SINK", s.URL)
			},
			// serve DIR serves the files of a directory at $SERVER, as they are at each request:
			// a date of whole seconds would hide a change.
			"serve": func(ts *testscript.TestScript, _ bool, args []string) {
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					b, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), filepath.Base(r.URL.Path)))
					if err != nil {
						http.NotFound(w, r)
						return
					}
					_, _ = w.Write(b) // the client may be gone
				}))
				ts.Defer(s.Close)
				ts.Setenv("SERVER", s.URL)
			},
			// many FILE N writes a list of so many addresses.
			"many": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[1])
				ts.Check(err)
				var b strings.Builder
				for i := range n {
					fmt.Fprintf(&b, "45.0.%d.%d\n", i>>8, i&0xff)
				}
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o644))
			},
			// smalldisk DIR SIZE mounts a file system of that size until the script
			// ends; only root can.
			"smalldisk": func(ts *testscript.TestScript, neg bool, args []string) {
				dir := ts.MkAbs(args[0])
				ts.Check(os.MkdirAll(dir, 0o700))
				ts.Check(syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]))
				ts.Defer(func() { ts.Check(syscall.Unmount(dir, syscall.MNT_DETACH)) })
			},
			// operatorof FILE sets $OPERATOR to the operator of a signed list.
			"operatorof": func(ts *testscript.TestScript, _ bool, args []string) {
				l, err := signedlist.Open([]byte(ts.ReadFile(args[0])))
				ts.Check(err)
				ts.Setenv("OPERATOR", l.Operator.String())
			},
			// fill FILE writes zeros until the disk is full.
			"fill": func(ts *testscript.TestScript, neg bool, args []string) {
				f, err := os.Create(ts.MkAbs(args[0]))
				ts.Check(err)
				defer f.Close()
				for size := 1 << 16; size > 0; {
					if _, err := f.Write(make([]byte, size)); err != nil {
						size /= 2 // the last bytes too
					}
				}
			},
			// whois sets $broker and $operator to those of the running agent.
			"whois": func(ts *testscript.TestScript, _ bool, _ []string) {
				var s control.Status
				ts.Check(control.NewClient(ts.Getenv("BANMESH_SOCKET")).Get(context.Background(), "/v1/status", nil, &s))
				ts.Setenv("broker", s.Broker)
				ts.Setenv("operator", s.Operator)
			},
			// waitbanned TOPIC N waits until detection decided N bans in a topic,
			// simulated ones included.
			"waitbanned": func(ts *testscript.TestScript, neg bool, args []string) {
				poll(ts, strings.Join(args, " ")+" decisions", func(c *control.Client) bool {
					var s control.JailStatus
					return c.Get(context.Background(), "/v1/jail", url.Values{"topic": {args[0]}}, &s) == nil && strconv.FormatUint(s.TotalBanned, 10) == args[1]
				})
			},
			// waitline FILE TEXT waits until a file has a line with a text.
			"waitline": func(ts *testscript.TestScript, neg bool, args []string) {
				poll(ts, args[0]+" has "+args[1], func(*control.Client) bool {
					b, err := os.ReadFile(ts.MkAbs(args[0]))
					return err == nil && strings.Contains(string(b), args[1])
				})
			},
			// expand FILE replaces ${WORK} and other variables in a file.
			"expand": func(ts *testscript.TestScript, neg bool, args []string) {
				b := ts.ReadFile(args[0])
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(os.Expand(b, ts.Getenv)), 0o644))
			},
			// append FILE LINE adds a line to a file, as a log's writer does; NOW
			// in it becomes the time as classic syslog writes it, ISO as Docker does.
			"append": func(ts *testscript.TestScript, neg bool, args []string) {
				f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
				ts.Check(err)
				line := strings.NewReplacer("NOW", time.Now().Format(time.Stamp), "ISO", time.Now().Format(time.RFC3339Nano)).Replace(strings.Join(args[1:], " "))
				_, err = f.WriteString(line + "\n")
				ts.Check(err)
				ts.Check(f.Close())
			},
		},
	})
}

// warnings gives the codes of the warnings in status; one of them is "no answer".
func warnings(c *control.Client) (codes []string) {
	var s control.Status
	if err := c.Get(context.Background(), "/v1/status", nil, &s); err != nil {
		return []string{"no answer"}
	}
	for _, w := range s.Warnings {
		codes = append(codes, w.Code)
	}
	return codes
}

// patience is longer than anything here takes on a busy machine: a connection
// that a full disk stopped is made anew after half a minute.
const patience = 2 * time.Minute

// poll asks the script's agent until a condition holds.
func poll(ts *testscript.TestScript, what string, ok func(*control.Client) bool) {
	c := control.NewClient(ts.Getenv("BANMESH_SOCKET"))
	deadline := time.Now().Add(patience)
	for !ok(c) {
		if time.Now().After(deadline) {
			ts.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
