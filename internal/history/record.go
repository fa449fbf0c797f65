package history

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"banmesh/internal/ban"
)

// A record is a line: the CRC-32C of the JSON behind it in eight hexadecimal
// digits, a space, and the JSON object of an event. encoding/json writes every
// control character as an escape, so that a line end is the end of a record.
const (
	sumDigits = 8
	// maxRecord bounds a record: texts of [Event], each byte of which may become an
	// escape of six, and the names around them.
	maxRecord = 6*(3*maxText+maxLine+maxPeers*maxText) + 1024
)

// ErrDamaged says that bytes are no record.
var ErrDamaged = errors.New("a record of the history is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recorded is an event as it is on disk, with times in Unix seconds.
type recorded struct {
	Cursor Cursor      `json:"c"`
	At     int64       `json:"t"`
	Kind   Kind        `json:"k"`
	Topic  ban.Topic   `json:"topic,omitempty"`
	Target *ban.Target `json:"target,omitempty"`
	By     string      `json:"by,omitempty"`
	Peers  []string    `json:"peers,omitempty"`
	Why    string      `json:"why,omitempty"`
	Until  int64       `json:"until,omitempty"`
	Count  int         `json:"n,omitempty"`
	First  int64       `json:"first,omitempty"`
	Source string      `json:"log,omitempty"`
	Sample string      `json:"line,omitempty"`
	Port   uint16      `json:"port,omitempty"`
}

// appendRecord adds the record of an event.
func appendRecord(b []byte, e *Event) ([]byte, error) {
	r := recorded{
		Cursor: e.Cursor, At: e.At.Unix(), Kind: e.Kind, Topic: e.Topic, By: e.By, Peers: e.Peers, Why: e.Why,
		Until: unix(e.Until), Count: e.Count, First: unix(e.First), Source: e.Source, Sample: e.Sample, Port: e.Port,
	}
	if !e.Target.IsZero() {
		r.Target = &e.Target
	}
	text, err := json.Marshal(r)
	if err != nil {
		return b, fmt.Errorf("encoding an event: %w", err)
	}
	var sum [4]byte
	c := crc32.Checksum(text, castagnoli)
	sum[0], sum[1], sum[2], sum[3] = byte(c>>24), byte(c>>16), byte(c>>8), byte(c)
	b = hex.AppendEncode(b, sum[:])
	b = append(b, ' ')
	b = append(b, text...)
	return append(b, '\n'), nil
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

// parseRecord reads a line without its end. It is strict: a record that was not
// written by [appendRecord] is [ErrDamaged].
func parseRecord(line []byte) (e Event, err error) {
	if len(line) <= sumDigits || len(line) > maxRecord || line[sumDigits] != ' ' {
		return e, ErrDamaged
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[:sumDigits]); err != nil {
		return e, ErrDamaged
	}
	text := line[sumDigits+1:]
	if c := crc32.Checksum(text, castagnoli); c != uint32(sum[0])<<24|uint32(sum[1])<<16|uint32(sum[2])<<8|uint32(sum[3]) {
		return e, ErrDamaged
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var r recorded
	if err := d.Decode(&r); err != nil || d.InputOffset() != int64(len(text)) {
		return e, ErrDamaged
	}
	if _, ok := ParseKind(string(r.Kind)); !ok || r.Cursor == 0 || r.Count < 0 || len(r.Peers) > maxPeers {
		return e, ErrDamaged
	}
	e = Event{
		Cursor: r.Cursor, At: time.Unix(r.At, 0).UTC(), Kind: r.Kind, Topic: r.Topic, By: r.By, Peers: r.Peers, Why: r.Why,
		Until: fromUnix(r.Until), Count: r.Count, First: fromUnix(r.First), Source: r.Source, Sample: r.Sample, Port: r.Port,
	}
	if r.Target != nil {
		e.Target = *r.Target
	}
	return e, nil
}
