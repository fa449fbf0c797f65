// Package pickle reads and writes the little of Python's pickle that fail2ban's
// client and server speak: lists of words, and the answers to them. Nothing
// that names a class or calls one is ever read.
package pickle

import (
	"encoding/binary"
	"errors"
	"math"
)

// The bounds of a request. fail2ban's client sends a flat list of words.
const (
	MaxRequest = 64 << 10 // bytes
	maxWords   = 4096     // elements of all lists together, and remembered ones
	maxDepth   = 2        // a list in a list
)

// ErrForm says that a request is not of the subset that is read.
var ErrForm = errors.New("the request is no list of words")

// opcodes of Python's pickle, those that are read or written. A request may
// have no other: above all none that names a class or calls it.
const (
	opProto     = 0x80
	opFrame     = 0x95
	opList      = ']'
	opMark      = '('
	opAppend    = 'a'
	opAppends   = 'e'
	opShort     = 0x8c // text of up to 255 bytes
	opText      = 'X'
	opInt1      = 'K'
	opInt2      = 'M'
	opInt4      = 'J'
	opLong      = 0x8a
	opFloat     = 'G'
	opTrue      = 0x88
	opFalse     = 0x89
	opNone      = 'N'
	opMemoize   = 0x94
	opPut       = 'q'
	opLongPut   = 'r'
	opGet       = 'h'
	opLongGet   = 'j'
	opStop      = '.'
	opDict      = '}'
	opSetItems  = 'u'
	opTuple     = 't'
	opGlobal    = 'c' // written for the exceptions that the client knows; never read
	opReduce    = 'R' // as opGlobal
	pickleProto = 3
)

// mark is a place on the stack of a [parser].
type mark struct{}

// list is a list that is being read. Its elements are string, int64, float64,
// bool, nil and *list.
type list struct {
	elements []any
	depth    int
}

// Parse reads a list as Python's pickle writes it: of texts, numbers,
// truth values, None, and lists of those.
func Parse(b []byte) ([]any, error) {
	if len(b) > MaxRequest {
		return nil, ErrForm
	}
	p := parser{b: b}
	for {
		op, ok := p.byte()
		if !ok {
			return nil, ErrForm
		}
		if op == opStop {
			break
		}
		if !p.step(op) {
			return nil, ErrForm
		}
	}
	if len(p.b) > 0 || len(p.stack) != 1 {
		return nil, ErrForm
	}
	l, ok := p.stack[0].(*list)
	if !ok {
		return nil, ErrForm
	}
	return l.elements, nil
}

// parser is the machine that a pickle is a program of.
type parser struct {
	b     []byte // the rest
	stack []any
	memo  map[uint32]any
	words int
}

func (p *parser) byte() (byte, bool) {
	if len(p.b) == 0 {
		return 0, false
	}
	c := p.b[0]
	p.b = p.b[1:]
	return c, true
}

// number reads n bytes, the lowest first.
func (p *parser) number(n int) (v uint64, ok bool) {
	if len(p.b) < n {
		return 0, false
	}
	for i := range n {
		v |= uint64(p.b[i]) << (8 * i)
	}
	p.b = p.b[n:]
	return v, true
}

// step runs one opcode.
func (p *parser) step(op byte) bool {
	switch op {
	case opProto:
		v, ok := p.number(1)
		return ok && v <= 5
	case opFrame:
		v, ok := p.number(8)
		return ok && v <= uint64(len(p.b))
	case opList:
		return p.push(&list{depth: 1})
	case opMark:
		return p.push(mark{})
	case opShort:
		return p.text(1)
	case opText:
		return p.text(4)
	case opInt1, opInt2, opInt4:
		v, ok := p.number(map[byte]int{opInt1: 1, opInt2: 2, opInt4: 4}[op])
		if op == opInt4 {
			return ok && p.push(int64(int32(uint32(v))))
		}
		return ok && p.push(int64(v))
	case opFloat:
		if len(p.b) < 8 {
			return false
		}
		v := math.Float64frombits(binary.BigEndian.Uint64(p.b))
		p.b = p.b[8:]
		return p.push(v)
	case opTrue, opFalse:
		return p.push(op == opTrue)
	case opNone:
		return p.push(nil)
	case opMemoize:
		return p.put(uint32(len(p.memo)))
	case opPut, opLongPut, opGet, opLongGet:
		return p.remember(op)
	case opAppend:
		return len(p.stack) >= 2 && p.fill(len(p.stack)-1)
	case opAppends:
		for i := len(p.stack) - 1; i >= 1; i-- {
			if _, ok := p.stack[i].(mark); ok {
				p.stack = append(p.stack[:i], p.stack[i+1:]...)
				return p.fill(i)
			}
		}
	}
	return false
}

