package serving

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Answer writes a short answer in JSON, without a line feed.
func Answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"message":"the answer could not be made"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client went away: there is nobody to tell
}

// Fault answers in the form of CrowdSec's errors.
func Fault(w http.ResponseWriter, status int, text string) {
	Answer(w, status, map[string]string{"message": text})
}

// Plain gives the first 64 bytes of a foreign text, in printable ASCII.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 64)])
}
