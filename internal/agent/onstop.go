package agent

import "errors"

// onStop closes what was opened, the newest first, also after a later part
// failed to open.
type onStop struct {
	list []func() error
}

// add remembers how to close what was just opened.
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
