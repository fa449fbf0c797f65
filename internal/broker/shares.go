package broker

import (
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker/retained"
	"banmesh/internal/wire"
)

// How the store is shared out. An operator is known where who runs the broker
// vouches for it, where it has had messages here for historyTime, or where the
// trust list of such an operator names it. Known operators get OperatorBytes;
// a newcomer begins with NewcomerBytes, and gets twice as much each day.
const (
	historyTime = 7 * 24 * time.Hour
	doubleTime  = 24 * time.Hour
	// messageOverhead is the store's own for a message beside topic and payload.
	messageOverhead = 256
	// maxEvicted bounds the newcomers that make room for one message, and
	// maxSearched those that are looked at for it.
	maxEvicted  = 16
	maxSearched = 256
)

// refusedFull is answered where only the whole store is full, so that evicting
// somebody helps. It is told to nobody: refusedQuota is.
const refusedFull refusal = "full"

// vouch makes operators known.
func (a *admission) vouch(operators []ban.Operator) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range operators {
		a.vouched[o] = true
	}
}

// known says whether an operator is known.
func (a *admission) known(o ban.Operator) bool {
	if a.hasHistory(o) {
		return true
	}
	a.mu.RLock()
	by := make([]ban.Operator, 0, len(a.namedBy[o]))
	for t := range a.namedBy[o] {
		by = append(by, t)
	}
	a.mu.RUnlock()
	for _, t := range by {
		if a.hasHistory(t) {
			return true
		}
	}
	return false
}

func (a *admission) hasHistory(o ban.Operator) bool {
	a.mu.RLock()
	vouched := a.vouched[o]
	a.mu.RUnlock()
	return vouched || a.store.Standing(o.String()).Age >= historyTime
}

// learnTrust takes an operator's trust list into account, in place of an
// earlier one.
func (a *admission) learnTrust(o ban.Operator, t *wire.Trust) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.lists[o] {
		if delete(a.namedBy[x], o); len(a.namedBy[x]) == 0 {
			delete(a.namedBy, x)
		}
	}
	delete(a.lists, o)
	for _, x := range t.Operators {
		if x.Weight == 0 {
			continue
		}
		if a.namedBy[x.Operator] == nil {
			a.namedBy[x.Operator] = map[ban.Operator]bool{}
		}
		a.namedBy[x.Operator][o] = true
		a.lists[o] = append(a.lists[o], x.Operator)
	}
}

// allowance is how many bytes an operator may have retained.
func (a *admission) allowance(known bool, age time.Duration) int {
	if known {
		return a.limits.OperatorBytes
	}
	n := a.limits.NewcomerBytes
	for ; age >= doubleTime && n < a.limits.OperatorBytes; age -= doubleTime {
		n *= 2
	}
	return min(n, a.limits.OperatorBytes)
}

// room says whether quotas leave room for a message of a size, overhead
// included, in place of the old.
func (a *admission) room(o ban.Operator, old *retained.Message, size int, of retained.Standing) refusal {
	return a.roomFor(a.known(o), old, size, of)
}

func (a *admission) roomFor(known bool, old *retained.Message, size int, of retained.Standing) refusal {
	messages := of.Owner.Messages + 1
	if old != nil {
		size -= len(old.Topic) + len(old.Payload) + messageOverhead
		messages--
	}
	switch {
	case size <= 0 && old != nil:
		return admitted // it needs no more room than the old one
	case messages > a.limits.FeedMessages, of.Owner.Bytes+size > a.limits.FeedBytes, of.Group.Bytes+size > a.allowance(known, of.Age):
		return refusedQuota
	case of.All.Bytes+size > a.limits.TotalBytes:
		return refusedFull
	}
	return admitted
}

// keep puts a message that was admitted into the store, unless a newer one came
// meanwhile, and takes out those that it voids; removed is told of each. The
// newest unknown operators make room where the store is full. visited is the
// cost of its searches.
func (a *admission) keep(r ruling, removed func(topic string)) (sequence uint64, visited int, why refusal) {
	if r.erase {
		sequence, err := a.store.Delete(r.message.Topic)
		return sequence, 0, refusalOf(err)
	}
	m, known := r.message, a.known(r.name.Operator)
	var old *retained.Message
	judge := func(there *retained.Message, of retained.Standing) error {
		old = there
		if there != nil && older(m.Epoch, m.Number, there) {
			return refusedStale
		}
		if why := a.roomFor(known, there, len(m.Topic)+len(m.Payload)+messageOverhead, of); why != admitted {
			return why
		}
		return nil
	}
	for range maxEvicted {
		var err error
		sequence, err = a.store.Put(m, judge)
		if why = refusalOf(err); why != refusedFull {
			break
		}
		cost, ok := a.evict(r.name.Operator, known, removed)
		if visited += cost; !ok {
			break
		}
	}
	if why == refusedFull {
		why = refusedQuota
	}
	if why != admitted {
		return 0, visited, why
	}
	if r.trust != nil {
		a.learnTrust(r.name.Operator, r.trust)
	}
	var void []string
	cost := 0
	switch {
	case r.card != nil:
		void, cost = a.learn(r.card)
	case r.name.Kind == wire.KindHead && (old == nil || old.Epoch < m.Epoch):
		void, cost = a.before(m)
	}
	for _, topic := range void {
		if _, err := a.store.Delete(topic); err == nil {
			removed(topic)
		}
	}
	return sequence, visited + cost, admitted
}

// before gives the messages of a head's feed that are of earlier epochs: a new
// epoch begins with nothing.
func (a *admission) before(head *retained.Message) (void []string, visited int) {
	found, visited := a.store.Search(feedOf(head.Topic) + "/#")
	for _, m := range found {
		if m.Epoch < head.Epoch {
			void = append(void, m.Topic)
		}
	}
	return void, visited
}

// evict removes all that the newest unknown operator has here, to make room for
// another one that is known, or older.
func (a *admission) evict(inFavour ban.Operator, known bool, removed func(topic string)) (visited int, ok bool) {
	mine := a.store.Standing(inFavour.String()).Age
	var candidates []string
	searched := 0
	a.store.Newest(func(group string, _ retained.Usage, age time.Duration) bool {
		searched++
		if (known || age < mine) && group != inFavour.String() {
			candidates = append(candidates, group)
		}
		return searched < maxSearched && len(candidates) < maxSearched/4
	})
	for _, group := range candidates {
		o, err := ban.ParseOperator(group)
		if err != nil || a.known(o) {
			continue
		}
		found, cost := a.store.Search(wire.Prefix + a.networks() + "/+/" + group + "/#")
		for _, m := range found {
			if _, err := a.store.Delete(m.Topic); err == nil {
				removed(m.Topic)
			}
		}
		a.forget(o)
		return cost, len(found) > 0
	}
	return 0, false
}

// forget drops the card and the trust list of an operator that are not retained
// any more.
func (a *admission) forget(o ban.Operator) {
	documents := wire.Prefix + a.networks() + "/operators/" + o.String()
	if len(a.store.Match(documents+"/trust")) == 0 {
		a.learnTrust(o, &wire.Trust{})
	}
	if len(a.store.Match(documents+"/card")) == 0 {
		a.mu.Lock()
		delete(a.cards, o)
		a.mu.Unlock()
	}
}

// forgetCards forgets every operator whose documents are gone.
func (a *admission) forgetCards() {
	a.mu.RLock()
	all := make([]ban.Operator, 0, len(a.cards))
	for o := range a.cards {
		all = append(all, o)
	}
	a.mu.RUnlock()
	for _, o := range all {
		a.forget(o)
	}
}
