package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/mqttclient"
	"banmesh/internal/federation"
	"banmesh/internal/natsindex"
)

// retainAt publishes a retained message, and says whether it was acknowledged.
func retainAt(t *testing.T, url, topic string) bool {
	t.Helper()
	c, err := mqttclient.Dial(t.Context(), mqttclient.Endpoint{URL: url, ClientID: "writer"})
	if err != nil {
		return false
	}
	defer c.Close()
	b, at := frame.AppendPublish(nil, topic, []byte("x"), 1, true)
	b[at+1] = 1
	if err := c.Send(b); err != nil {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	first, _, err := c.ReadPacket()
	return err == nil && first>>4 == frame.Puback
}

// handsOut says whether a newcomer at the broker is handed a topic's message.
func handsOut(t *testing.T, url, topic string) bool {
	t.Helper()
	c, err := mqttclient.Dial(t.Context(), mqttclient.Endpoint{URL: url, ClientID: "newcomer"})
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.Request(topic, 0); err != nil {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	for {
		first, _, err := c.ReadPacket()
		if err != nil || first>>4 == frame.Publish {
			return err == nil
		}
	}
}

// One node of a cluster dies with the indexes of others that it fed. Those
// acknowledge messages and hand out none of them: their monitoring shows which,
// and agents leave them.
func TestAServerWhoseIndexDiedIsToldAndLeft(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds nats-server")
	}
	var monitors []string
	urls, kills := natsCluster(t, func(int) string {
		at := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		monitors = append(monitors, "http://"+at)
		return fmt.Sprintf("\nhttp: %q\n", at)
	})
	for _, u := range urls { // the first client makes the index
		eventually(t, "it serves MQTT", func() bool { return retainAt(t, u, "probe/first") })
	}
	read := func() []natsindex.Server { return natsindex.Read(t.Context(), monitors) }
	var servers []natsindex.Server
	eventually(t, "each index is fed", func() bool {
		servers = read()
		return !slices.ContainsFunc(servers, func(s natsindex.Server) bool { return s.State != natsindex.Fed || s.Holder == "" })
	})
	victim := slices.IndexFunc(servers, func(s natsindex.Server) bool {
		return slices.ContainsFunc(servers, func(o natsindex.Server) bool { return o.Name != s.Name && o.Holder == s.Name })
	})
	victim = max(victim, 0) // where each feeds its own, nobody loses any
	kills[victim]()
	alive := slices.Delete(slices.Clone(urls), victim, victim+1)

	fed, lost, tries := "", "", 0
	eventually(t, "monitoring says of each survivor whether it hands out new messages", func() bool {
		tries++
		topic := fmt.Sprintf("probe/later%d", tries)
		if !retainAt(t, alive[0], topic) {
			return false
		}
		servers, fed, lost = read(), "", ""
		for i, u := range urls {
			switch s := servers[i]; {
			case i == victim:
			case s.State == natsindex.Unknown || (s.State == natsindex.Fed) != handsOut(t, u, topic):
				return false
			case s.State == natsindex.Fed:
				fed = u
			default:
				lost = u
			}
		}
		return true
	})
	t.Logf("%+v", servers)
	if fed == "" || lost == "" {
		return // all indexes are alike: no address is better than another
	}
	alice := connect(t, "alice", federation.Broker{URL: fed})
	alice.publishes()
	alice.say(0, 20)
	carol := connect(t, "carol", federation.Broker{URL: lost, Others: []string{fed}, Avoid: func(address string) bool { return address == lost }})
	carol.follows(alice)
	eventually(t, "a newcomer whose first address is the lost one has everything", func() bool { return carol.has() == 20 })
	if got := carol.s.Brokers()[0].URL; got != fed {
		t.Errorf("it is at %s", got)
	}
}
