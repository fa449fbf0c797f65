package lists

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// An Origin says where a list is fetched from.
type Origin struct {
	Name  string
	URL   string
	Every time.Duration // how often its server is asked
	// HTTP lets it come without encryption, Private from an address of a private
	// network: the one of URL, and of no redirection.
	HTTP, Private bool
}

// CheckURL refuses an address from which a list may not come.
func CheckURL(o Origin) (*url.URL, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Opaque != "":
		return nil, fmt.Errorf("%.80q is no address of a list: it begins with https://", o.URL)
	case u.Scheme == "http" && !o.HTTP:
		return nil, errors.New("it would come without encryption, so that anybody on the way may change it: https, or allow = [\"http\"]")
	}
	return u, nil
}
