package broker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"banmesh/internal/broker"
	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/mqttclient"
	"banmesh/internal/federation"
	"banmesh/test/broker/load"
)

// ingress is an open broker of ours, to which anybody may publish.
func ingress(t *testing.T) string {
	t.Helper()
	b, err := broker.New(broker.Options{Open: true, Anonymous: broker.AccessFull, Listeners: []broker.Listener{{Kind: broker.TCP, Address: "127.0.0.1:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	runs(t, b.Run)
	return b.Addr().String()
}

// runs runs f until the test ends.
func runs(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// admitted wants that a server that agents may only read carries a network: the
// gateway fills it from an ingress, again after it lost everything, and nobody
// else can.
func admitted(t *testing.T, port int, restart func()) {
	t.Helper()
	in := ingress(t)
	network := federation.Broker{URL: fmt.Sprintf("tcp://127.0.0.1:%d", port), User: "reader", Password: "reader"}
	s, err := broker.NewGateway(broker.GatewayOptions{
		Network: "net",
		Ingress: mqttclient.Endpoint{URL: "tcp://" + in, ClientID: "banmesh-admit"},
		Target:  mqttclient.Endpoint{URL: network.URL, ClientID: "banmesh-admit", User: "admit", Password: "secret"},
	})
	if err != nil {
		t.Fatal(err)
	}
	runs(t, s.Run)
	alice, bob := connect(t, "alice", federation.Broker{URL: "tcp://" + in}, network), connect(t, "bob", network)
	alice.publishes()
	bob.follows(alice)
	alice.say(0, 50)
	eventually(t, "bob has all of it", func() bool { return bob.has() == 50 })

	// Unsigned messages stay outside, whoever brings it where.
	garbage, at := frame.AppendPublish(nil, "banmesh/1/net/sshd/garbage", []byte("x"), 1, true)
	garbage[at+1] = 1
	direct, err := load.DialUser(fmt.Sprintf("127.0.0.1:%d", port), "vandal", "reader", "reader", 60)
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	open, err := load.Dial(in, "vandal", 60)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for _, c := range []*load.Conn{direct, open} {
		if _, err := c.Write(garbage); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		_, _, _ = c.ReadPacket() // an acknowledgement, or the end of the connection
	}
	alice.say(50, 60)
	eventually(t, "bob hears on", func() bool { return bob.has() == 60 })
	watcher, err := load.DialUser(fmt.Sprintf("127.0.0.1:%d", port), "watcher", "reader", "reader", 60)
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	if err := watcher.Subscribe("banmesh/1/net/sshd/garbage", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := watcher.Write([]byte{frame.Pingreq << 4, 0}); err != nil {
		t.Fatal(err)
	}
	_ = watcher.SetReadDeadline(time.Now().Add(patience))
	if first, body, err := watcher.ReadPacket(); err != nil || first>>4 != frame.Pingresp {
		t.Errorf("garbage is in the network: %x %q, %v", first, body, err)
	}

	restart()
	alice.say(60, 70)
	carol := connect(t, "carol", network)
	carol.follows(alice)
	eventually(t, "a late joiner converges though the network was wiped", func() bool { return carol.has() == 70 })
	eventually(t, "bob too", func() bool { return bob.has() == 70 })
}

func TestTheGatewayAloneWritesToANATSServer(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds nats-server")
	}
	binary := natsServer(t)
	port := freePort(t)
	permissions := deployed(t, "nats/permissions.conf", "$2a$11$change.me", "secret")
	start := func() func() {
		conf := filepath.Join(filepath.Dir(permissions), "nats.conf")
		text := fmt.Sprintf("server_name: one\nlisten: \"127.0.0.1:-1\"\njetstream { store_dir: %q, limits { default_max_consumers: -1 } }\nmqtt { listen: \"127.0.0.1:%d\", consumer_memory_storage: true }\ninclude \"permissions.conf\"\n",
			t.TempDir(), port)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return server(t, port, binary, "-c", conf)
	}
	kill := start()
	admitted(t, port, func() { kill(); start() })
}

func TestTheGatewayAloneWritesToAMosquitto(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		t.Skip("mosquitto is not installed")
	}
	port := freePort(t)
	acl := deployed(t, "mosquitto/admitted.acl")
	passwords := filepath.Join(t.TempDir(), "passwords")
	for _, arg := range [][]string{{"-c", "-b", passwords, "admit", "secret"}, {"-b", passwords, "reader", "reader"}} {
		if out, err := exec.Command("mosquitto_passwd", arg...).CombinedOutput(); err != nil {
			t.Skipf("mosquitto_passwd: %v\n%s", err, out)
		}
	}
	conf := deployed(t, "mosquitto/admitted.conf", "listener 1883", fmt.Sprintf("listener %d 127.0.0.1", port), "password_file /etc/mosquitto/banmesh.passwd", "password_file "+passwords, "/etc/mosquitto/admitted.acl", acl, "persistence true", "persistence false")
	if os.Geteuid() == 0 {
		f, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString("\nuser root\n") // so that it can read the test's files
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	kill := server(t, port, path, "-c", conf)
	admitted(t, port, func() { kill(); server(t, port, path, "-c", conf) })
}
