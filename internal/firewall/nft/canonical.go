package nft

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// canonicalRead gives one spelling of a rule that the kernel lists: each
// expression decoded and encoded again, so that additions and omissions of the kernel
// do not matter. An expression of a kind that we never write stands as it
// came.
func canonicalRead(list []byte) string {
	var out strings.Builder
	for a, rest, ok := nextAttr(list); ok; a, rest, ok = nextAttr(rest) {
		name := string(bytes.TrimRight(find(a.data, unix.NFTA_EXPR_NAME), "\x00"))
		data := find(a.data, unix.NFTA_EXPR_DATA)
		out.WriteString(canonicalOne(name, data))
	}
	return out.String()
}

// canonical gives the same spelling of a rule that we are to write.
func (r rule) canonical() string {
	var out strings.Builder
	for _, e := range r.exprs {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			// Only our own expressions come here, and every test writes them.
			return "unencodable: " + err.Error()
		}
		name := string(bytes.TrimRight(find(b, unix.NFTA_EXPR_NAME), "\x00"))
		out.WriteString(canonicalOne(name, find(b, unix.NFTA_EXPR_DATA)))
	}
	return out.String()
}

func canonicalOne(name string, data []byte) string {
	var e expr.Any
	switch name {
	case "meta":
		e = &expr.Meta{}
	case "cmp":
		e = &expr.Cmp{}
	case "payload":
		e = &expr.Payload{}
	case "bitwise":
		e = &expr.Bitwise{}
	case "lookup":
		e = &expr.Lookup{}
	case "objref":
		e = &expr.Objref{}
	case "socket":
		e = &expr.Socket{}
	case "fib":
		e = &expr.Fib{}
	case "redir":
		e = &expr.Redir{}
	case "ct":
		e = &expr.Ct{}
	case "immediate":
		if v := find(find(data, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT); v != nil {
			code := find(v, unix.NFTA_VERDICT_CODE)
			return fmt.Sprintf("verdict %x %s;", code, bytes.TrimRight(find(v, unix.NFTA_VERDICT_CHAIN), "\x00"))
		}
		e = &expr.Immediate{}
	case "dynset":
		return "dynset " + canonicalDynset(data) + ";"
	default:
		return fmt.Sprintf("%s %x;", name, data)
	}
	if err := expr.Unmarshal(unix.NFPROTO_INET, data, e); err != nil {
		return fmt.Sprintf("%s %x;", name, data)
	}
	again, err := expr.Marshal(unix.NFPROTO_INET, e)
	if err != nil {
		return fmt.Sprintf("%s %x;", name, data)
	}
	return fmt.Sprintf("%s %x;", name, find(again, unix.NFTA_EXPR_DATA))
}

// canonicalDynset reads the essence of a dynset: the library writes the
// expression that it carries and reads it back as another one.
func canonicalDynset(data []byte) string {
	key, op := find(data, unix.NFTA_DYNSET_SREG_KEY), find(data, unix.NFTA_DYNSET_OP)
	inner := find(data, unix.NFTA_DYNSET_EXPR)
	name, carried := string(bytes.TrimRight(find(inner, unix.NFTA_EXPR_NAME), "\x00")), find(inner, unix.NFTA_EXPR_DATA)
	switch name {
	// The kernel orders the attributes otherwise, and adds others.
	case "quota":
		carried = slices.Concat(find(carried, unix.NFTA_QUOTA_BYTES), find(carried, unix.NFTA_QUOTA_FLAGS))
	case "limit":
		carried = slices.Concat(find(carried, unix.NFTA_LIMIT_RATE), find(carried, unix.NFTA_LIMIT_UNIT), find(carried, unix.NFTA_LIMIT_BURST),
			find(carried, unix.NFTA_LIMIT_TYPE), find(carried, unix.NFTA_LIMIT_FLAGS))
	}
	return fmt.Sprintf("%s %x %x %s %x", bytes.TrimRight(find(data, unix.NFTA_DYNSET_SET_NAME), "\x00"), key, op, name, carried)
}
