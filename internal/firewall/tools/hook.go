package tools

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// Hook is a [Firewall] that runs a program for every ban and unban, for routers,
// load balancers and clouds that this package does not know. The program gets
// fixed arguments and four more, never a shell and never a text from the wire:
//
//	PROGRAM ARGUMENT... ban   TOPIC PREFIX SECONDS
//	PROGRAM ARGUMENT... unban TOPIC PREFIX 0
//
// PREFIX is canonical ("192.0.2.7/32"), SECONDS is 0 for a ban without end. It
// must succeed when the ban or its end is the case already, because bans are said
// again after a restart and after a failure. The never-ban list is kept here: a
// ban that overlaps it is not told.
type Hook struct {
	wantedBans
	argv    []string
	timeout time.Duration
}

// Limits of a [Hook].
const (
	// HookTimeout ends a run that takes longer; nothing else is enforced
	// meanwhile.
	HookTimeout = 10 * time.Second
	// hookFailures in a row end a round: the program is broken, and pending
	// bans are tried again at the next Check.
	hookFailures = 3
)

var _ firewall.Firewall = (*Hook)(nil)

// NewHook gives a Hook that runs argv, whose first element is an absolute path.
func NewHook(o Options, argv []string) (*Hook, error) {
	if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
		return nil, errors.New("a hook is the absolute path of a program and its arguments")
	}
	info, err := os.Stat(argv[0])
	switch {
	case err != nil:
		return nil, fmt.Errorf("hook: %w", err)
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return nil, fmt.Errorf("hook %s is not a program", argv[0])
	case info.Mode()&0o022 != 0:
		return nil, fmt.Errorf("hook %s can be written by others than its owner", argv[0])
	}
	h := &Hook{argv: slices.Clone(argv), timeout: HookTimeout}
	h.begin(o)
	return h, nil
}

// Configure implements [Firewall].
func (h *Hook) Configure(ctx context.Context, c firewall.Config) error {
	c, err := c.Normal()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.scopes
	if err := h.configure(c); err != nil {
		return err
	}
	for k := range h.wanted {
		if h.never(k.Prefix) || before[k.Topic].Observe != h.scopes[k.Topic].Observe {
			h.pending[k] = true
		}
	}
	return h.flush(ctx)
}

// Replace implements [Firewall].
func (h *Hook) Replace(ctx context.Context, bans iter.Seq[firewall.Ban]) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.usable(); err != nil {
		return err
	}
	return errors.Join(h.all(bans), h.flush(ctx))
}

// Apply implements [Firewall].
func (h *Hook) Apply(ctx context.Context, add []firewall.Ban, remove []firewall.Key) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.usable(); err != nil {
		return err
	}
	if !h.replaced {
		return firewall.ErrNoState
	}
	return errors.Join(h.want(slices.Values(add), remove), h.flush(ctx))
}

// Check implements [Firewall]: it tells the program of bans that have ended,
// and repeats calls that failed.
func (h *Hook) Check(ctx context.Context) (firewall.Drift, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.usable(); err != nil {
		return firewall.Drift{}, err
	}
	for _, k := range h.ended() {
		h.pending[k] = true
	}
	turned, err := h.switched()
	if err != nil {
		return firewall.Drift{}, err
	}
	if turned {
		for k := range h.wanted {
			h.pending[k] = true
		}
	}
	err = h.flush(ctx)
	return firewall.Drift{Pending: len(h.pending), Bans: len(h.wanted), Off: h.off}, err
}

// Counters implements [Firewall]; a Hook sees no packets.
func (h *Hook) Counters(context.Context) (map[ban.Topic]firewall.Counter, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return map[ban.Topic]firewall.Counter{}, h.usable()
}

func (h *Hook) flush(ctx context.Context) error {
	var errs []error
	for k := range h.pending {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := h.tell(ctx, k); err != nil {
			if errs = append(errs, err); len(errs) == hookFailures {
				break
			}
			continue
		}
		delete(h.pending, k)
	}
	return errors.Join(errs...)
}

// tell runs the program once.
func (h *Hook) tell(ctx context.Context, k firewall.Key) error {
	verb, seconds := "unban", int64(0)
	until, wanted := h.wanted[k]
	if wanted && !h.off && !h.never(k.Prefix) && !h.scopes[k.Topic].Observe {
		verb = "ban"
		if until != desired.Never {
			seconds = max(int64(until.Time().Sub(h.now())/time.Second), 1)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	args := append(slices.Clone(h.argv[1:]), verb, string(k.Topic), k.Prefix.String(), strconv.FormatInt(seconds, 10))
	cmd := exec.CommandContext(ctx, h.argv[0], args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	// A grandchild that keeps the pipe open must not keep us.
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("hook %s %s %s: %w: %.200q", verb, k.Topic, k.Prefix, err, out)
	}
	return nil
}
