package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// RefusalTopic is the filter under which a broker tells a client, and no other,
// why it does not keep that client's publications. MQTT 3.1.1 has no negative
// acknowledgement. Brokers that do not know it never publish there.
const RefusalTopic = "$banmesh/refused"

// A Refusal is one notice: JSON with these fields and no others, of at most
// MaxRefusal bytes. Nobody signs it, so it is a hint for a person alone.
type Refusal struct {
	Reason string `json:"reason"` // a key of Refusals
	Topic  string `json:"topic"`  // MQTT topic of the last message that was refused
	Count  int    `json:"count"`  // messages that were refused for the reason on this connection
}

// MaxRefusal bounds a notice, in bytes.
const MaxRefusal = 512

// RefusedTaken is the reason of a notice that is about no message: connections
// with the same keys take each other's place. Topic is [RefusalTopic] in it, and
// Count how often that happened.
const RefusedTaken = "taken"

// RefusedLeaving is the reason of a notice that is about no message: the broker
// is about to stop, and closes the connection in order.
const RefusedLeaving = "leaving"

// Refusals are the reasons of a [Refusal], and each as the end of the sentence
// "the broker keeps none of these messages: ...".
var Refusals = map[string]string{
	"access":       "this login may only read, or publishes for another node",
	"topic":        "they are of another network than the broker's",
	"operator":     "the broker does not serve this operator, or has banned its key",
	"retain":       "they are not retained",
	"empty":        "an erasure needs a login with the node's key",
	"size":         "they are larger than their kind allows",
	"placement":    "they belong to another topic",
	"stale":        "the broker has newer ones, perhaps of a copy of this node",
	"future":       "they are dated in the future: the clock here or there is wrong",
	"certificate":  "the operator's card there does not certify this node now",
	"signature":    "their signature is wrong",
	"format":       "the broker does not understand them: one of the two is out of date",
	"quota":        "this operator's share of the broker is used up. Shares of newcomers grow each day; the broker's operator can vouch for this one",
	"rate":         "they come faster than the broker allows",
	"newcomer":     "too many operators that the broker does not know come from this address; try again in an hour",
	"busy":         "the broker's disk does not keep up",
	RefusedLeaving: "the broker is being stopped",
	RefusedTaken:   "other connections with this node's keys took this one's place again and again",
}

// AppendRefusal appends a notice.
func AppendRefusal(b []byte, r Refusal) ([]byte, error) {
	text, err := json.Marshal(r)
	return append(b, text...), err
}

// ErrRefusal says that a notice is malformed.
var ErrRefusal = errors.New("malformed notice of a refusal")

// ParseRefusal reads a notice of an untrusted broker.
func ParseRefusal(b []byte) (r Refusal, err error) {
	if len(b) > MaxRefusal {
		return r, fmt.Errorf("%w: %d bytes", ErrRefusal, len(b))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Refusal{}, fmt.Errorf("%w: %w", ErrRefusal, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Refusal{}, fmt.Errorf("%w: bytes after it", ErrRefusal)
	}
	if Refusals[r.Reason] == "" || r.Count < 1 {
		return Refusal{}, fmt.Errorf("%w: reason %.32q", ErrRefusal, r.Reason)
	}
	if (r.Reason == RefusedTaken || r.Reason == RefusedLeaving) && r.Topic == RefusalTopic {
		return r, nil
	}
	if _, err := ParseTopicName(r.Topic); err != nil {
		return Refusal{}, fmt.Errorf("%w: %w", ErrRefusal, err)
	}
	return r, nil
}
