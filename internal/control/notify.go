package control

import "time"

// Notify is an element of the answer to GET /v1/notify, and of the status: how one
// receiver of messages is doing. It has neither its address nor its secret.
type Notify struct {
	Name string   `json:"name"`
	Type string   `json:"type"`
	On   []string `json:"on"` // the kinds that it takes
	// Waiting is how many things are to be told, Next when, by the rate, the quiet
	// hours and the pause after a failure.
	Waiting int       `json:"waiting"`
	Next    time.Time `json:"next,omitzero"`
	Sent    uint64    `json:"sent"`   // messages
	Failed  uint64    `json:"failed"` // attempts
	// LastSent and Answer are of the last message that arrived, Error and ErrorAt of
	// the last attempt that failed; Error is "" again after a success. Failing is
	// since when every attempt fails.
	LastSent   time.Time `json:"last_sent,omitzero"`
	Answer     string    `json:"answer,omitempty"`
	Error      string    `json:"error,omitempty"`
	ErrorAt    time.Time `json:"error_at,omitzero"`
	Failing    time.Time `json:"failing,omitzero"`
	QuietUntil time.Time `json:"quiet_until,omitzero"`
}

// NotifyTestRequest is the body of POST /v1/notify/test.
type NotifyTestRequest struct {
	Name string `json:"name,omitempty"` // "" for all
}

// NotifyTest is an element of its answer: the answer of one receiver.
type NotifyTest struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Answer string `json:"answer,omitempty"`
	Error  string `json:"error,omitempty"`
}
