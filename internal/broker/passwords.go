package broker

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// passwordRounds makes one guess cost about 20 ms of a processor.
const passwordRounds = 100_000

// HashPassword gives the hash of a password for a configuration file.
func HashPassword(password string) (string, error) {
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	sum, err := pbkdf2.Key(sha256.New, password, salt, passwordRounds, sha256.Size)
	if err != nil {
		return "", err
	}
	e := base64.RawStdEncoding
	return fmt.Sprintf("pbkdf2-sha256$%d$%s$%s", passwordRounds, e.EncodeToString(salt), e.EncodeToString(sum)), nil
}

// ErrHash says that a text is not a password hash.
var ErrHash = errors.New("not a password hash; `broker hash` makes one")

// CheckHash checks the form of a hash.
func CheckHash(hash string) error {
	_, _, _, err := parseHash(hash)
	return err
}

func parseHash(hash string) (rounds int, salt, sum []byte, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 4 || parts[0] != "pbkdf2-sha256" {
		return 0, nil, nil, ErrHash
	}
	rounds, err1 := strconv.Atoi(parts[1])
	salt, err2 := base64.RawStdEncoding.DecodeString(parts[2])
	sum, err3 := base64.RawStdEncoding.DecodeString(parts[3])
	if errors.Join(err1, err2, err3) != nil || rounds < 1 || rounds > 10_000_000 || len(sum) != sha256.Size {
		return 0, nil, nil, ErrHash
	}
	return rounds, salt, sum, nil
}

// passwords checks passwords, as many at a time as half of the processors can,
// so that neither guesses nor a thousand accounts that return take the others.
// One address has one check at a time: who guesses waits for itself. Passwords
// that passed are remembered, and one that many clients send at once, as
// readers of a shared account do, is computed once.
type passwords struct {
	secret [32]byte
	slots  chan struct{}

	mu     sync.Mutex
	passed map[[32]byte]struct{}
	busy   map[netip.Prefix]*turn
	flying map[[32]byte]*check

	testingOnlyComputed func() // called in each computation
}

// A turn is an address's right to a check, and how many want it.
type turn struct {
	free chan struct{}
	want int
}

// A check is a computation that others wait for.
type check struct {
	done   chan struct{}
	passed bool
	err    error // it did not come to an end
}

// maxPassed bounds the passwords that are remembered.
const maxPassed = 4096

func newPasswords() *passwords {
	p := &passwords{
		slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)/2)), passed: map[[32]byte]struct{}{},
		busy: map[netip.Prefix]*turn{}, flying: map[[32]byte]*check{},
	}
	if _, err := rand.Read(p.secret[:]); err != nil {
		panic(err) // crypto/rand does not fail
	}
	return p
}

// check says whether a password has a hash. The error is ctx's, where the turn
// did not come before it ended.
func (p *passwords) check(ctx context.Context, from netip.Addr, hash string, password []byte) (bool, error) {
	mac := hmac.New(sha256.New, p.secret[:])
	mac.Write([]byte(hash))
	mac.Write([]byte{0})
	mac.Write(password)
	mark := [32]byte(mac.Sum(nil))
	for {
		p.mu.Lock()
		if _, ok := p.passed[mark]; ok {
			p.mu.Unlock()
			return true, nil
		}
		f := p.flying[mark]
		if f == nil {
			f = &check{done: make(chan struct{})}
			p.flying[mark] = f
			p.mu.Unlock()
			f.passed, f.err = p.compute(ctx, from, hash, password)
			p.landed(mark, f)
			return f.passed, f.err
		}
		p.mu.Unlock()
		select {
		case <-f.done:
			if f.err == nil {
				return f.passed, nil
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// landed tells those who wait for a check.
func (p *passwords) landed(mark [32]byte, f *check) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flying, mark)
	if f.passed {
		if len(p.passed) >= maxPassed {
			clear(p.passed)
		}
		p.passed[mark] = struct{}{}
	}
	close(f.done)
}

// compute waits for the address's turn and a slot, then computes.
func (p *passwords) compute(ctx context.Context, from netip.Addr, hash string, password []byte) (bool, error) {
	if list := origins(from); len(list) > 0 {
		leave, err := p.enter(ctx, list[0].prefix)
		if err != nil {
			return false, err
		}
		defer leave()
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-p.slots }()
	if p.testingOnlyComputed != nil {
		p.testingOnlyComputed()
	}
	rounds, salt, want, err := parseHash(hash)
	if err != nil {
		return false, nil
	}
	sum, err := pbkdf2.Key(sha256.New, string(password), salt, rounds, sha256.Size)
	return err == nil && hmac.Equal(sum, want), nil
}

// enter waits for the turn of an address.
func (p *passwords) enter(ctx context.Context, from netip.Prefix) (leave func(), err error) {
	p.mu.Lock()
	t := p.busy[from]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		p.busy[from] = t
	}
	t.want++
	p.mu.Unlock()
	gone := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.want--; t.want == 0 {
			delete(p.busy, from)
		}
	}
	select {
	case t.free <- struct{}{}:
		return func() { <-t.free; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	}
}
