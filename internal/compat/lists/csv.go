package lists

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// addressKeys are the usual names of an address's column or key, the likeliest first.
var addressKeys = []string{
	"ip", "ipaddress", "ip_address", "address", "addr", "cidr", "network", "prefix", "range", "subnet", "source_ip", "src_ip", "dst_ip", "ipv4prefix", "ipv6prefix", "ip_prefix", "ipv6_prefix", "value", "indicator",
}

// columns are those of a list that are read.
type columns struct {
	o              Options
	known          bool
	address, score int // from 0; -1 for none
}

// takeRow takes a row. The first one says which columns there are: by their names, or
// by which of them is an address.
func (c *collector) takeRow(t *columns, line []byte, fields [][]byte) {
	if !t.known {
		t.known = true
		if header := t.find(fields); header {
			return
		}
	}
	switch {
	case t.address < 0 || max(t.address, t.score) >= len(fields):
		c.junk(line)
	case t.score >= 0:
		c.takeScored(fields[t.address], fields[t.score])
	default:
		c.take(fields[t.address])
	}
}

// find finds the columns; header says that the row has their names.
func (t *columns) find(fields [][]byte) (header bool) {
	named := func(column string) int {
		if at := slices.IndexFunc(fields, func(f []byte) bool { return strings.EqualFold(string(f), column) }); at >= 0 {
			header = true
			return at
		}
		if n, err := strconv.Atoi(column); err == nil && n >= 1 && n <= len(fields) {
			return n - 1
		}
		return -1
	}
	t.score = -1
	if t.o.Score != "" {
		t.score = named(t.o.Score)
	}
	if t.o.Column != "" {
		t.address = named(t.o.Column)
	} else {
		t.address = slices.IndexFunc(fields, isAddress)
		for i := 0; i < len(addressKeys) && t.address < 0; i++ {
			t.address = named(addressKeys[i])
		}
	}
	if t.o.Score != "" && t.score < 0 {
		t.address = -1 // nothing is taken without the score that was asked for
	}
	return header || t.address < 0 || !isAddress(fields[t.address])
}

// splitCSV splits a row at its commas (or semicolons, where it has no comma). A
// field in quotes may have either.
func splitCSV(line []byte) (fields [][]byte) {
	comma := byte(',')
	if bytes.IndexByte(line, comma) < 0 {
		comma = ';'
	}
	quoted, start := false, 0
	for i, b := range line {
		switch {
		case b == '"':
			quoted = !quoted
		case b == comma && !quoted:
			fields = append(fields, bytes.Trim(line[start:i], " \t\""))
			start = i + 1
		}
	}
	return append(fields, bytes.Trim(line[start:], " \t\""))
}
