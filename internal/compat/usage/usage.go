// Package usage reads the reports in which CrowdSec's programs tell how much
// traffic they refused, by the origin of the decision that they refused it for.
package usage

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
)

const (
	// MaxBody bounds a report, unpacked, in bytes. A bouncer's has a few
	// kilobytes.
	MaxBody = 1 << 20
	// maxItems bounds the numbers of a report that are read, maxParts its
	// components and their periods.
	maxItems = 4096
	maxParts = 256
	// maxValue is the largest number that JSON's readers agree on.
	maxValue = 1 << 53
)

// Errors of [Read].
var (
	ErrSyntax  = errors.New("the report is not JSON")
	ErrTooLong = errors.New("the report is longer than a mebibyte")
	ErrForm    = errors.New("the report cannot be read")
)

// Dropped is traffic that was refused.
type Dropped struct {
	Packets, Bytes, Requests uint64
}

// Add adds the traffic of another report.
func (d *Dropped) Add(x Dropped) {
	d.Packets += x.Packets
	d.Bytes += x.Bytes
	d.Requests += x.Requests
}

// A Report has the contents of one request.
type Report struct {
	Components int // bouncers that it is of
	// Dropped is by origin as the program names it.
	Dropped map[string]Dropped
}

// report is the part of the body that is decoded.
type report struct {
	Components few[struct {
		Metrics few[struct {
			Items items `json:"items"`
		}] `json:"metrics"`
	}] `json:"remediation_components"`
}

type item struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Labels struct {
		Origin string `json:"origin"`
	} `json:"labels"`
}

// few is a list of which at most maxParts elements are kept, so that a short
// body of many empty ones takes no memory.
type few[T any] []T

// UnmarshalJSON implements [json.Unmarshaler].
func (f *few[T]) UnmarshalJSON(b []byte) (err error) {
	*f, err = first[T](b, maxParts)
	return err
}

// items are the numbers of a report.
type items []item

// UnmarshalJSON implements [json.Unmarshaler].
func (i *items) UnmarshalJSON(b []byte) (err error) {
	*i, err = first[item](b, maxItems)
	return err
}

// first decodes at most n elements of an array; null is none.
func first[T any](b []byte, n int) (list []T, err error) {
	if bytes.Equal(b, []byte("null")) {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, ErrForm
	}
	for d.More() && len(list) < n {
		var x T
		if err := d.Decode(&x); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, nil
}

// Read decodes the body of a request, packed or not. No more than [MaxBody]
// bytes of it are read, and nothing of one that says that it is longer.
func Read(r *http.Request) (Report, error) {
	if r.ContentLength > MaxBody {
		return Report{}, ErrTooLong
	}
	packed := io.LimitReader(r.Body, MaxBody+1)
	body := packed
	if strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		z, err := gzip.NewReader(packed)
		if err != nil {
			return Report{}, ErrSyntax
		}
		body = io.LimitReader(z, MaxBody+1)
	}
	b, err := io.ReadAll(body)
	switch {
	case len(b) > MaxBody:
		return Report{}, ErrTooLong
	case err != nil:
		return Report{}, ErrSyntax
	}
	var x report
	if err := json.Unmarshal(b, &x); err != nil {
		if !json.Valid(b) {
			return Report{}, ErrSyntax
		}
		return Report{}, ErrForm
	}
	return x.sum(), nil
}

// sum adds the numbers up by origin.
func (x *report) sum() Report {
	out := Report{Components: len(x.Components), Dropped: map[string]Dropped{}}
	left := maxItems
	for _, c := range x.Components {
		for _, m := range c.Metrics {
			for _, i := range m.Items {
				if left--; left < 0 {
					return out
				}
				d, ok := i.dropped()
				if !ok {
					continue
				}
				all := out.Dropped[i.Labels.Origin]
				all.Add(d)
				out.Dropped[i.Labels.Origin] = all
			}
		}
	}
	return out
}

func (i *item) dropped() (d Dropped, ok bool) {
	if i.Name != "dropped" || math.IsNaN(i.Value) || i.Value < 0 || i.Value > maxValue {
		return d, false
	}
	n := uint64(i.Value)
	switch i.Unit {
	case "packet":
		d.Packets = n
	case "byte":
		d.Bytes = n
	case "request":
		d.Requests = n
	}
	return d, true
}

// Answer gives the status and the words that a failed [Read] is answered with.
func Answer(err error) (status int, text string) {
	switch {
	case errors.Is(err, ErrSyntax):
		return http.StatusBadRequest, ErrSyntax.Error()
	case errors.Is(err, ErrTooLong):
		return http.StatusRequestEntityTooLarge, ErrTooLong.Error()
	}
	return http.StatusUnprocessableEntity, ErrForm.Error()
}
