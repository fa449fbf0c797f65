package agent

import "errors"

// onStop closes the opened parts, the newest first, also after a later one
// failed to open.
type onStop struct {
	list []func() error
}

// add remembers how to close the part that was just opened.
func (s *onStop) add(f func() error) { s.list = append(s.list, f) }

// run closes everything once.
func (s *onStop) run() error {
	var errs []error
	for len(s.list) > 0 {
		last := len(s.list) - 1
		errs = append(errs, s.list[last]())
		s.list = s.list[:last]
	}
	return errors.Join(errs...)
}
