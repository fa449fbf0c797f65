package f2bbans

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The parts of the file's format that are read: https://www.sqlite.org/fileformat2.html,
// sections 1.3 (header), 1.6 (b-tree pages), 1.7 (overflow) and 2.1 (records).
const (
	headerSize   = 100
	magic        = "SQLite format 3\x00"
	minPage      = 512
	interiorPage = 5
	leafPage     = 13
	// maxPayload bounds one row: the columns that
	// matter come first, and the rest is evidence of no use here.
	maxPayload = 16 << 10
	// maxColumns bounds a row's columns.
	maxColumns = 64
)

type database struct {
	b        []byte
	page     int // bytes
	usable   int // of a page
	visits   int // pages that may still be visited: a loop ends there
	overflow int
}

// counter gives the file change counter.
func counter(b []byte) uint32 {
	if len(b) < headerSize {
		return 0
	}
	return binary.BigEndian.Uint32(b[24:])
}

func open(b []byte) (*database, error) {
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: it is no SQLite file", ErrDatabase)
	}
	d := &database{b: b, page: int(binary.BigEndian.Uint16(b[16:]))}
	if d.page == 1 {
		d.page = 1 << 16
	}
	d.usable = d.page - int(b[20])
	switch encoding := binary.BigEndian.Uint32(b[56:]); {
	case d.page < minPage || d.page&(d.page-1) != 0 || d.usable < minPage-32:
		return nil, fmt.Errorf("%w: its pages have %d bytes", ErrDatabase, d.page)
	case encoding > 1:
		return nil, fmt.Errorf("%w: its texts are not UTF-8", ErrDatabase)
	}
	d.visits = len(b)/d.page + 1
	d.overflow = 2 * d.visits
	return d, nil
}

// at gives page n, from 1.
func (d *database) at(n uint32) ([]byte, error) {
	end := int64(n) * int64(d.page)
	if n == 0 || end > int64(len(d.b)) {
		return nil, fmt.Errorf("%w: page %d is not there", ErrDatabase, n)
	}
	return d.b[end-int64(d.page) : end], nil
}

// A value is a column of a row: a text, or a number.
type value struct {
	text   string
	number int64
}

// rows calls f with each row of the table whose tree begins at a page.
func (d *database) rows(root uint32, f func([]value)) error {
	if d.visits--; d.visits < 0 {
		return fmt.Errorf("%w: its pages run in a circle", ErrDatabase)
	}
	p, err := d.at(root)
	if err != nil {
		return err
	}
	head := 0
	if root == 1 {
		head = headerSize
	}
	kind, cells := p[head], int(binary.BigEndian.Uint16(p[head+3:]))
	pointers := head + 8
	if kind == interiorPage {
		pointers += 4
	} else if kind != leafPage {
		return fmt.Errorf("%w: page %d is of kind %d", ErrDatabase, root, kind)
	}
	if pointers+2*cells > len(p) {
		return fmt.Errorf("%w: page %d has %d cells", ErrDatabase, root, cells)
	}
	for i := range cells {
		cell := int(binary.BigEndian.Uint16(p[pointers+2*i:]))
		if cell+4 > d.usable {
			return fmt.Errorf("%w: a cell of page %d lies outside", ErrDatabase, root)
		}
		if kind == interiorPage {
			err = d.rows(binary.BigEndian.Uint32(p[cell:]), f)
		} else {
			err = d.leaf(p[cell:d.usable], f)
		}
		if err != nil {
			return err
		}
	}
	if kind == interiorPage {
		return d.rows(binary.BigEndian.Uint32(p[head+8:]), f)
	}
	return nil
}

// leaf reads one row.
func (d *database) leaf(cell []byte, f func([]value)) error {
	size, n := varint(cell)
	_, m := varint(cell[n:])
	if n == 0 || m == 0 {
		return fmt.Errorf("%w: a cell is cut", ErrDatabase)
	}
	payload, err := d.payload(cell[n+m:], size)
	if err != nil {
		return err
	}
	row, err := record(payload)
	if err != nil {
		return err
	}
	f(row)
	return nil
}

