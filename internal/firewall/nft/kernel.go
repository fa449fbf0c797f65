package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
)

// kernel speaks nf_tables to the kernel about one table.
type kernel struct {
	*socket
	table string
	tx    transaction
}

func openKernel(table string) (*kernel, error) {
	s, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	k := &kernel{socket: s, table: table}
	k.tx.seq = &s.seq
	return k, nil
}

// flush commits the transaction being built.
func (k *kernel) flush() error {
	if k.tx.empty() {
		return nil
	}
	return k.commit(k.tx.finish())
}

// ask sends one question. fill adds its attributes.
func (k *kernel) ask(kind, flags uint16, family byte, fill func(w *writer), each func(message) error) error {
	w := writer{seq: &k.seq}
	seq := w.netfilter(kind, flags, family)
	if fill != nil {
		fill(&w)
	}
	w.end()
	return k.query(w.b, seq, each)
}

// generation gives the number of the ruleset, which every change by anybody
// raises.
func (k *kernel) generation() (gen uint32, err error) {
	err = k.ask(unix.NFT_MSG_GETGEN, 0, unix.NFPROTO_UNSPEC, nil, func(m message) error {
		gen = binary.BigEndian.Uint32(append(find(m.attrs(), unix.NFTA_GEN_ID), 0, 0, 0, 0))
		return nil
	})
	return gen, err
}

// Flags of a table (linux/netfilter/nf_tables.h).
const (
	tableDormant = 0x1
	tableOwner   = 0x2
	tablePersist = 0x4
)

// nftaTableHandle is unknown to x/sys.
const nftaTableHandle = 4

// tableFlags gives the flags of the table, or [errNoTable].
func (k *kernel) tableFlags() (uint32, error) {
	flags, _, err := k.tableState()
	return flags, err
}

// tableState gives the flags of the table and its handle, which no table of
// before or after has, or [errNoTable].
func (k *kernel) tableState() (flags uint32, handle uint64, err error) {
	err = k.ask(unix.NFT_MSG_GETTABLE, 0, unix.NFPROTO_INET, func(w *writer) { w.text(unix.NFTA_TABLE_NAME, k.table) }, func(m message) error {
		for a, rest, ok := nextAttr(m.attrs()); ok; a, rest, ok = nextAttr(rest) {
			switch a.kind {
			case unix.NFTA_TABLE_FLAGS:
				flags = a.u32()
			case nftaTableHandle:
				handle = a.u64()
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return 0, 0, errNoTable
	}
	return flags, handle, err
}

var errNoTable = errors.New("the table is not there")

// elements gives the elements of a fixed set, sorted.
func (k *kernel) elements(name string) (out []element, err error) {
	err = k.eachElement(name, func(e []byte) { out = append(out, readElement(e)) })
	slices.SortFunc(out, compareElements)
	return out, err
}

// get gives an element's data, or an ENOENT.
func (k *kernel) get(name string, key []byte) (data []byte, err error) {
	err = k.lookup(name, key, func(e []byte) {
		data = bytes.Clone(find(find(e, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VALUE))
	})
	return data, err
}

// lookup gives the attributes of one element, valid during the call of found,
// or an ENOENT.
func (k *kernel) lookup(name string, key []byte, found func(attrs []byte)) error {
	return k.ask(unix.NFT_MSG_GETSETELEM, 0, unix.NFPROTO_INET, func(w *writer) {
		w.text(unix.NFTA_SET_ELEM_LIST_TABLE, k.table)
		w.text(unix.NFTA_SET_ELEM_LIST_SET, name)
		list := w.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		one := w.nest(unix.NFTA_LIST_ELEM)
		w.value(unix.NFTA_SET_ELEM_KEY, key)
		w.unnest(one)
		w.unnest(list)
	}, func(m message) error {
		a, _, _ := nextAttr(find(m.attrs(), unix.NFTA_SET_ELEM_LIST_ELEMENTS))
		found(a.data)
		return nil
	})
}

// hasSet says whether the table has a set.
func (k *kernel) hasSet(name string) (bool, error) {
	_, _, err := k.count(name)
	if isGone(err) {
		return false, nil
	}
	return err == nil, err
}

// eachElement gives the attributes of every element of a set, each valid during
// its call.
func (k *kernel) eachElement(name string, each func(attrs []byte)) error {
	return k.ask(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, unix.NFPROTO_INET, func(w *writer) {
		w.text(unix.NFTA_SET_ELEM_LIST_TABLE, k.table)
		w.text(unix.NFTA_SET_ELEM_LIST_SET, name)
	}, func(m message) error {
		list := find(m.attrs(), unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for a, rest, ok := nextAttr(list); ok; a, rest, ok = nextAttr(rest) {
			each(a.data)
		}
		return nil
	})
}

// setCount is an attribute since Linux 6.17 or so; unknown to x/sys.
const setCount = 20

// count gives how many elements a set holds, those that have just ended
// included. known is false where the kernel does not say.
func (k *kernel) count(name string) (n uint32, known bool, err error) {
	err = k.ask(unix.NFT_MSG_GETSET, 0, unix.NFPROTO_INET, func(w *writer) {
		w.text(unix.NFTA_SET_TABLE, k.table)
		w.text(unix.NFTA_SET_NAME, name)
	}, func(m message) error {
		if b := find(m.attrs(), setCount); len(b) == 4 {
			n, known = binary.BigEndian.Uint32(b), true
		}
		return nil
	})
	return n, known, err
}

// counters gives the table's counters by name.
func (k *kernel) counters() (map[string]firewall.Counter, error) {
	out := make(map[string]firewall.Counter)
	err := k.ask(unix.NFT_MSG_GETOBJ, unix.NLM_F_DUMP, unix.NFPROTO_INET, func(w *writer) {
		w.text(unix.NFTA_OBJ_TABLE, k.table)
		w.u32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
	}, func(m message) error {
		b := m.attrs()
		if string(bytes.TrimRight(find(b, unix.NFTA_OBJ_TABLE), "\x00")) != k.table {
			return nil
		}
		var c firewall.Counter
		data := find(b, unix.NFTA_OBJ_DATA)
		for a, rest, ok := nextAttr(data); ok; a, rest, ok = nextAttr(rest) {
			switch a.kind {
			case unix.NFTA_COUNTER_PACKETS:
				c.Packets = a.u64()
			case unix.NFTA_COUNTER_BYTES:
				c.Bytes = a.u64()
			}
		}
		out[string(bytes.TrimRight(find(b, unix.NFTA_OBJ_NAME), "\x00"))] = c
		return nil
	})
	return out, err
}

// onTable does something to a table in the name of a person.
func onTable(table string, do func(k *kernel) error) error {
	if err := firewall.CheckTable(table); err != nil {
		return err
	}
	k, err := openKernel(table)
	if err != nil {
		return err
	}
	defer func() { _ = k.close() }()
	switch err := do(k); {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("table %s: %w", table, firewall.ErrDenied)
	case err != nil:
		return fmt.Errorf("table %s: %w", table, err)
	}
	return nil
}

// deleteTable deletes a table that may not be there.
func (k *kernel) deleteTable(name string) error {
	k.tx.begin()
	k.tx.change(unix.NFT_MSG_DELTABLE, 0, unix.NFTA_TABLE_NAME, name)
	k.tx.end()
	if err := k.flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func (k *kernel) exists(table string) (bool, error) {
	err := k.ask(unix.NFT_MSG_GETTABLE, 0, unix.NFPROTO_INET, func(w *writer) { w.text(unix.NFTA_TABLE_NAME, table) }, func(message) error { return nil })
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}
