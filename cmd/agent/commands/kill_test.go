package commands

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"banmesh/internal/firewall/testnet"
)

// A killPoint is when an agent is killed during a command: at the request-th request that
// changes something, when its answer begins, which the command then does not get, or as
// soon as all of the request was sent.
type killPoint struct {
	request  int
	answered bool
}

// killPoints are those of a step: no command sends more than two requests.
var killPoints = []killPoint{{1, false}, {1, true}, {2, false}, {2, true}}

var everyKill = flag.Bool("every-kill", false, "kill the agent at every point of every step of the walk, not at one of every fourth")

// A killingProxy stands between a command and the agent, and kills the agent at a point.
type killingProxy struct {
	node     *walkNode
	listener net.Listener
	at       killPoint
	requests atomic.Int32 // that change something
	done     chan struct{}
}

func (n *walkNode) killing(at killPoint) *killingProxy {
	n.proxies++
	l, err := net.Listen("unix", filepath.Join(n.dir, fmt.Sprintf("proxy%d", n.proxies)))
	testnet.Must(n.t, err)
	p := &killingProxy{node: n, listener: l, at: at, done: make(chan struct{})}
	go p.serve()
	return p
}

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
			p.pass(c)
		})
	}
}

// pass hands one request on, and its answer back unless it is the one to kill at.
func (p *killingProxy) pass(c net.Conn) {
	agent, err := net.Dial("unix", filepath.Join(p.node.dir, "agent.sock"))
	if err != nil {
		return
	}
	defer agent.Close()
	request := make([]byte, 64<<10)
	n, err := c.Read(request)
	if err != nil {
		return
	}
	if _, err := agent.Write(request[:n]); err != nil {
		return
	}
	if bytes.HasPrefix(request, []byte("GET ")) || p.requests.Add(1) != int32(p.at.request) {
		_, _ = io.Copy(c, agent)
		return
	}
	if p.at.answered {
		_, _ = agent.Read(make([]byte, 1)) // an answer, or the end of the agent
	}
	_ = p.node.run.Process.Kill()
	_, _ = io.Copy(io.Discard, agent)
}

// close says whether the agent was killed.
func (p *killingProxy) close() (killed bool) {
	p.listener.Close()
	<-p.done
	return int(p.requests.Load()) >= p.at.request
}

// killDuring runs a command and kills the agent at a point of it, then starts it again.
// It says whether the command came to that point.
func (n *walkNode) killDuring(at killPoint, input string, args ...string) (killed bool) {
	n.t.Helper()
	proxy := n.killing(at)
	out, refusal, err := n.do(input, append(args, "--socket", proxy.listener.Addr().String())...)
	if killed = proxy.close(); !killed {
		return false
	}
	if err == nil || !strings.Contains(refusal, "unknown") {
		n.t.Errorf("agent %s: the agent was killed at %+v, and it says %s, %v: %s", args, at, out, err, refusal)
	}
	n.kill()
	n.start()
	return true
}

// TestAKillDuringACommandLeavesTheStateBeforeOrAfterIt kills the agent when a command's
// request was sent and its answer was not received. The command then says that it does
// not know whether it was done. After the next start all that it was about is as before
// it or as after it, and the kernel is as the ledger.
func TestAKillDuringACommandLeavesTheStateBeforeOrAfterIt(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not here")
	}
	t.Parallel()
	testnet.Enter(t)
	n := newWalkNode(t, "[topics.sshd]\nfiles = []\njournal = []\n")
	for i, at := range []killPoint{{1, false}, {1, true}} {
		targets := []string{fmt.Sprintf("203.0.113.%d", 10+i), fmt.Sprintf("203.0.113.%d", 20+i), fmt.Sprintf("2001:db8:%d::/64", i+1)}
		for _, step := range []struct {
			args  []string
			about []string
		}{
			{append([]string{"ban"}, targets...), targets},
			{[]string{"unban", targets[0]}, targets[:1]},
			{[]string{"withdraw", targets[1]}, targets[1:2]},
		} {
			before := n.states(step.about)
			n.killDuring(at, "", step.args...)
			after := n.states(step.about)
			if len(slices.Compact(slices.Clone(after))) != 1 {
				t.Errorf("agent %s, killed at %+v: before %v, now %v", step.args, at, before, after)
			}
			if at.answered && step.args[0] == "ban" && after[0] != "ban" {
				t.Errorf("agent %s was answered, and is lost: %v", step.args, after)
			}
			// The next step begins where this one wanted to be.
			if _, refusal, err := n.do("", step.args...); err != nil && step.args[0] == "ban" {
				t.Errorf("agent %s again: %v, %s", step.args, err, refusal)
			}
		}
	}
}

// TestACommandThatLosesItsAgentCanBeRepeated kills the agent at the points of the steps
// of the walk, at a few of them unless -every-kill asks for all, as make churn-short does. Ledger and kernel agree afterwards, and the command then leads to the
// state that the step says, whether it had been done or not.
func TestACommandThatLosesItsAgentCanBeRepeated(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not here")
	}
	t.Parallel()
	testnet.Enter(t)
	node, alice, fill := newWalk(t)
	for i, step := range walk {
		node.before(alice, step)
		args := strings.Fields(fill.Replace(step.args))
		points := killPoints
		if !*everyKill {
			points = killPoints[:0]
			if i%4 == 0 {
				points = killPoints[i/4%2:][:1]
			}
		}
		for _, at := range points {
			if step.refused != "" && step.drops == "" || !node.killDuring(at, step.input, args...) {
				break // it changes nothing, or sends no more requests
			}
			if args[0] != "firewall" && args[0] != "denylist" {
				node.states(strings.Fields(step.drops + " " + step.passes))
			}
		}
		_, _, _ = node.do(step.input, args...) // it may be done already, and be refused for that
		node.check(step, "when it was killed and repeated", fill)
		if t.Failed() {
			return
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
