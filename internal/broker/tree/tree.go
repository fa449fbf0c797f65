// Package tree holds values under MQTT topics or topic filters and finds those
// that match, at a cost that does not grow with how many others there are.
package tree

import "strings"

// A Tree maps topics, or filters, to values. The zero Tree is empty. It is
// not safe for concurrent use while it changes.
type Tree[V any] struct {
	root   node[V]
	n      int
	levels int
}

type node[V any] struct {
	children map[string]*node[V]
	value    V
	set      bool
}

// Len is how many values the tree holds.
func (t *Tree[V]) Len() int { return t.n }

// Levels is how many levels all keys have together, shared ones counted once.
func (t *Tree[V]) Levels() int { return t.levels }

// Get gives the value under exactly this key.
func (t *Tree[V]) Get(key string) (v V, ok bool) {
	n := &t.root
	for more := true; more; {
		var level string
		level, key, more = strings.Cut(key, "/")
		if n = n.children[level]; n == nil {
			return v, false
		}
	}
	return n.value, n.set
}

// Set puts a value under a key, in place of any other, and gives how many
// levels the tree did not have before.
func (t *Tree[V]) Set(key string, v V) (added int) {
	n := &t.root
	for more := true; more; {
		var level string
		level, key, more = strings.Cut(key, "/")
		child := n.children[level]
		if child == nil {
			child = &node[V]{}
			if n.children == nil {
				n.children = make(map[string]*node[V], 1)
			}
			// The level is part of a longer key, which it would keep in memory.
			n.children[strings.Clone(level)] = child
			added++
		}
		n = child
	}
	if !n.set {
		t.n++
	}
	n.value, n.set = v, true
	t.levels += added
	return added
}

// Delete removes a key, and every level that nothing needs any more.
func (t *Tree[V]) Delete(key string) {
	if deleted, levels := t.root.delete(key); deleted {
		t.n--
		t.levels -= levels
	}
}

func (n *node[V]) delete(key string) (deleted bool, levels int) {
	level, rest, more := strings.Cut(key, "/")
	child := n.children[level]
	switch {
	case child == nil:
		return false, 0
	case more:
		deleted, levels = child.delete(rest)
	case child.set:
		var zero V
		child.value, child.set, deleted = zero, false, true
	}
	if deleted && !child.set && len(child.children) == 0 {
		delete(n.children, level)
		levels++
	}
	return deleted, levels
}

// Matching calls f for the value of every filter of the tree that matches
// topic (MQTT 3.1.1, section 4.7). A filter that begins with a wildcard does
// not match a topic that begins with '$'.
func (t *Tree[V]) Matching(topic string, f func(V)) {
	t.root.matching(topic, strings.HasPrefix(topic, "$"), f)
}

func (n *node[V]) matching(topic string, dollar bool, f func(V)) {
	if len(n.children) == 0 {
		return
	}
	level, rest, more := strings.Cut(topic, "/")
	n.children[level].step(rest, more, f)
	if dollar {
		return
	}
	n.children["+"].step(rest, more, f)
	n.children["#"].give(f)
}

func (n *node[V]) step(rest string, more bool, f func(V)) {
	switch {
	case n == nil:
	case more:
		n.matching(rest, false, f)
	default:
		n.give(f)
		n.children["#"].give(f) // "a/#" also matches "a"
	}
}

func (n *node[V]) give(f func(V)) {
	if n != nil && n.set {
		f(n.value)
	}
}

// Matched calls f for the value of every topic of the tree that filter
// matches, in no particular order. It gives how many levels it looked at, which
// is its cost: a filter with wildcards may look at all and match nothing.
func (t *Tree[V]) Matched(filter string, f func(V)) (visited int) {
	return t.root.matched(filter, true, f)
}

func (n *node[V]) matched(filter string, top bool, f func(V)) (visited int) {
	level, rest, more := strings.Cut(filter, "/")
	switch level {
	case "#":
		if !top {
			n.give(f)
		}
		for name, child := range n.children {
			if !top || !strings.HasPrefix(name, "$") {
				visited += child.all(f)
			}
		}
	case "+":
		for name, child := range n.children {
			if !top || !strings.HasPrefix(name, "$") {
				visited += child.into(rest, more, f)
			}
		}
	default:
		if child := n.children[level]; child != nil {
			visited = child.into(rest, more, f)
		}
	}
	return visited
}

func (n *node[V]) into(rest string, more bool, f func(V)) (visited int) {
	if more {
		return 1 + n.matched(rest, false, f)
	}
	n.give(f)
	return 1
}

func (n *node[V]) all(f func(V)) (visited int) {
	n.give(f)
	visited = 1
	for _, child := range n.children {
		visited += child.all(f)
	}
	return visited
}

// Each calls f for every value.
func (t *Tree[V]) Each(f func(V)) {
	for _, child := range t.root.children {
		child.all(f)
	}
}
