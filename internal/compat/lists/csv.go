package lists

import (
	"bytes"
	"strconv"
	"strings"
)

// addressKeys are the usual names of an address's column or key, the likeliest first.
var addressKeys = []string{
	"ip", "ipaddress", "ip_address", "address", "addr", "cidr", "network", "prefix", "range", "subnet", "source_ip", "src_ip", "dst_ip", "ipv4prefix", "ipv6prefix", "ip_prefix", "ipv6_prefix", "value", "indicator",
}

// csvTable is which columns of a CSV list are read.
type csvTable struct {
	known          bool
	address, score int // from 0; score is -1 where none is asked for
}

// takeCSV takes a row. The first one says which columns there are: by their names, or
// by which of them is an address.
func (c *collector) takeCSV(t *csvTable, line []byte) {
	fields := splitCSV(line)
	if !t.known {
		t.known = true
		if header := t.columns(c.o, fields); header {
			return
		}
	}
	if t.address < 0 || t.address >= len(fields) {
		c.junk(line)
		return
	}
	if t.score >= 0 {
		if t.score >= len(fields) {
			c.junk(line)
			return
		}
		score, err := strconv.ParseFloat(string(fields[t.score]), 64)
		if err != nil {
			c.junk(line)
			return
		}
		if score < c.o.Minimum {
			c.sound++
			c.edition.Low++
			return
		}
	}
	c.take(fields[t.address])
}

// columns finds the columns; header says that the row has their names.
func (t *csvTable) columns(o Options, fields [][]byte) (header bool) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = strings.ToLower(string(f))
	}
	find := func(column string) int {
		for i, n := range names {
			if n == strings.ToLower(column) {
				header = true
				return i
			}
		}
		if n, err := strconv.Atoi(column); err == nil && n >= 1 && n <= len(fields) {
			return n - 1
		}
		return -1
	}
	t.address, t.score = -1, -1
	if o.Score != "" {
		t.score = find(o.Score)
	}
	switch {
	case o.Column != "":
		t.address = find(o.Column)
	default:
		for i, f := range fields {
			if isAddress(f) {
				t.address = i
				return header
			}
		}
		for _, key := range addressKeys {
			if t.address = find(key); t.address >= 0 {
				break
			}
		}
	}
	if t.address >= 0 && !isAddress(fields[t.address]) {
		header = true
	}
	if o.Score != "" && t.score < 0 {
		t.address = -1 // nothing is taken without the score that was asked for
	}
	return header || t.address < 0
}

// splitCSV splits a row at its commas (or semicolons, where it has no comma). A
// field in quotes may have either.
func splitCSV(line []byte) (fields [][]byte) {
	comma := byte(',')
	if bytes.IndexByte(line, comma) < 0 {
		comma = ';'
	}
	for {
		var field []byte
		line = bytes.TrimLeft(line, " \t")
		if len(line) > 0 && line[0] == '"' {
			if end := bytes.IndexByte(line[1:], '"'); end >= 0 {
				field = line[1 : 1+end]
				line = line[end+2:]
			}
		}
		end := bytes.IndexByte(line, comma)
		rest := line
		if end >= 0 {
			rest = line[:end]
		}
		if field == nil {
			field = rest
		}
		fields = append(fields, bytes.TrimSpace(field))
		if end < 0 {
			return fields
		}
		line = line[end+1:]
	}
}
