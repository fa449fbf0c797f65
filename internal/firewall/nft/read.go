package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// read gives the table as the kernel has it, without the elements of
// its sets but for the fixed ones. It reads again when the rules change meanwhile.
func (k *kernel) read(fixed func(set string) bool) (*ruleset, error) {
	const tries = 10
	for range tries {
		r, err := k.readOnce(fixed)
		if !errors.Is(err, errInterrupted) {
			return r, err
		}
	}
	return nil, errInterrupted
}

func (k *kernel) readOnce(fixed func(set string) bool) (*ruleset, error) {
	flags, handle, err := k.tableState()
	if err != nil {
		return nil, err
	}
	if flags&tableDormant != 0 {
		return nil, errDormant
	}
	r := &ruleset{owned: flags&tableOwner != 0, handle: handle}
	for _, part := range []struct {
		name string
		kind uint16
		of   uint16 // the attribute that names the table
		ask  bool   // whether the kernel takes it in the question
		each func(attrs []byte) error
	}{
		{"counters", unix.NFT_MSG_GETOBJ, unix.NFTA_OBJ_TABLE, true, func(b []byte) error {
			r.counters = append(r.counters, text(b, unix.NFTA_OBJ_NAME))
			return nil
		}},
		{"sets", unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE, true, func(b []byte) error {
			r.sets = append(r.sets, readSet(b))
			return nil
		}},
		{"chains", unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE, false, func(b []byte) error {
			r.chains = append(r.chains, readChain(b))
			return nil
		}},
		{"rules", unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, true, r.readRule},
	} {
		var fill func(w *writer)
		if part.ask {
			fill = func(w *writer) { w.text(part.of, k.table) }
		}
		err := k.ask(part.kind, unix.NLM_F_DUMP, unix.NFPROTO_INET, fill, func(m message) error {
			if b := m.attrs(); text(b, part.of) == k.table {
				return part.each(b)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", part.name, err)
		}
	}
	for i := range r.sets {
		s := &r.sets[i]
		if s.fixed = fixed(s.name); !s.fixed {
			continue
		}
		if s.elements, err = k.elements(s.name); err != nil {
			return nil, fmt.Errorf("reading set %s: %w", s.name, err)
		}
	}
	slices.Sort(r.counters)
	slices.SortFunc(r.sets, func(a, b set) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(r.chains, func(a, b chain) int { return strings.Compare(a.name, b.name) })
	return r, nil
}

// readRule adds a rule to its chain, which was read before.
func (r *ruleset) readRule(b []byte) error {
	name := text(b, unix.NFTA_RULE_CHAIN)
	i := slices.IndexFunc(r.chains, func(c chain) bool { return c.name == name })
	if i < 0 {
		return errInterrupted
	}
	r.chains[i].rules = append(r.chains[i].rules, rule{text: canonicalRead(find(b, unix.NFTA_RULE_EXPRESSIONS))})
	return nil
}

// text gives an attribute as text.
func text(b []byte, kind uint16) string { return string(bytes.TrimRight(find(b, kind), "\x00")) }

// errDormant says that somebody switched the table off.
var errDormant = errors.New("the table is dormant")

func readSet(b []byte) set {
	var s set
	for a, rest, ok := nextAttr(b); ok; a, rest, ok = nextAttr(rest) {
		switch a.kind {
		case unix.NFTA_SET_NAME:
			s.name = a.str()
		case unix.NFTA_SET_FLAGS:
			s.flags = a.u32()
		case unix.NFTA_SET_KEY_TYPE:
			s.key.magic = a.u32()
		case unix.NFTA_SET_DATA_TYPE:
			s.data.magic = a.u32()
		case unix.NFTA_SET_TIMEOUT:
			s.timeout = time.Duration(a.u64()) * time.Millisecond
		case unix.NFTA_SET_DESC:
			if size := find(a.data, unix.NFTA_SET_DESC_SIZE); len(size) == 4 {
				s.size = binary.BigEndian.Uint32(size)
			}
		}
	}
	return s
}

func readChain(b []byte) chain {
	var c chain
	for a, rest, ok := nextAttr(b); ok; a, rest, ok = nextAttr(rest) {
		switch a.kind {
		case unix.NFTA_CHAIN_NAME:
			c.name = a.str()
		case unix.NFTA_CHAIN_HOOK:
			c.base = true
			hook, prio := find(a.data, unix.NFTA_HOOK_HOOKNUM), find(a.data, unix.NFTA_HOOK_PRIORITY)
			if len(prio) == 4 {
				c.prio = int32(binary.BigEndian.Uint32(prio))
			}
			// Another hook, or a policy other than accept, is another chain.
			if len(hook) != 4 || binary.BigEndian.Uint32(hook) != unix.NF_INET_PRE_ROUTING {
				c.prio = foreignPrio
			}
		case unix.NFTA_CHAIN_TYPE:
			c.nat = a.str() == "nat"
		case unix.NFTA_CHAIN_POLICY:
			if a.u32() != 1 {
				c.prio = foreignPrio
			}
		}
	}
	return c
}

// foreignPrio is the priority of a base chain that is not like any of ours.
const foreignPrio = 1 << 30

func readElement(b []byte) element {
	var e element
	for a, rest, ok := nextAttr(b); ok; a, rest, ok = nextAttr(rest) {
		switch a.kind {
		case unix.NFTA_SET_ELEM_KEY:
			e.key = string(find(a.data, unix.NFTA_DATA_VALUE))
		case unix.NFTA_SET_ELEM_FLAGS:
			e.end = a.u32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_DATA:
			if v := find(a.data, unix.NFTA_DATA_VERDICT); v != nil {
				e.verdict = string(bytes.TrimRight(find(v, unix.NFTA_VERDICT_CHAIN), "\x00"))
			} else {
				e.verdict = string(find(a.data, unix.NFTA_DATA_VALUE))
			}
		}
	}
	return e
}
