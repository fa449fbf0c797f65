package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// A document is a message as programs read it: the body of a webhook, and the
// payload of MQTT.
type document struct {
	Version int       `json:"version"` // 1
	ID      string    `json:"id"`      // the same in every attempt
	At      time.Time `json:"at"`
	Kind    Kind      `json:"kind"`
	Urgent  bool      `json:"urgent"`
	Label   string    `json:"label,omitempty"`
	Title   string    `json:"title"`
	Text    string    `json:"text"`
	Link    string    `json:"link,omitempty"`
	Buttons []Button  `json:"buttons,omitempty"`
	Notices []Notice  `json:"notices"`
	More    int       `json:"more"` // notices that are counted alone
}

func newDocument(m Message, e *Entry) document {
	d := document{Version: 1, ID: m.ID, At: m.At.UTC(), Kind: m.Kind, Urgent: m.Urgent, Label: e.Label, Title: m.Title, Text: m.Text(), Link: m.Link, Buttons: m.Buttons, Notices: []Notice{}, More: m.More}
	for _, n := range m.Notices {
		if !e.Details {
			n.Detail = ""
		}
		d.Notices = append(d.Notices, n)
	}
	return d
}

// The headers of a webhook.
const (
	HeaderID        = "Banmesh-Id"
	HeaderTimestamp = "Banmesh-Timestamp"
	HeaderSignature = "Banmesh-Signature"
)

// Signature signs a webhook: HMAC-SHA256 by the key over the time in seconds of
// Unix, a full stop and the body, in hexadecimal behind "v1=".
func Signature(key string, at time.Time, body []byte) string {
	h := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(h, "%d.", at.Unix())
	h.Write(body)
	return "v1=" + hex.EncodeToString(h.Sum(nil))
}

type webhook struct{ web }

func (w webhook) send(ctx context.Context, m Message) (string, error) {
	body, err := json.Marshal(newDocument(m, w.entry))
	if err != nil {
		return "", fmt.Errorf("encoding the message: %w", err)
	}
	// The time is that of the attempt: receivers refuse old ones as repeated by
	// somebody.
	return w.post(ctx, http.MethodPost, w.entry.URL, map[string]string{
		HeaderID: m.ID, HeaderTimestamp: strconv.FormatInt(m.At.Unix(), 10), HeaderSignature: Signature(w.secret, m.At, body),
	}, body)
}