func (p *parser) push(v any) bool {
	p.words++
	p.stack = append(p.stack, v)
	return p.words <= maxWords
}

func (p *parser) text(n int) bool {
	size, ok := p.number(n)
	if !ok || size > uint64(len(p.b)) {
		return false
	}
	s := string(p.b[:size])
	p.b = p.b[size:]
	return p.push(s)
}

// put keeps the top of the stack under a number.
func (p *parser) put(n uint32) bool {
	if len(p.stack) == 0 || len(p.memo) >= maxWords {
		return false
	}
	if p.memo == nil {
		p.memo = map[uint32]any{}
	}
	p.memo[n] = p.stack[len(p.stack)-1]
	return true
}

// remember keeps a value, or takes one that was kept. Only texts are taken, so
// that no list can be in two places, nor in itself.
func (p *parser) remember(op byte) bool {
	size := 1
	if op == opLongPut || op == opLongGet {
		size = 4
	}
	n, ok := p.number(size)
	if !ok {
		return false
	}
	if op == opPut || op == opLongPut {
		return p.put(uint32(n))
	}
	s, ok := p.memo[uint32(n)].(string)
	return ok && p.push(s)
}

// fill moves the elements from the stack's place i on into the list before it.
func (p *parser) fill(i int) bool {
	l, ok := p.stack[i-1].(*list)
	if !ok {
		return false
	}
	for _, v := range p.stack[i:] {
		switch v := v.(type) {
		case mark:
			return false
		case *list:
			l.depth = max(l.depth, v.depth+1)
			if l.depth > maxDepth {
				return false
			}
			l.elements = append(l.elements, v.elements)
		default:
			l.elements = append(l.elements, v)
		}
	}
	clear(p.stack[i:])
	p.stack = p.stack[:i]
	return true
}

// The composite values of an answer. Others are nil, bool, int, string and
// []string, which is a list.
type (
	List  []any
	Tuple []any
	Dict  []Pair
	Pair  struct {
		Key   string
		Value any
	}
)

// Error is an exception, which fail2ban's client prints in its own words.
type Error struct {
	Module, Class, Text string
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Append writes a value with its header and end.
func Append(b []byte, v any) []byte {
	return append(appendValue(append(b, opProto, pickleProto), v), opStop)
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		if v {
			return append(b, opTrue)
		}
		return append(b, opFalse)
	case int:
		if int64(v) != int64(int32(v)) {
			return binary.LittleEndian.AppendUint64(append(b, opLong, 8), uint64(v))
		}
		return binary.LittleEndian.AppendUint32(append(b, opInt4), uint32(int32(v)))
	case string:
		return append(binary.LittleEndian.AppendUint32(append(b, opText), uint32(len(v))), v...)
	case []string:
		b = append(b, opList, opMark)
		for _, x := range v {
			b = appendValue(b, x)
		}
		return append(b, opAppends)
	case List:
		b = append(b, opList, opMark)
		for _, x := range v {
			b = appendValue(b, x)
		}
		return append(b, opAppends)
	case Tuple:
		b = append(b, opMark)
		for _, x := range v {
			b = appendValue(b, x)
		}
		return append(b, opTuple)
	case Dict:
		b = append(b, opDict, opMark)
		for _, x := range v {
			b = appendValue(appendValue(b, x.Key), x.Value)
		}
		return append(b, opSetItems)
	case *Error:
		b = append(append(append(append(append(b, opGlobal), v.Module...), '\n'), v.Class...), '\n')
		return append(appendValue(b, Tuple{v.Text}), opReduce)
	}
	return append(b, opNone)
}
