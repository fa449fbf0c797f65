package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"banmesh/internal/ban"
)

const (
	// maxReport bounds the body of one report.
	maxReport = 64 << 10
	// maxOffences bounds the offences of one report.
	maxOffences = 256
	// maxAge is how old an offence may be: a program that reports yesterday's
	// attempts would ban for offences that are over.
	maxAge = 10 * time.Minute
)

// report is the body of POST /v1/offences.
type report struct {
	Offences []jsonOffence `json:"offences"`
}

type jsonOffence struct {
	Topic  ban.Topic  `json:"topic"`
	Target ban.Target `json:"target"`
	Class  ban.Class  `json:"class"`
	// Age is how long ago it was seen, in milliseconds.
	Age int64 `json:"age_ms,omitempty"`
}

// reportAnswer gives the fate of each offence of a report.
type reportAnswer struct {
	Taken   int            `json:"taken"`
	Refused []refusedIndex `json:"refused"`
}

type refusedIndex struct {
	Index int    `json:"index"`
	Error string `json:"error"`
}

// offences takes a report. The report is refused as a whole when it cannot be
// read; each offence is refused for itself otherwise.
func (h *Handler) offences(w http.ResponseWriter, r *http.Request) {
	if h.o.Offences == nil {
		refuse(w, http.StatusNotFound, errors.New("this agent takes no reports"), "")
		return
	}
	list, err := readReport(http.MaxBytesReader(w, r.Body, maxReport), time.Now())
	if err != nil {
		refuse(w, http.StatusBadRequest, err, "")
		return
	}
	answer := reportAnswer{Refused: []refusedIndex{}}
	for i, o := range list {
		err := h.o.Offences.Report(r.Context(), o)
		switch {
		case err == nil:
			answer.Taken++
		case errors.Is(err, ErrUnwelcome):
			answer.Refused = append(answer.Refused, refusedIndex{i, err.Error()})
		default:
			refuse(w, http.StatusServiceUnavailable, err, "report again in a moment")
			return
		}
	}
	writeJSON(w, http.StatusOK, answer)
}

// readReport decodes a report strictly.
func readReport(body io.Reader, now time.Time) ([]Offence, error) {
	var r report
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("reading the report: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("reading the report: more than one value")
	}
	if len(r.Offences) == 0 || len(r.Offences) > maxOffences {
		return nil, fmt.Errorf("a report has 1 to %d offences, this has %d", maxOffences, len(r.Offences))
	}
	var list []Offence
	for i, j := range r.Offences {
		if _, err := ban.ParseTopic(string(j.Topic)); err != nil {
			return nil, fmt.Errorf("offence %d: %w", i, err)
		}
		age := time.Duration(j.Age) * time.Millisecond
		switch {
		case j.Target.IsZero():
			return nil, fmt.Errorf("offence %d: no target", i)
		case j.Class == ban.ClassManual || j.Class == ban.ClassRecidive:
			return nil, fmt.Errorf("offence %d: the class %q is the agent's own to give", i, j.Class)
		case j.Age < 0 || j.Age > maxAge.Milliseconds():
			return nil, fmt.Errorf("offence %d: its age is not within 0 and %s", i, maxAge)
		}
		list = append(list, Offence{j.Topic, j.Target, j.Class, now.Add(-age)})
	}
	return list, nil
}
