package broker

import (
	"slices"
	"strconv"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// A shape is a form of the protocol's topics after the network: for each level,
// whether a text may stand there.
type shape []func(string) bool

var shapes = []shape{
	{isOperators, isOperator, among(wire.KindCard, wire.KindTrust)},
	{isOperators, isOperator, among(wire.KindDefinition, wire.KindList), isTopic},
	{isOperators, isOperator, among(wire.KindCard), among(wire.KindLive)},
	{isTopic, isOperator, isNode, among(wire.KindHead, wire.KindManifest, wire.KindDispute, wire.KindLive)},
	{isTopic, isOperator, isNode, among(wire.KindDelta, wire.KindSegment, wire.KindChunk), isSlot},
}

func isOperators(s string) bool { return s == wire.OperatorsLevel }
func isOperator(s string) bool  { _, err := ban.ParseOperator(s); return err == nil }
func isNode(s string) bool      { _, err := ban.ParseNode(s); return err == nil }

func isTopic(s string) bool {
	_, err := ban.ParseTopic(s)
	return err == nil && s != wire.OperatorsLevel
}

func isSlot(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 0 && n <= wire.MaxSlot && strconv.Itoa(n) == s
}

func among(kinds ...wire.Kind) func(string) bool {
	return func(s string) bool {
		return slices.ContainsFunc(kinds, func(k wire.Kind) bool { return s == k.String() })
	}
}

// matchable says whether a topic of the protocol exists that a filter matches.
// Filters with invented levels would only take memory. The filter has no '#'.
func matchable(filter string) bool {
	rest, ok := strings.CutPrefix(filter, wire.Prefix)
	if !ok {
		return false
	}
	levels := strings.Split(rest, "/")
	if levels[0] != "+" && wire.CheckNetwork(levels[0]) != nil {
		return false
	}
	return slices.ContainsFunc(shapes, func(s shape) bool {
		if len(levels) != len(s)+1 {
			return false
		}
		for i, fits := range s {
			if l := levels[i+1]; l != "+" && !fits(l) {
				return false
			}
		}
		return true
	})
}
