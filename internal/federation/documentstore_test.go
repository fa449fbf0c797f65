package federation

import (
	"crypto"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/wire"
)

// office is the root key of a node, as commands open it.
func (n *testNode) office() *keys.Store {
	n.tb.Helper()
	o, err := keys.OpenStore(filepath.Join(n.dir, "keys"))
	if err != nil {
		n.tb.Fatal(err)
	}
	return o
}

func operatorNamed(s string) ban.Operator { return ban.OperatorOf([]byte(s)) }

// trusts gives the names on an operator's list as a node holds it.
func (n *testNode) trusts(o ban.Operator) (names []string) {
	for _, l := range n.s.TrustLists() {
		if l.Operator == o {
			for _, t := range l.Trusted {
				names = append(names, t.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func TestATrustListReachesWhoReadsItAndOutlivesARestart(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *testBroker) {
		alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
		o := alice.id.Operator()
		at := time.Now()
		if _, err := alice.office().PublishTrust("testnet", at, []wire.Trusted{{Operator: operatorNamed("carol"), Weight: 100, Name: "carol"}}); err != nil {
			t.Fatal(err)
		}
		bob.s.ReadDocuments([]ban.Operator{o}, nil)
		alice.run()
		bob.run()
		await(t, "the list", func() bool { return slices.Equal(bob.trusts(o), []string{"carol"}) })
		select {
		case <-bob.s.News():
		case <-time.After(10 * time.Second):
			t.Error("nobody was told of the news")
		}
		// A second version while the agent runs.
		more := []wire.Trusted{{Operator: operatorNamed("carol"), Weight: 100, Name: "carol"}, {Operator: operatorNamed("dave"), Weight: 50, Follows: true, Name: "dave"}}
		if _, err := alice.office().PublishTrust("testnet", at, more); err != nil {
			t.Fatal(err)
		}
		alice.s.Refresh()
		await(t, "the second version", func() bool { return slices.Equal(bob.trusts(o), []string{"carol", "dave"}) })
		if l := bob.s.TrustLists()[0]; !slices.ContainsFunc(l.Trusted, func(x wire.Trusted) bool { return x.Name == "dave" && x.Follows && x.Weight == 50 }) {
			t.Errorf("the list is %+v", l)
		}
		bob.stop()
		b.stop()
		bob.open()
		if got := bob.trusts(o); got != nil {
			t.Errorf("%v although nobody's lists are read", got)
		}
		bob.s.ReadDocuments([]ban.Operator{o}, nil)
		if got := bob.trusts(o); !slices.Equal(got, []string{"carol", "dave"}) {
			t.Errorf("after a restart without a broker: %v", got)
		}
	})
}

func TestATopicDefinitionIsPublishedAndWithdrawn(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	o := alice.id.Operator()
	at := time.Now()
	publish := func(text string) {
		t.Helper()
		if _, err := alice.office().PublishDefinition("testnet", "jellyfin", at, text); err != nil {
			t.Fatal(err)
		}
		alice.s.Refresh()
	}
	publish("name = 'jellyfin'\n")
	bob.s.ReadDocuments(nil, []ban.Operator{o})
	alice.run()
	bob.run()
	await(t, "the definition", func() bool {
		d := bob.s.Definitions()
		return len(d) == 1 && d[0].Text == "name = 'jellyfin'\n" && d[0].Topic == "jellyfin" && d[0].Operator == o
	})
	publish("")
	await(t, "the withdrawal", func() bool { return len(bob.s.Definitions()) == 0 })
	bob.s.mu.Lock()
	held := len(bob.s.documents.held)
	bob.s.mu.Unlock()
	if held != 1 {
		t.Errorf("%d documents are held: what was withdrawn must stay a mark against replays", held)
	}
}

func TestAListOfWalletsReachesWhoReadsItsTopic(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *testBroker) {
		alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
		o := alice.id.Operator()
		at := time.Now()
		publish := func(topic ban.Topic, l wire.List) {
			t.Helper()
			if _, err := alice.office().PublishList("testnet", topic, at, l); err != nil {
				t.Fatal(err)
			}
			alice.s.Refresh()
		}
		w := [20]byte{7}
		publish("gateway-spam", wire.List{Name: "spam"})
		publish("gateway-payment", wire.List{Name: "unpaid", Contact: "appeals@example.org", Entries: []wire.Listed{{Wallet: w, Note: "case 7"}}})
		bob.s.ReadLists([]Following{{"gateway-payment", o}})
		alice.run()
		bob.run()
		await(t, "the list", func() bool { return len(bob.s.Lists()) == 1 })
		l := bob.s.Lists()[0]
		if e, ok := l.Find(w); !ok || e.Note != "case 7" || l.Contact != "appeals@example.org" || l.Operator != o || l.Topic != "gateway-payment" {
			t.Errorf("the list is %+v", l)
		}
		if _, ok := l.Find([20]byte{8}); ok {
			t.Error("a wallet is found that the list does not name")
		}
		bob.stop()
		bob.open()
		bob.s.ReadLists([]Following{{"gateway-payment", o}})
		if len(bob.s.Lists()) != 1 {
			t.Error("the list is lost with a restart")
		}
		bob.run()
		publish("gateway-payment", wire.List{})
		await(t, "the withdrawal", func() bool { return len(bob.s.Lists()) == 0 })
	})
}

func TestADocumentIsRefusedThatIsOldMisplacedDamagedOrUnwanted(t *testing.T) {
	t.Parallel()
	n := newNode(t, "bob")
	root, other := testKey("root"), testKey("other")
	o := ban.OperatorOf(publicOfRoot(root))
	list := func(number uint64, issued time.Time, name string) []byte {
		raw, err := wire.SignTrust(root, "testnet", number, issued, wire.Trust{Operators: []wire.Trusted{{Operator: operatorNamed(name), Name: name}}})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	at := wire.Name{Network: "testnet", Kind: wire.KindTrust, Operator: o}
	give := func(payload []byte) {
		n.s.receive(packet{topic: at.String(), payload: payload})
		if err := n.s.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(reason string, payload []byte) {
		t.Helper()
		before := n.s.Counts().Refused[reason]
		give(payload)
		if n.s.Counts().Refused[reason] != before+1 {
			t.Errorf("not refused for %s: %v", reason, n.s.Counts().Refused)
		}
	}
	now := time.Now()
	expect(refusedUnknown, list(7, now, "carol"))
	n.s.ReadDocuments([]ban.Operator{o}, []ban.Operator{o})
	give(list(7, now, "carol"))
	if got := n.trusts(o); !slices.Equal(got, []string{"carol"}) {
		t.Fatalf("%v", got)
	}
	expect(refusedReplay, list(6, now, "mallory"))
	expect(refusedFuture, list(8, now.Add(time.Hour), "mallory"))
	expect(refusedEmpty, nil)
	flipped := list(8, now, "mallory")
	flipped[len(flipped)-1] ^= 1
	expect(refusedSignature, flipped)
	foreign, err := wire.SignTrust(other, "testnet", 9, now, wire.Trust{})
	if err != nil {
		t.Fatal(err)
	}
	expect(refusedMisplaced, foreign)
	give(list(7, now, "mallory")) // a second story of the same number
	if got := n.trusts(o); !slices.Equal(got, []string{"carol"}) {
		t.Errorf("%v after the refusals", got)
	}
	// The mark outlives a restart.
	n.stop()
	n.open()
	n.s.ReadDocuments([]ban.Operator{o}, []ban.Operator{o})
	expect(refusedReplay, list(6, now, "mallory"))

	for i := range MaxDefinitions + 3 {
		topic := ban.Topic(fmt.Sprintf("t%d", i))
		raw, err := wire.SignDefinition(root, "testnet", topic, 1, now, "x")
		if err != nil {
			t.Fatal(err)
		}
		n.s.receive(packet{topic: wire.Name{Network: "testnet", Kind: wire.KindDefinition, Topic: topic, Operator: o}.String(), payload: raw})
	}
	if got := len(n.s.Definitions()); got != MaxDefinitions {
		t.Errorf("%d definitions are kept, at most %d", got, MaxDefinitions)
	}
	for i := range documentBurst {
		give(list(uint64(100+i), now, "dave"))
	}
	if n.s.Counts().Refused[refusedRate] == 0 {
		t.Error("a flood of documents is taken without a limit")
	}
}

func TestANodeAdoptsWhatAnotherNodeOfItsOperatorPublishes(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	one, two := newNode(t, "one", b.url), newNode(t, "two", b.url)
	two.stop()
	for _, name := range []string{"operator.key", "operator.card"} {
		raw, err := os.ReadFile(filepath.Join(one.dir, "keys", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(two.dir, "keys", name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	two.open()
	if err := two.id.UpdateCard(time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	o := one.id.Operator()
	if _, err := one.office().PublishTrust("testnet", time.Now(), []wire.Trusted{{Operator: operatorNamed("carol"), Name: "carol"}}); err != nil {
		t.Fatal(err)
	}
	one.run()
	two.run()
	two.s.ReadDocuments([]ban.Operator{o}, nil)
	await(t, "the list", func() bool { return slices.Equal(two.trusts(o), []string{"carol"}) })
	one.stop()
	// A broker that lost everything is filled by the node that is left.
	b.stop()
	b.start()
	carol := newNode(t, "carol", b.url)
	carol.s.ReadDocuments([]ban.Operator{o}, nil)
	carol.run()
	await(t, "the list from the other node", func() bool { return slices.Equal(carol.trusts(o), []string{"carol"}) })
}

func TestDocumentsBesideTheKeysAreCheckedBeforeTheyArePublished(t *testing.T) {
	t.Parallel()
	n := newNode(t, "alice")
	dir := filepath.Join(n.dir, "keys", "documents")
	if _, err := n.office().PublishTrust("testnet", time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	foreign, err := wire.SignTrust(testKey("other"), "testnet", 9, time.Now(), wire.Trust{})
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"foreign.signed": foreign, "rubbish.signed": []byte("x"), "large.signed": make([]byte, wire.MaxPayload+1), "note.txt": []byte("x")} {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list, err := n.id.Documents()
	if len(list) != 1 || err == nil {
		t.Errorf("%d documents, %v", len(list), err)
	}
	// A lower number never replaces a higher one.
	old, err := wire.SignTrust(rootOf(n), "testnet", 1, time.Now(), wire.Trust{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.KeepDocument(filepath.Join(n.dir, "keys"), old); err == nil {
		t.Error("an older document replaced a newer one")
	}
}

func publicOfRoot(k interface{ Public() crypto.PublicKey }) []byte {
	return k.Public().(ed25519.PublicKey)
}

// rootOf gives a node's operator's root key.
func rootOf(n *testNode) ed25519.PrivateKey {
	key, err := n.id.Root()
	if err != nil {
		panic(err)
	}
	return key
}
