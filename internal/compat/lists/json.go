package lists

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxDepth is how deep a JSON list may be nested.
const maxDepth = 16

// errDepth says that a JSON list is nested deeper.
var errDepth = fmt.Errorf("%w: it is nested deeper than %d levels", ErrNoList, maxDepth)

// readJSON takes documents one after the other: one, or one in each line. In each
// object the address is under the key, and so is its score; an array of texts without
// a key is one of addresses.
func (c *collector) readJSON(r io.Reader) error {
	d := json.NewDecoder(r)
	d.UseNumber()
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			c.edition.Lines++
			if err = c.readValue(d, token, 0); errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
		}
		if err != nil {
			return broken(err)
		}
	}
}

// broken makes the error of damaged JSON that of a text that is no list.
func broken(err error) error {
	if _, ok := errors.AsType[*json.SyntaxError](err); ok || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: its JSON is damaged: %w", ErrNoList, err)
	}
	return err
}

// readValue reads the rest of a value that begins with a token.
func (c *collector) readValue(d *json.Decoder, token json.Token, depth int) error {
	delim, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth >= maxDepth {
		return errDepth
	}
	if delim == '{' {
		return c.readObject(d, depth)
	}
	for d.More() {
		next, err := d.Token()
		if err != nil {
			return err
		}
		if text, ok := next.(string); ok && c.o.Column == "" {
			c.take([]byte(strings.TrimSpace(text)))
		} else if err := c.readValue(d, next, depth+1); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// readObject reads the rest of an object, and takes its address.
func (c *collector) readObject(d *json.Decoder, depth int) error {
	address, rank, score := "", len(addressKeys), ""
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		value, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := name.(string)
		if text, ok := value.(string); ok {
			if at := c.rank(key); at >= 0 && at < rank {
				address, rank = text, at
			}
		}
		if c.o.Score != "" && strings.EqualFold(key, c.o.Score) {
			score = fmt.Sprint(value) // that of another kind is no number
		}
		if err := c.readValue(d, value, depth+1); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	switch text := []byte(strings.TrimSpace(address)); {
	case address == "":
		// An envelope, or the line about the list itself.
	case c.o.Score != "":
		c.takeScored(text, []byte(score))
	default:
		c.take(text)
	}
	return nil
}

// rank orders keys by how likely they are the address's; -1 is none.
func (c *collector) rank(key string) int {
	if c.o.Column != "" {
		if strings.EqualFold(key, c.o.Column) {
			return 0
		}
		return -1
	}
	return slices.Index(addressKeys, strings.ToLower(key))
}
