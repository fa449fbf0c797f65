package gate

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// errNoID says that a body is a JSON object without an "id".
var errNoID = errors.New("no id")

// readID reads the wallet of a webhook call: a JSON object whose "id" is "0x"
// and 40 hex digits. Other members are a later version's and are passed over;
// two ids, or bytes behind the object, are refused, because two readers could
// then see two wallets. An off-chain node sends the zero address.
//
// The spelling of EIP-55 is not checked: the orchestrator wrote it from the
// 20 bytes whose signature it verified.
func readID(body []byte) ([20]byte, error) {
	id, err := readObject(body)
	if err != nil {
		return [20]byte{}, err
	}
	return id, nil
}

// readObject is readID, except that id means nothing beside an error.
func readObject(body []byte) (id [20]byte, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return id, errors.New("not a JSON object")
	}
	found := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return id, errors.New("not a JSON object")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return id, errors.New("not a JSON object")
		}
		if key != "id" {
			continue
		}
		if found {
			return id, errors.New("two ids")
		}
		found = true
		if id, err = readAddress(value); err != nil {
			return id, err
		}
	}
	if _, err := d.Token(); err != nil {
		return id, errors.New("not a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return id, errors.New("bytes behind the JSON object")
	}
	if !found {
		return id, errNoID
	}
	return id, nil
}

func readAddress(value json.RawMessage) (id [20]byte, err error) {
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return id, errors.New("the id is not a text")
	}
	if len(text) != 42 || text[:2] != "0x" {
		return id, fmt.Errorf("the id %.64q is not 0x and 40 hex digits", text)
	}
	if _, err := hex.Decode(id[:], []byte(text[2:])); err != nil {
		return id, fmt.Errorf("the id %.64q is not 0x and 40 hex digits", text)
	}
	return id, nil
}
