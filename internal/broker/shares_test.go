package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// trusts gives an operator's trust list, and its topic.
func (a *author) trusts(t *testing.T, serial uint64, of ...*author) (topic, payload string) {
	t.Helper()
	list := wire.Trust{}
	for _, o := range of {
		list.Operators = append(list.Operators, wire.Trusted{Operator: o.feed.Operator, Weight: 50, Name: "friend"})
	}
	b, err := wire.SignTrust(a.root, "net", serial, a.now, list)
	if err != nil {
		t.Fatal(err)
	}
	return wire.Name{Network: "net", Kind: wire.KindTrust, Operator: a.feed.Operator}.String(), string(b)
}

// fill puts chunks of an author until one is refused, and gives how many bytes
// its operator has retained then.
func (a *author) fill(b *Broker, put func(topic, payload string) refusal) (bytes int, why refusal) {
	for i := 0; ; i++ {
		topic, chunk := a.chunk(i, 1)
		if why := put(topic, chunk); why != admitted {
			return b.store.Standing(a.feed.Operator.String()).Group.Bytes, why
		}
	}
}

func TestANewcomersShareGrowsWithItsAge(t *testing.T) {
	t.Parallel()
	uptime := time.Hour
	b, put := offline(t, &uptime, Limits{NewcomerBytes: 8 << 10, OperatorBytes: 64 << 10})
	a := newAuthor("alice")
	mustPut(t, put)(a.card(t, 1))
	last := 0
	for day, most := range []int{8 << 10, 16 << 10, 32 << 10, 64 << 10, 64 << 10} {
		uptime = time.Hour + time.Duration(day)*24*time.Hour
		bytes, why := a.fill(b, put)
		if why != refusedQuota || bytes > most || bytes < most-1024 || bytes < last {
			t.Errorf("on day %d: %d bytes, refused for %q; its share is %d", day, bytes, why, most)
		}
		last = bytes
	}
}

func TestWhoIsVouchedForHasAFullShareAtOnce(t *testing.T) {
	t.Parallel()
	uptime := time.Hour
	friend, friendOfFriend, stranger := newAuthor("friend"), newAuthor("friend of friend"), newAuthor("stranger")
	b, put := offline(t, &uptime, Limits{NewcomerBytes: 4 << 10, OperatorBytes: 16 << 10})
	b.admission.vouch([]ban.Operator{friend.feed.Operator})
	must := mustPut(t, put)
	for _, a := range []*author{friend, friendOfFriend, stranger} {
		must(a.card(t, 1))
	}
	must(friend.trusts(t, 1, friendOfFriend))
	must(stranger.trusts(t, 1, stranger)) // vouches for nobody
	for a, most := range map[*author]int{friend: 16 << 10, friendOfFriend: 16 << 10, stranger: 4 << 10} {
		if bytes, why := a.fill(b, put); why != refusedQuota || bytes > most || bytes < most-1024 {
			t.Errorf("%d bytes, refused for %q; the share is %d", bytes, why, most)
		}
	}
	must(friend.trusts(t, 2)) // it takes its word back
	if b.admission.known(friendOfFriend.feed.Operator) {
		t.Error("nobody vouches any more, and it is known")
	}
}

func TestTheNewestUnknownMakeRoom(t *testing.T) {
	t.Parallel()
	uptime := time.Hour
	b, put := offline(t, &uptime, Limits{NewcomerBytes: 8 << 10, OperatorBytes: 16 << 10, TotalBytes: 40 << 10})
	must := mustPut(t, put)
	old := newAuthor("old")
	must(old.card(t, 1))
	uptime += historyTime + time.Hour
	var fresh []*author
	for i := range 6 { // more than there is room for
		uptime += time.Second
		a := newAuthor(fmt.Sprint("fresh ", i))
		fresh = append(fresh, a)
		if why := put(a.card(t, 1)); why != admitted && why != refusedQuota {
			t.Fatalf("refused: %s", why)
		}
		a.fill(b, put)
	}
	if all := b.store.Status().Bytes; all > 40<<10 {
		t.Fatalf("%d bytes are retained", all)
	}
	// Who has history gets its share, and the newest pay for it.
	bytes, _ := old.fill(b, put)
	if bytes < 15<<10 {
		t.Errorf("an operator with history has %d bytes", bytes)
	}
	if b.store.Standing(fresh[0].feed.Operator.String()).Group.Messages == 0 {
		t.Error("the oldest newcomer was evicted before the newest")
	}
	held := 0
	for _, a := range fresh {
		if b.store.Standing(a.feed.Operator.String()).Group.Messages > 0 {
			held++
		} else if b.admission.cards[a.feed.Operator] != nil {
			t.Error("the card of an evicted operator is remembered")
		}
	}
	if held == len(fresh) {
		t.Error("nobody was evicted")
	}
}

func TestStrangersKeysFillOnlyTheirShare(t *testing.T) {
	t.Parallel()
	// A hundred free keys of one address; few are new operators at once.
	w := newPerIPLimit()
	now := time.Now()
	n := 0
	for range 100 {
		if w.newcomer(addr("192.0.2.1"), now) {
			n++
		}
	}
	if n != newcomerBurst {
		t.Errorf("%d new operators of one address", n)
	}
	for i := range 1000 {
		if w.newcomer(addr(fmt.Sprintf("192.0.2.%d", i%250+2)), now) {
			n++
		}
	}
	if n != 4*newcomerBurst {
		t.Errorf("%d new operators of one /24", n)
	}
	if w.newcomer(addr("192.0.2.77"), now) || !w.newcomer(addr("192.0.2.77"), now.Add(time.Hour)) {
		t.Error("an hour later there is no room, or there was room before")
	}
}

// History and shares are those of before the restart.
func TestSharesSurviveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := newAuthor("alice")
	uptime := time.Hour
	open := func() (*Broker, func()) {
		b, err := New(Options{
			Network: "net", Keys: true, StateDir: dir, Limits: Limits{NewcomerBytes: 4 << 10, DrainTime: time.Millisecond},
			Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		b.store.TestingOnlyElapsed(func() time.Duration { return uptime })
		return b, run(t, b)
	}
	b, stop := open()
	friend := newAuthor("friend")
	pub := a.join(t, b)
	topic, card := a.card(t, 1)
	pub.publish(topic, card, 1, true)
	topic, list := a.trusts(t, 1, friend)
	pub.publish(topic, list, 2, true)
	if b.admission.known(a.feed.Operator) {
		t.Error("a newcomer is known")
	}
	uptime += historyTime + time.Hour
	stop()
	uptime = time.Minute // of the second run
	b, stop = open()
	defer stop()
	if !b.admission.known(a.feed.Operator) || !b.admission.known(friend.feed.Operator) {
		t.Error("an operator with history, or whom it names, is forgotten")
	}
	topic, head := a.head(1)
	a.join(t, b).publish(topic, head, 1, true)
	if b.store.Get(topic) == nil || !strings.HasSuffix(topic, "/head") {
		t.Error("its head was refused")
	}
}
