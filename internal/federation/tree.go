package federation

import (
	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// A tree is the Merkle tree of a set, as [wire.Fingerprint] describes it, kept
// up to date: a change costs a way from the root to a leaf, and when the
// fingerprint is asked for next, the hashes on that way. A way has a branch for
// each bit of a key at most, however an author chooses the keys.
type tree struct {
	root *node // nil for no entries
	leaf *wire.LeafHash
}

// A node is a branch with two children, or a leaf. All its keys begin with the
// same bits, a branch's differ in the next.
type node struct {
	key   wire.KeyBits // of one of its entries, now or once
	bits  int
	count int
	child [2]*node
	hash  wire.Fingerprint
	dirty bool // hash is of an earlier state
}

func (n *node) isLeaf() bool { return n.child[0] == nil }

func newLeaf(k *ban.Key) *node {
	b := wire.BitsOf(k)
	return &node{key: b, bits: 8 * len(b), count: 1, dirty: true}
}

// first gives the least key that begins as the node's do.
func (n *node) first() (k ban.Key) {
	b := n.key
	if i := n.bits / 8; i < len(b) {
		b[i] &= 0xff << (8 - n.bits%8)
		clear(b[i+1:])
	}
	k.Kind = ban.Kind(b[0])
	copy(k.B[:], b[1:])
	return k
}

// add takes up a key that is new in s.
func (t *tree) add(k *ban.Key, s *set) {
	if t.root == nil {
		t.root = newLeaf(k)
		return
	}
	b := wire.BitsOf(k)
	for at := &t.root; ; {
		n := *at
		part := n.key.Parting(&b, n.bits)
		if part < n.bits && (!n.isLeaf() || n.count == wire.LeafEntries) {
			over := &node{key: b, bits: part, count: n.count + 1, dirty: true}
			one := b.Bit(part)
			over.child[one], over.child[1-one] = newLeaf(k), n
			*at = over
			return
		}
		n.bits = part
		n.count++
		n.dirty = true
		if n.isLeaf() {
			if n.count > wire.LeafEntries {
				*at = t.split(n, s)
			}
			return
		}
		at = &n.child[b.Bit(n.bits)]
	}
}

// split gives the subtree that takes the place of a leaf with too many entries.
func (t *tree) split(n *node, s *set) *node {
	keys := make([]wire.KeyBits, 0, n.count)
	s.from(n.first(), n.count, func(e *wire.Entry) { keys = append(keys, wire.BitsOf(&e.Key)) })
	return grow(keys)
}

// grow gives the subtree of sorted keys.
func grow(keys []wire.KeyBits) *node {
	first, last := keys[0], keys[len(keys)-1]
	n := &node{key: first, bits: first.Parting(&last, 8*len(first)), count: len(keys), dirty: true}
	if n.count <= wire.LeafEntries {
		return n
	}
	middle := 0
	for keys[middle].Bit(n.bits) == 0 {
		middle++
	}
	n.child = [2]*node{grow(keys[:middle]), grow(keys[middle:])}
	return n
}

// remove forgets a key that the tree has.
func (t *tree) remove(k *ban.Key) {
	b := wire.BitsOf(k)
	for at := &t.root; ; {
		n := *at
		n.count--
		n.dirty = true
		switch {
		case n.count == 0: // the last of all
			*at = nil
			return
		case n.count <= wire.LeafEntries:
			n.child = [2]*node{}
			return
		}
		one := b.Bit(n.bits)
		if n.child[one].count == 1 {
			*at = n.child[1-one]
			return
		}
		at = &n.child[one]
	}
}

// touch notes that the entry of a key has changed.
func (t *tree) touch(k *ban.Key) {
	b := wire.BitsOf(k)
	for n := t.root; n != nil; n = n.child[b.Bit(n.bits)] {
		n.dirty = true
		if n.isLeaf() {
			return
		}
	}
}

// fingerprint gives the root's hash.
func (t *tree) fingerprint(s *set) wire.Fingerprint {
	if t.leaf == nil {
		t.leaf = wire.NewLeafHash()
	}
	if t.root == nil {
		t.leaf.Reset()
		return t.leaf.Sum()
	}
	return t.sum(t.root, s)
}

func (t *tree) sum(n *node, s *set) wire.Fingerprint {
	switch {
	case !n.dirty:
	case n.isLeaf():
		t.leaf.Reset()
		s.from(n.first(), n.count, t.leaf.Add)
		n.hash = t.leaf.Sum()
	default:
		n.hash = wire.BranchHash(t.sum(n.child[0], s), t.sum(n.child[1], s))
	}
	n.dirty = false
	return n.hash
}
