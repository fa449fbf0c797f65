package nft

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// changes says in words how the kernel's table differs from the wanted one.
// rebuild says that something differs that cannot be changed in place.
func (have *ruleset) changes(want *ruleset) (what []string, rebuild bool) {
	for _, name := range want.counters {
		if _, ok := slices.BinarySearch(have.counters, name); !ok {
			what = append(what, "counter "+name+" was gone")
		}
	}
	for _, name := range have.counters {
		if _, ok := slices.BinarySearch(want.counters, name); !ok {
			what = append(what, "counter "+name+" is not wanted")
		}
	}
	for _, w := range want.sets {
		h, ok := have.set(w.name)
		switch {
		case !ok:
			what = append(what, "set "+w.name+" was gone")
		case !h.like(w):
			what, rebuild = append(what, "set "+w.name+" was of another type"), true
		case w.fixed && !slices.Equal(h.elements, w.elements):
			what = append(what, "set "+w.name+" held something else")
		}
	}
	for _, h := range have.sets {
		if _, ok := want.set(h.name); !ok {
			what = append(what, "set "+h.name+" is not wanted")
		}
	}
	for _, w := range want.chains {
		h, ok := have.chain(w.name)
		switch {
		case !ok:
			what = append(what, "chain "+w.name+" was gone")
		case h.base != w.base || h.prio != w.prio || h.nat != w.nat:
			what, rebuild = append(what, "chain "+w.name+" was hooked elsewhere"), true
		case !h.same(w):
			what = append(what, "chain "+w.name+" had other rules")
		}
	}
	for _, h := range have.chains {
		if _, ok := want.chain(h.name); !ok {
			what = append(what, "chain "+h.name+" is not wanted")
		}
	}
	return what, rebuild
}

func (r *ruleset) set(name string) (set, bool) {
	i, ok := slices.BinarySearchFunc(r.sets, name, func(s set, n string) int { return strings.Compare(s.name, n) })
	if !ok {
		return set{}, false
	}
	return r.sets[i], true
}

func (r *ruleset) chain(name string) (chain, bool) {
	i, ok := slices.BinarySearchFunc(r.chains, name, func(c chain, n string) int { return strings.Compare(c.name, n) })
	if !ok {
		return chain{}, false
	}
	return r.chains[i], true
}

func (s set) like(w set) bool {
	// The room for the kernel's own headers depends on the number of
	// topics; it is no reason to write every ban anew.
	sized := s.size == w.size || w.flags&unix.NFT_SET_EVAL != 0
	return s.key.magic == w.key.magic && s.data.magic == w.data.magic && s.flags == w.flags && sized && s.timeout == w.timeout
}

// same compares a chain that was read, whose rules' texts are canonical, with
// one that is wanted or was written.
func (c chain) same(w chain) bool {
	return slices.EqualFunc(c.rules, w.rules, func(a, b rule) bool { return a.spelling() == b.spelling() })
}

func (r rule) spelling() string {
	if r.exprs == nil {
		return r.text
	}
	return r.canonical()
}

// encode writes into the transaction the changes that turn have, nil for no table, into
// want. Bans are not touched. The order is: objects before those that
// refer to them, and the other way round for deletions.
func (want *ruleset) encode(t *transaction, table string, have *ruleset) error {
	if have == nil {
		have = &ruleset{}
		want.encodeTable(t, table)
	}
	want.encodeObjects(t, table, have)
	if err := want.encodeRules(t, table, have); err != nil {
		return err
	}
	for _, s := range want.sets {
		h, _ := have.set(s.name)
		if s.fixed && !slices.Equal(h.elements, s.elements) {
			s.encodeFixed(t, table, len(h.elements) > 0)
		}
	}
	want.encodeDeletions(t, table, have)
	return nil
}

func (want *ruleset) encodeTable(t *transaction, table string) {
	t.change(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFTA_TABLE_NAME, table)
	flags := uint32(0)
	if want.owned {
		flags = tableOwner | tablePersist
	}
	t.u32(unix.NFTA_TABLE_FLAGS, flags)
	const comment = 0 // NFTNL_UDATA_TABLE_COMMENT
	t.attr(tableUserdata, append([]byte{comment, byte(len(want.comment) + 1)}, want.comment+"\x00"...))
	t.end()
}

