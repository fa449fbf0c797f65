// Package fetch gets lists of addresses over HTTP for the agent, which opens no such
// connection itself: it writes them into a spool directory, as a user of its own, and
// the agent reads them there as foreign bytes.
//
// A server is not trusted either. It is asked over https unless the list says
// otherwise, and a redirection leads nowhere that the list does not say: not to
// plain http, and to no address of this machine's own networks.
package fetch

import (
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"banmesh/internal/compat/lists"
	"banmesh/internal/wholefile"
)

// Bounds of a fetch.
const (
	// within is how long one list may take, over all redirections.
	within = 2 * time.Minute
	// redirections is how many are followed.
	redirections = 5
	// retryAfter is how soon a list is asked for again that could not be had.
	retryAfter = 15 * time.Minute
	// longestWait bounds the wait that a server asks for.
	longestWait = 24 * time.Hour
	// maxValidator bounds the texts of a server that it is told again.
	maxValidator = 512
)

// An Outcome says how a fetch went.
type Outcome string

// The outcomes.
const (
	Changed   Outcome = "changed"   // a newer edition is in the spool
	Unchanged Outcome = "unchanged" // the server has no newer one
	NotDue    Outcome = "not due"   // it was asked lately
)

// A Fetcher writes lists into a spool.
type Fetcher struct {
	Spool   string
	Version string // of this program, for the servers' logs
	Now     func() time.Time
	// Force asks servers although it is not time yet.
	Force bool

	testingOnlyTLS   *tls.Config
	testingOnlyLimit int64
	testingOnlyTime  time.Duration
}

// errLocked says that another process writes into the spool.
var errLocked = errors.New("another fetch writes into the spool")

