package firewall

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
)

func TestObservedBansAreCountedForThoseWhoAskedForThem(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	h := attach(t, "veth0", []string{"10.9.0.1/24"}, []string{"10.9.0.2/24", "10.9.0.3/24", "10.9.0.4/24", "10.9.0.200/24"})
	h.proof = "10.9.0.200"
	web, proof := listenUDP(t, "10.9.0.1:80"), listenUDP(t, "10.9.0.1:9999")
	n := newTest(t, Options{})
	c := Config{Owner: OwnerNever, Scopes: []Scope{{Topic: "watched", Observe: true}, {Topic: "sshd", Ports: []uint16{22}}}}
	mustDo(t, n.Configure(ctx, c))
	until := time.Now().Add(time.Hour)
	by := func(topic ban.Topic, address, names string) Ban {
		return Ban{Prefix: pfx(address), Topic: topic, Until: until, By: names}
	}
	wanted := []Ban{
		by("watched", "10.9.0.2", "bob,alice"), by("sshd", "10.9.0.2", "alice"),
		by("watched", "10.9.0.3", "bob"), by("watched", "10.9.0.4", "no name!,bob"),
	}
	mustDo(t, n.Replace(ctx, slices.Values(wanted)))
	send := func(from string) {
		t.Helper()
		if !h.arrives(from, web, proof) {
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
		mustDo(t, err)
		operators, err := n.Operators(ctx)
		mustDo(t, err)
		if counters["watched"].Packets != whole || operators["watched"]["alice"].Packets != alice || operators["watched"]["bob"].Packets != bob || len(operators) != 1 {
			t.Errorf("%s: the topic %+v, its operators %+v; want %d, alice %d, bob %d", when, counters["watched"], operators, whole, alice, bob)
		}
	}
	check("at first", 7, 2, 3)
	inStep(t, n)
	// Another one asks for it, too; who was first no longer does.
	mustDo(t, n.Apply(ctx, []Ban{by("watched", "10.9.0.3", "alice")}, nil))
	send("10.9.0.3")
	check("later", 8, 3, 3)
	if d, err := n.Check(ctx); err != nil || d.Changed {
		t.Errorf("%+v, %v", d, err)
	}
	// The next process takes away what combinations are no longer in use, and
	// the one after that finds everything as it should be.
	wanted[2].By = "alice"
	again := n
	var generations []uint32
	for range 2 {
		mustDo(t, again.Close())
		again = newTest(t, Options{})
		mustDo(t, again.Configure(ctx, c))
		mustDo(t, again.Replace(ctx, slices.Values(wanted)))
		generations = append(generations, generation(t))
	}
	if generations[0] != generations[1] {
		t.Errorf("an unchanged restart wrote: generations %d", generations)
	}
	// Enforced, nobody is told apart.
	c.Scopes[0].Observe = false
	mustDo(t, again.Configure(ctx, c))
	if operators, err := again.Operators(ctx); err != nil || len(operators) != 0 {
		t.Errorf("enforced: %+v, %v", operators, err)
	}
	if h.arrives("10.9.0.3", web, proof) {
		t.Error("enforced, it still arrives")
	}
}

func TestManyCombinationsOfOperatorsRefuseNoBan(t *testing.T) {
	f := NewFake(nil)
	ctx := testContext(t)
	mustDo(t, f.Configure(ctx, Config{Scopes: []Scope{{Topic: "watched", Observe: true}}, Cap: 10_000}))
	mustDo(t, f.Replace(ctx, func(yield func(Ban) bool) {
		for i := range 5_000 {
			if !yield(Ban{Prefix: pfx(fmt.Sprintf("10.0.%d.%d", i>>8, i&255)), Topic: "watched", By: fmt.Sprintf("o%d,p%d", i%97, i/97)}) {
				return
			}
		}
	}))
	if d, err := f.Check(ctx); err != nil || d.Bans != 5_000 {
		t.Errorf("%+v, %v", d, err)
	}
	if got := len(f.state.classes); got > maxLabelled+1 {
		t.Errorf("%d classes", got)
	}
}

func TestLabelsAreListsOfPlainNames(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "alice": "alice", "bob,alice,bob": "alice,bob", "a b": "", "a,": "", "a.b": "", `a"; drop`: "",
		"i,h,g,f,e,d,c,b,a": "a,b,c,d,e,f,g,h",
	} {
		if got := label(in); got != want {
			t.Errorf("label(%q) = %q, want %q", in, got, want)
		}
	}
	got := operatorsOf(map[string]Counter{"topic_sshd": {1, 1}, "by_sshd.alice": {2, 2}, "by_sshd": {3, 3}})
	if len(got) != 1 || !maps.Equal(got["sshd"], map[string]Counter{"alice": {2, 2}}) {
		t.Errorf("%+v", got)
	}
}