// payload puts a row together: its beginning stands in the cell, the rest in a
// chain of pages.
func (d *database) payload(cell []byte, size uint64) ([]byte, error) {
	most, least := uint64(d.usable-35), uint64((d.usable-12)*32/255-23)
	local := size
	if size > most {
		if local = least + (size-least)%uint64(d.usable-4); local > most {
			local = least
		}
	}
	if local > uint64(len(cell)) {
		return nil, fmt.Errorf("%w: a row is cut", ErrDatabase)
	}
	if local == size {
		return cell[:local], nil
	}
	if local+4 > uint64(len(cell)) {
		return nil, fmt.Errorf("%w: a row is cut", ErrDatabase)
	}
	out := slices.Clone(cell[:local])
	next := binary.BigEndian.Uint32(cell[local:])
	for want := min(size, maxPayload); uint64(len(out)) < want; {
		if d.overflow--; d.overflow < 0 {
			return nil, fmt.Errorf("%w: its pages run in a circle", ErrDatabase)
		}
		p, err := d.at(next)
		if err != nil {
			return nil, err
		}
		out = append(out, p[4:min(d.usable, 4+int(want)-len(out))]...)
		next = binary.BigEndian.Uint32(p)
	}
	return out, nil
}

// record reads the columns of a row; those that are not there whole are empty.
func record(b []byte) ([]value, error) {
	size, n := varint(b)
	if n == 0 || size > uint64(len(b)) || size < uint64(n) {
		return nil, fmt.Errorf("%w: a row has no head", ErrDatabase)
	}
	head, body := b[n:size], b[size:]
	var row []value
	for len(head) > 0 && len(row) < maxColumns {
		kind, n := varint(head)
		if n == 0 {
			return nil, fmt.Errorf("%w: a row's head is cut", ErrDatabase)
		}
		head = head[n:]
		length := width(kind)
		if length > uint64(len(body)) {
			break // past the row
		}
		row = append(row, column(kind, body[:length]))
		body = body[length:]
	}
	return row, nil
}

// widths of the numbers, by serial type.
var widths = [...]uint64{0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0}

func width(kind uint64) uint64 {
	if kind < uint64(len(widths)) {
		return widths[kind]
	}
	return (kind - 12) / 2
}

func column(kind uint64, b []byte) value {
	switch {
	case kind == 7:
		return value{number: int64(math.Float64frombits(binary.BigEndian.Uint64(b)))}
	case kind == 9:
		return value{number: 1}
	case kind < 7 && len(b) > 0:
		n := int64(int8(b[0]))
		for _, c := range b[1:] {
			n = n<<8 | int64(c)
		}
		return value{number: n}
	case kind >= 12:
		return value{text: string(b)}
	}
	return value{}
}

// varint reads a number of 1 to 9 bytes, most significant first, and says how
// many it has; 0 means that it is cut.
func varint(b []byte) (v uint64, n int) {
	for n < len(b) {
		c := b[n]
		n++
		if n == 9 {
			return v<<8 | uint64(c), n
		}
		v = v<<7 | uint64(c&0x7f)
		if c < 0x80 {
			return v, n
		}
	}
	return 0, 0
}

// A table is where its rows begin, and its columns' names in order.
type table struct {
	root    uint32
	columns []string
}

func (t table) column(name string) int { return slices.Index(t.columns, name) }

// tables reads the schema.
func (d *database) tables() (map[string]table, error) {
	out := map[string]table{}
	err := d.rows(1, func(row []value) {
		// type, name, table's name, root page, SQL
		if len(row) < 5 || row[0].text != "table" || row[3].number < 1 || row[3].number > math.MaxUint32 {
			return
		}
		out[row[1].text] = table{uint32(row[3].number), columns(row[4].text)}
	})
	return out, err
}

// columns gives the names that a CREATE TABLE statement begins its definitions
// with: those of columns, in order, and then words such as FOREIGN.
func columns(sql string) (names []string) {
	_, list, _ := strings.Cut(sql, "(")
	depth, from := 0, 0
	for i, c := range list + "," {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth <= 0:
			if words := strings.Fields(list[min(from, len(list)):i]); len(words) > 0 {
				names = append(names, strings.Trim(words[0], "\"`[]"))
			}
			from = i + 1
		}
	}
	return names
}
