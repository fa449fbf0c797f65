package credentials

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// The bounds of machines and their credentials.
const (
	maxMachines = 100
	MaxLogin    = 128 // bytes
	TokenLasts  = time.Hour
)

// Errors of [Machines.Add] and [Machines.Remove].
var (
	ErrLogin     = errors.New("a login has 1 to 128 letters, digits, dots, dashes and underscores, a password at least 16 characters")
	ErrMachines  = fmt.Errorf("%d CrowdSec installations have joined already", maxMachines)
	ErrNoMachine = errors.New("no CrowdSec installation has joined by that login")
)

// A Machine is a CrowdSec installation that joined.
type Machine struct {
	Login   string    `json:"login"`
	Hash    string    `json:"sha512"` // of the password, in hex
	Created time.Time `json:"created"`
}

// Machines are the installations that may log in, in a file of the node. Tokens
// are signed with a key in it, so that they outlive a restart.
type Machines struct {
	path string

	mu   sync.Mutex
	file machinesFile
}

type machinesFile struct {
	Key      []byte    `json:"key"`
	Machines []Machine `json:"machines"`
}

// OpenMachines reads the file, which need not exist.
func OpenMachines(path string) (*Machines, error) {
	m := &Machines{path: path}
	there, err := read(path, &m.file)
	switch {
	case err == nil && !there:
		m.file.Key = make([]byte, 32)
		rand.Read(m.file.Key) // never fails
	case err == nil && len(m.file.Key) < 32:
		err = fmt.Errorf("%s is damaged", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: restore it, or remove it and run agent crowdsec join anew", err)
	}
	return m, nil
}

// Add lets a login in by its password, or changes the password.
func (m *Machines) Add(login, password string, now time.Time) error {
	if !plain(login, MaxLogin) || len(password) < 16 || len(password) > 1024 {
		return ErrLogin
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(m.file.Machines), func(x Machine) bool { return x.Login == login })
	if len(next) >= maxMachines {
		return ErrMachines
	}
	return m.save(append(next, Machine{Login: login, Hash: hashOf(password), Created: now.UTC().Truncate(time.Second)}))
}

// Remove lets a login in no more; its tokens end too.
func (m *Machines) Remove(login string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(m.file.Machines), func(x Machine) bool { return x.Login == login })
	if len(next) == len(m.file.Machines) {
		return ErrNoMachine
	}
	return m.save(next)
}

func (m *Machines) save(next []Machine) error {
	f := machinesFile{Key: m.file.Key, Machines: next}
	if err := write(m.path, f); err != nil {
		return err
	}
	m.file = f
	return nil
}

// Knows says that a login may come in.
func (m *Machines) Knows(login string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.file.Machines, func(x Machine) bool { return x.Login == login })
}

// Login says whether a password is right.
func (m *Machines) Login(login, password string) (ok bool) {
	h := []byte(hashOf(password))
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.file.Machines {
		if x.Login == login && subtle.ConstantTimeCompare([]byte(x.Hash), h) == 1 {
			ok = true
		}
	}
	return ok
}

// claims is the middle of a token: newer clients read exp in it.
type claims struct {
	ID  string `json:"id"`
	Exp int64  `json:"exp"` // Unix seconds
}

const tokenHead = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" // {"alg":"HS256","typ":"JWT"}

// Token makes a signed token that names a login until a time.
func (m *Machines) Token(login string, until time.Time) (string, error) {
	b, err := json.Marshal(claims{ID: login, Exp: until.Unix()})
	if err != nil {
		return "", fmt.Errorf("encoding a token: %w", err)
	}
	text := tokenHead + "." + base64.RawURLEncoding.EncodeToString(b)
	return text + "." + m.Sign(text), nil
}

// Holder gives the login that a token names.
func (m *Machines) Holder(token string, now time.Time) (login string, ok bool) {
	i := strings.LastIndexByte(token, '.')
	if i < 0 || len(token) > 4096 || !hmac.Equal([]byte(m.Sign(token[:i])), []byte(token[i+1:])) {
		return "", false
	}
	_, middle, ok := strings.Cut(token[:i], ".")
	b, err := base64.RawURLEncoding.DecodeString(middle)
	var c claims
	if !ok || err != nil || json.Unmarshal(b, &c) != nil || now.Unix() >= c.Exp {
		return "", false
	}
	return c.ID, m.Knows(c.ID)
}

// Sign authenticates a text with the node's key.
func (m *Machines) Sign(text string) string {
	h := hmac.New(sha256.New, m.file.Key) // never changes
	h.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