// Lock makes sure that one process at a time writes into a spool, which it makes where
// it is missing. It is the caller's to call unlock.
func Lock(spool string) (unlock func() error, err error) {
	if err := os.MkdirAll(spool, 0o755); err != nil {
		return nil, fmt.Errorf("making the spool: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(spool, ".lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the spool: %w", err)
	}
	err = wholefile.Give(f)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errLocked
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

// Tidy removes lists from the spool that are none of those named.
func Tidy(spool string, named []lists.Origin) error {
	keep := map[string]bool{".lock": true}
	for _, l := range named {
		keep[filepath.Base(lists.BodyFile(spool, l.Name))] = true
		keep[filepath.Base(lists.RecordFile(spool, l.Name))] = true
	}
	entries, err := os.ReadDir(spool)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		// Files of a fetch that was killed begin with a dot.
		if ours := strings.HasSuffix(e.Name(), ".list") || strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), ".new-"); ours && !keep[e.Name()] {
			errs = append(errs, os.Remove(filepath.Join(spool, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Fetch asks for a list. Whatever comes of it, its record says so; the list that was
// there before stays where no newer one came.
func (f *Fetcher) Fetch(ctx context.Context, l lists.Origin) (Outcome, error) {
	before, err := lists.ReadFetched(f.Spool, l.Name)
	if err != nil && !errors.Is(err, lists.ErrNotFetched) || before.URL != l.URL || !f.agrees(l.Name, before) {
		before = lists.Fetched{URL: l.URL, Tried: before.Tried, Error: before.Error, Next: before.Next}
		if err != nil || before.URL != l.URL {
			before = lists.Fetched{URL: l.URL}
		}
	}
	now := f.Now()
	if !f.Force && !due(before, l, now) {
		return NotDue, nil
	}
	next, outcome, err := f.ask(ctx, l, before)
	next.Tried, next.Error = now, ""
	if err != nil {
		next.Error = clip(err.Error(), maxValidator)
	}
	return outcome, errors.Join(err, f.record(l.Name, next))
}

// due says whether it is time to ask for a list.
func due(before lists.Fetched, l lists.Origin, now time.Time) bool {
	wait := l.Every
	if before.Error != "" {
		wait = min(wait, retryAfter)
	}
	// A clock that went back does not silence a list.
	return before.Tried.IsZero() || before.Tried.After(now) || !now.Before(before.Tried.Add(wait)) && !now.Before(before.Next)
}

// agrees says whether the list in the spool is the one of its record: a fetch that was
// killed in between left another one.
func (f *Fetcher) agrees(name string, r lists.Fetched) bool {
	file, _, err := lists.Open(lists.BodyFile(f.Spool, name))
	if err != nil {
		return false
	}
	defer file.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, io.LimitReader(file, lists.MaxBytes+1))
	return err == nil && hex.EncodeToString(sum.Sum(nil)) == r.Sum
}

// ask asks a server for a list, and writes it into the spool if it is another one.
func (f *Fetcher) ask(ctx context.Context, l lists.Origin, before lists.Fetched) (next lists.Fetched, _ Outcome, err error) {
	limit := within
	if f.testingOnlyTime > 0 {
		limit = f.testingOnlyTime
	}
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	next = before
	next.Next = time.Time{}
	client, err := f.client(l)
	if err != nil {
		return next, "", err
	}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.URL, nil)
	if err != nil {
		return next, "", err
	}
	r.Header.Set("User-Agent", "banmesh/"+f.Version)
	r.Header.Set("Accept-Encoding", "gzip")
	conditional := before.Sum != "" && before.ETag+before.LastModified != ""
	if conditional {
		if before.ETag != "" {
			r.Header.Set("If-None-Match", before.ETag)
		}
		if before.LastModified != "" {
			r.Header.Set("If-Modified-Since", before.LastModified)
		}
	}
	answer, err := client.Do(r)
	if err != nil {
		return next, "", plain(err)
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode == http.StatusNotModified && conditional:
		next.Confirmed = f.Now()
		return next, Unchanged, nil
	case answer.StatusCode != http.StatusOK:
		next.Next = retryTime(answer.Header.Get("Retry-After"), f.Now())
		return next, "", fmt.Errorf("the server answers %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	}
	sum, err := f.keep(ctx, l.Name, before.Sum, answer)
	if err != nil {
		return next, "", fmt.Errorf("reading the list: %w", plain(err))
	}
	outcome := Unchanged
	if sum != before.Sum {
		outcome, next.Changed = Changed, f.Now()
	}
	next.Sum, next.Confirmed = sum, f.Now()
	next.ETag, next.LastModified = validator(answer.Header.Get("ETag")), validator(answer.Header.Get("Last-Modified"))
	return next, outcome, nil
}

// keep writes the body of an answer into the spool, unless it is the list that is
// there, and gives its checksum.
func (f *Fetcher) keep(ctx context.Context, name, before string, answer *http.Response) (sum string, err error) {
	most := int64(lists.MaxBytes)
	if f.testingOnlyLimit > 0 {
		most = f.testingOnlyLimit
	}
	if answer.ContentLength > most {
		return "", lists.ErrTooLarge
	}
	body := io.Reader(io.LimitReader(answer.Body, most+1))
	switch coding := answer.Header.Get("Content-Encoding"); coding {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(body)
		if err != nil {
			return "", err
		}
		body = io.LimitReader(z, most+1)
	default:
		return "", fmt.Errorf("the server packs it with %.20q, for which nobody asked", coding)
	}
	file, err := os.CreateTemp(f.Spool, ".new-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(file.Name()) // gone already where it took its place
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(file, hash), body)
	if err == nil && n > most {
		err = lists.ErrTooLarge
	}
	// A server that sees this end close the connection may still end the list in order.
	err = cmp.Or(err, ctx.Err())
	err = errors.Join(err, file.Chmod(0o644), wholefile.Give(file), file.Sync(), file.Close())
	if err != nil {
		return "", err
	}
	if sum = hex.EncodeToString(hash.Sum(nil)); sum == before {
		return sum, nil
	}
	return sum, os.Rename(file.Name(), lists.BodyFile(f.Spool, name))
}

// record replaces the record of a list.
func (f *Fetcher) record(name string, r lists.Fetched) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := wholefile.Write(lists.RecordFile(f.Spool, name), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the record: %w", err)
	}
	return nil
}

// retryTime reads Retry-After: seconds or a date.
func retryTime(text string, now time.Time) time.Time {
	var at time.Time
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		at = now.Add(time.Duration(min(n, int(longestWait/time.Second))) * time.Second)
	} else if t, err := http.ParseTime(text); err == nil {
		at = t
	}
	if latest := now.Add(longestWait); at.After(latest) {
		return latest
	}
	return at
}

// validator is a header that is sent back: bounded, "" where it is longer.
func validator(text string) string {
	if len(text) > maxValidator {
		return ""
	}
	return text
}

// plain takes the address out of an error: the caller names the list.
func plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}
