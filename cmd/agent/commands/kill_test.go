package commands

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banmesh/internal/firewall/testnet"
)

// A killingProxy stands between a command and the agent, and kills the agent in the
// middle of the request: so long after all of it was sent, or when the answer begins,
// which the command then does not get.
type killingProxy struct {
	node     *walkNode
	listener net.Listener
	answered bool          // wait for the answer to begin
	after    time.Duration // else so long after the request
	done     chan struct{}
}

func (n *walkNode) killing(path string, answered bool, after time.Duration) *killingProxy {
	l, err := net.Listen("unix", path)
	testnet.Must(n.t, err)
	p := &killingProxy{node: n, listener: l, answered: answered, after: after, done: make(chan struct{})}
	go p.serve()
	return p
}

// serve passes reading requests on and kills at the first one that changes something.
func (p *killingProxy) serve() {
	defer close(p.done)
	var group sync.WaitGroup
	defer group.Wait()
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		group.Go(func() {
			defer c.Close()
			agent, err := net.Dial("unix", filepath.Join(p.node.dir, "agent.sock"))
			if err != nil {
				return
			}
			defer agent.Close()
			request := make([]byte, 64<<10)
			for {
				n, err := c.Read(request)
				if err != nil {
					return
				}
				if _, err := agent.Write(request[:n]); err != nil {
					return
				}
				answer := make([]byte, 64<<10)
				if strings.HasPrefix(string(request[:n]), "GET ") {
					if n, err = agent.Read(answer); err != nil {
						return
					}
					if _, err := c.Write(answer[:n]); err != nil {
						return
					}
					continue
				}
				if p.answered {
					_, _ = agent.Read(answer) // an answer, or the end of the agent
				} else if p.after > 0 {
					<-time.After(p.after)
				}
				_ = p.node.run.Process.Kill()
				_, _ = io.Copy(io.Discard, agent)
				return
			}
		})
	}
}

func (p *killingProxy) close() {
	p.listener.Close()
	<-p.done
}

// TestAKillDuringACommandLeavesTheStateBeforeOrAfterIt kills the agent when a command's request was sent and
// its answer was not received. The command then does not say that it was done. After
// the next start all that it was about is as before it or as after it, and the kernel
// is as the ledger.
func TestAKillDuringACommandLeavesTheStateBeforeOrAfterIt(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not here")
	}
	t.Parallel()
	testnet.Enter(t)
	n := newWalkNode(t, "[topics.sshd]\nfiles = []\njournal = []\n")
	kills := 0
	for i, x := range []struct {
		answered bool
		after    time.Duration
	}{{after: 0}, {after: time.Millisecond}, {after: 4 * time.Millisecond}, {answered: true}} {
		targets := []string{fmt.Sprintf("203.0.113.%d", 10+i), fmt.Sprintf("203.0.113.%d", 20+i), fmt.Sprintf("2001:db8:%d::/64", i+1)}
		for _, args := range []string{"ban " + strings.Join(targets, " "), "unban " + targets[0], "withdraw " + targets[1], "ban --for 1h 198.51.100.1"} {
			about := strings.Fields(args)[1:]
			if about[0] == "--for" {
				about = about[2:]
			}
			before := n.states(about)
			proxy := n.killing(filepath.Join(n.dir, fmt.Sprintf("proxy%d", kills)), x.answered, x.after)
			c := n.command(append(strings.Fields(args), "--socket", proxy.listener.Addr().String())...)
			out, err := c.CombinedOutput()
			proxy.close()
			if err == nil {
				t.Errorf("agent %s: the agent was killed, and it says %s", args, out)
			}
			kills++
			n.kill()
			n.start()
			after := n.states(about)
			for _, state := range after {
				if state != after[0] {
					t.Errorf("agent %s, killed in between (answered %t, after %s): before %v, now %v", args, x.answered, x.after, before, after)
					break
				}
			}
			if x.answered && strings.HasPrefix(args, "ban") && after[0] != "ban" {
				t.Errorf("agent %s was answered, and is lost: %v", args, after)
			}
			// The next step begins where this one wanted to be.
			if _, refusal, err := n.do("", strings.Fields(args)...); err != nil && !strings.HasPrefix(args, "withdraw") && !strings.HasPrefix(args, "unban") {
				t.Errorf("agent %s again: %v, %s", args, err, refusal)
			}
		}
	}
}

// states gives the verdict on each target, and fails where the kernel has another one.
func (n *walkNode) states(targets []string) (list []string) {
	n.t.Helper()
	for _, x := range targets {
		is := n.is(x)
		if dropped := n.dropped(x); dropped != (is == "ban") {
			n.t.Errorf("%s: the ledger says %s, that the kernel drops it is %t", x, is, dropped)
		}
		list = append(list, is)
	}
	return list
}
