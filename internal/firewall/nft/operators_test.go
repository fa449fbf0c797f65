package nft

import (
	"maps"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
	"banmesh/internal/firewall/testnet"
)

func TestObservedBansAreCountedForThoseWhoAskedForThem(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	h := testnet.Attach(t, "veth0", []string{"10.9.0.1/24"}, []string{"10.9.0.2/24", "10.9.0.3/24", "10.9.0.4/24", "10.9.0.200/24"})
	h.Proof = "10.9.0.200"
	web, proof := testnet.ListenUDP(t, "10.9.0.1:80"), testnet.ListenUDP(t, "10.9.0.1:9999")
	n := newTest(t, Options{})
	c := firewall.Config{Owner: firewall.OwnerNever, Scopes: []firewall.Scope{{Topic: "watched", Observe: true}, {Topic: "sshd", Ports: []uint16{22}}}}
	testnet.Must(t, n.Configure(ctx, c))
	until := time.Now().Add(time.Hour)
	by := func(topic ban.Topic, address, names string) firewall.Ban {
		return firewall.Ban{Prefix: testnet.Prefix(address), Topic: topic, Until: until, By: names}
	}
	wanted := []firewall.Ban{
		by("watched", "10.9.0.2", "bob,alice"), by("sshd", "10.9.0.2", "alice"),
		by("watched", "10.9.0.3", "bob"), by("watched", "10.9.0.4", "no name!,bob"),
	}
	testnet.Must(t, n.Replace(ctx, slices.Values(wanted)))
	send := func(from string) {
		t.Helper()
		if !h.Arrives(from, web, proof) {
			t.Errorf("%s does not arrive", from)
		}
	}
	for from, times := range map[string]int{"10.9.0.2": 2, "10.9.0.3": 1, "10.9.0.4": 4} {
		for range times {
			send(from)
		}
	}
	check := func(when string, whole, alice, bob uint64) {
		t.Helper()
		counters, err := n.Counters(ctx)
		testnet.Must(t, err)
		operators, err := n.Operators(ctx)
		testnet.Must(t, err)
		if counters["watched"].Packets != whole || operators["watched"]["alice"].Packets != alice || operators["watched"]["bob"].Packets != bob || len(operators) != 1 {
			t.Errorf("%s: the topic %+v, its operators %+v; want %d, alice %d, bob %d", when, counters["watched"], operators, whole, alice, bob)
		}
	}
	check("at first", 7, 2, 3)
	inStep(t, n)
	// Another one asks for it, too; who was first no longer does.
	testnet.Must(t, n.Apply(ctx, []firewall.Ban{by("watched", "10.9.0.3", "alice")}, nil))
	send("10.9.0.3")
	check("later", 8, 3, 3)
	if d, err := n.Check(ctx); err != nil || d.Changed {
		t.Errorf("%+v, %v", d, err)
	}
	// The next process takes away combinations that are no longer in use, and
	// the one after that finds everything as it should be.
	wanted[2].By = "alice"
	again := n
	var generations []uint32
	for range 2 {
		testnet.Must(t, again.Close())
		again = newTest(t, Options{})
		testnet.Must(t, again.Configure(ctx, c))
		testnet.Must(t, again.Replace(ctx, slices.Values(wanted)))
		generations = append(generations, generation(t))
	}
	if generations[0] != generations[1] {
		t.Errorf("an unchanged restart wrote: generations %d", generations)
	}
	// Enforced, nobody is told apart.
	c.Scopes[0].Observe = false
	testnet.Must(t, again.Configure(ctx, c))
	if operators, err := again.Operators(ctx); err != nil || len(operators) != 0 {
		t.Errorf("enforced: %+v, %v", operators, err)
	}
	if h.Arrives("10.9.0.3", web, proof) {
		t.Error("enforced, it still arrives")
	}
}

func TestLabelsAreListsOfPlainNames(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "alice": "alice", "bob,alice,bob": "alice,bob", "a b": "", "a,": "", "a.b": "", `a"; drop`: "",
		"i,h,g,f,e,d,c,b,a": "a,b,c,d,e,f,g,h",
	} {
		if got := desired.Label(in); got != want {
			t.Errorf("label(%q) = %q, want %q", in, got, want)
		}
	}
	got := operatorsOf(map[string]firewall.Counter{"topic_sshd": {Packets: 1, Bytes: 1}, "by_sshd.alice": {Packets: 2, Bytes: 2}, "by_sshd": {Packets: 3, Bytes: 3}})
	if len(got) != 1 || !maps.Equal(got["sshd"], map[string]firewall.Counter{"alice": {Packets: 2, Bytes: 2}}) {
		t.Errorf("%+v", got)
	}
}