// encodeObjects creates counters, sets and chains that are missing.
func (want *ruleset) encodeObjects(t *transaction, table string, have *ruleset) {
	for _, name := range want.counters {
		if _, ok := slices.BinarySearch(have.counters, name); !ok {
			t.change(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, unix.NFTA_OBJ_TABLE, table)
			t.text(unix.NFTA_OBJ_NAME, name)
			t.u32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
			at := t.nest(unix.NFTA_OBJ_DATA)
			t.u64(unix.NFTA_COUNTER_BYTES, 0)
			t.u64(unix.NFTA_COUNTER_PACKETS, 0)
			t.unnest(at)
			t.end()
		}
	}
	for i, s := range want.sets {
		if _, ok := have.set(s.name); !ok {
			s.encode(t, table, uint32(i+1))
			s.encodeMark(t, table)
		}
	}
	for _, c := range want.chains {
		if _, ok := have.chain(c.name); !ok {
			c.encode(t, table)
		}
	}
}

// encodeRules empties the chains that go or differ, and writes the latter anew.
func (want *ruleset) encodeRules(t *transaction, table string, have *ruleset) error {
	emptied := func(name string) {
		t.change(unix.NFT_MSG_DELRULE, 0, unix.NFTA_RULE_TABLE, table)
		t.text(unix.NFTA_RULE_CHAIN, name)
		t.end()
	}
	for _, h := range have.chains {
		if _, ok := want.chain(h.name); !ok && len(h.rules) > 0 {
			emptied(h.name)
		}
	}
	for _, c := range want.chains {
		h, ok := have.chain(c.name)
		if ok && h.same(c) {
			continue
		}
		if len(h.rules) > 0 {
			emptied(c.name)
		}
		for _, r := range c.rules {
			if err := r.encode(t, table, c.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// encodeDeletions deletes the objects that are not wanted.
func (want *ruleset) encodeDeletions(t *transaction, table string, have *ruleset) {
	for _, h := range have.sets {
		if _, ok := want.set(h.name); !ok {
			t.change(unix.NFT_MSG_DELSET, 0, unix.NFTA_SET_TABLE, table)
			t.text(unix.NFTA_SET_NAME, h.name)
			t.end()
		}
	}
	for _, h := range have.chains {
		if _, ok := want.chain(h.name); !ok {
			t.change(unix.NFT_MSG_DELCHAIN, 0, unix.NFTA_CHAIN_TABLE, table)
			t.text(unix.NFTA_CHAIN_NAME, h.name)
			t.end()
		}
	}
	for _, name := range have.counters {
		if _, ok := slices.BinarySearch(want.counters, name); !ok {
			t.change(unix.NFT_MSG_DELOBJ, 0, unix.NFTA_OBJ_TABLE, table)
			t.text(unix.NFTA_OBJ_NAME, name)
			t.u32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
			t.end()
		}
	}
}

// encode creates the set, with the remarks that let nft print it right.
func (s set) encode(t *transaction, table string, id uint32) {
	t.change(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, unix.NFTA_SET_TABLE, table)
	t.text(unix.NFTA_SET_NAME, s.name)
	t.u32(unix.NFTA_SET_FLAGS, s.flags)
	t.u32(unix.NFTA_SET_KEY_TYPE, s.key.magic)
	t.u32(unix.NFTA_SET_KEY_LEN, s.key.size)
	if s.data.magic != 0 {
		t.u32(unix.NFTA_SET_DATA_TYPE, s.data.magic)
		t.u32(unix.NFTA_SET_DATA_LEN, s.data.size)
	}
	t.u32(unix.NFTA_SET_ID, id)
	if s.timeout != 0 {
		t.u64(unix.NFTA_SET_TIMEOUT, uint64(s.timeout.Milliseconds()))
	}
	if s.size != 0 {
		at := t.nest(unix.NFTA_SET_DESC)
		t.u32(unix.NFTA_SET_DESC_SIZE, s.size)
		t.unnest(at)
	}
	// libnftnl/udata.h: type, length, value.
	const keyOrder, dataOrder, comment = 0, 1, 7
	var notes []byte
	if s.key.order != 0 {
		notes = binary.NativeEndian.AppendUint32(append(notes, keyOrder, 4), s.key.order)
	}
	if s.data.order != 0 {
		notes = binary.NativeEndian.AppendUint32(append(notes, dataOrder, 4), s.data.order)
	}
	if s.comment != "" {
		notes = append(append(notes, comment, byte(len(s.comment)+1)), s.comment+"\x00"...)
	}
	if notes != nil {
		t.attr(unix.NFTA_SET_USERDATA, notes)
	}
	t.end()
}

// encodeMark puts its mark into a set that was just created.
func (s set) encodeMark(t *transaction, table string) {
	if !s.marked {
		return
	}
	list := t.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, table, s.name)
	one := t.nest(unix.NFTA_LIST_ELEM)
	t.value(unix.NFTA_SET_ELEM_KEY, make([]byte, s.key.size))
	t.unnest(one)
	t.unnest(list)
	t.end()
}

// encodeFixed makes the set hold its elements and nothing else.
func (s set) encodeFixed(t *transaction, table string, empty bool) {
	if empty {
		t.flushSet(table, s.name)
	}
	for chunk := range slices.Chunk(s.elements, 500) {
		list := t.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, table, s.name)
		for _, e := range chunk {
			one := t.nest(unix.NFTA_LIST_ELEM)
			if e.end {
				t.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
			}
			t.value(unix.NFTA_SET_ELEM_KEY, []byte(e.key))
			if e.verdict != "" {
				data := t.nest(unix.NFTA_SET_ELEM_DATA)
				v := t.nest(unix.NFTA_DATA_VERDICT)
				t.u32(unix.NFTA_VERDICT_CODE, verdictGoto)
				t.text(unix.NFTA_VERDICT_CHAIN, e.verdict)
				t.unnest(v)
				t.unnest(data)
			}
			t.unnest(one)
		}
		t.unnest(list)
		t.end()
	}
}

// verdictGoto is NFT_GOTO, -4.
const verdictGoto = 1<<32 - 4

// elements begins a message about elements of a set and its list of them.
func (t *transaction) elements(kind, flags uint16, table, name string) (list int) {
	t.change(kind, flags, unix.NFTA_SET_ELEM_LIST_TABLE, table)
	t.text(unix.NFTA_SET_ELEM_LIST_SET, name)
	return t.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
}

// flushSet takes everything out of a set.
func (t *transaction) flushSet(table, name string) {
	t.change(unix.NFT_MSG_DELSETELEM, 0, unix.NFTA_SET_ELEM_LIST_TABLE, table)
	t.text(unix.NFTA_SET_ELEM_LIST_SET, name)
	t.end()
}

func (c chain) encode(t *transaction, table string) {
	t.change(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, unix.NFTA_CHAIN_TABLE, table)
	t.text(unix.NFTA_CHAIN_NAME, c.name)
	if c.base {
		at := t.nest(unix.NFTA_CHAIN_HOOK)
		t.u32(unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_PRE_ROUTING)
		t.u32(unix.NFTA_HOOK_PRIORITY, uint32(c.prio))
		t.unnest(at)
		t.u32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		kind := "filter"
		if c.nat {
			kind = "nat"
		}
		t.text(unix.NFTA_CHAIN_TYPE, kind)
	}
	t.end()
}

func (r rule) encode(t *transaction, table, chain string) error {
	t.change(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, unix.NFTA_RULE_TABLE, table)
	t.text(unix.NFTA_RULE_CHAIN, chain)
	list := t.nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range r.exprs {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			return fmt.Errorf("encoding rule %q: %w", r.text, err)
		}
		t.attr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
	}
	t.unnest(list)
	t.end()
	return nil
}

// tableUserdata is NFTA_TABLE_USERDATA, which x/sys lacks.
const tableUserdata = 6
