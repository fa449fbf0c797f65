package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
)

// Probe says whether bans can be enforced here. It tries in a table of its own,
// in a transaction that the kernel is made to refuse at its end, so nothing is
// left behind and nobody's packets are touched.
func Probe() (firewall.Capability, error) {
	k, err := openKernel("banmesh-probe")
	if err != nil {
		return firewall.Capability{Reason: "the kernel has no netfilter netlink", Fix: "a kernel with nf_tables"}, err
	}
	defer func() { _ = k.close() }()
	f, err := k.probe()
	switch {
	case errors.Is(err, firewall.ErrDenied):
		return firewall.Capability{Reason: "this process may not change the firewall", Fix: "run the agent as root, or with CAP_NET_ADMIN as its systemd unit does"}, nil
	case errors.Is(err, firewall.ErrUnsupported):
		return firewall.Capability{Reason: "this kernel has no nftables (nf_tables with inet tables)", Fix: "enforcer = \"ipset\" in [firewall]"}, nil
	case err != nil:
		return firewall.Capability{}, err
	}
	return firewall.Capability{Enforce: true, Features: []firewall.Feature{
		{What: "one lookup for every packet that is not banned (Linux 6.5)", Have: f.mapGate},
		{What: "changes in one step (Linux 6.3)", Have: f.destroy},
		{What: "a table that `nft flush ruleset` spares (Linux 6.9)", Have: f.persist},
	}}, nil
}

// less gives f without the features of other.
func (f features) less(other features) features {
	return features{
		mapGate: f.mapGate && !other.mapGate,
		destroy: f.destroy && !other.destroy,
		persist: f.persist && !other.persist,
	}
}

// serves says which part of a configuration the kernel lacks. It is found out
// before anything is taken over: a table that an earlier process left would stay
// as it is for ever otherwise. The kernel is asked only for the wanted features, since
// it loads modules to answer.
func (n *Firewall) serves(c firewall.Config) error {
	for _, s := range c.Scopes {
		if !s.Remembers() && s.MaxConnections == 0 {
			continue
		}
		if n.can.track = n.can.track || !n.test.without.track && n.k.accepts(trackingTrial); !n.can.track {
			return fmt.Errorf("topic %s: connection tracking: %w", s.Topic, firewall.ErrUnsupported)
		}
	}
	if len(c.Honeyports) == 0 {
		return nil
	}
	if n.can.trap = n.can.trap || !n.test.without.trap && n.k.accepts(trapTrial); !n.can.trap {
		return fmt.Errorf("leading connections at honeyports elsewhere: %w", firewall.ErrUnsupported)
	}
	return nil
}

// Configurations to try.
func trackingTrial() firewall.Config {
	return firewall.Config{Scopes: []firewall.Scope{{Topic: "probe", Ports: []uint16{1}, Protocols: []string{"tcp"}, Remember: time.Hour, MaxConnections: 1}}}
}

func trapTrial() firewall.Config { return firewall.Config{Honeyports: []uint16{1}, HoneyportTo: 2} }

// accepts says whether the kernel takes the table of a configuration.
func (k *kernel) accepts(c func() firewall.Config) bool {
	r := build(c(), nil, false, false, features{}, false)
	return k.try(func(t *transaction) { _ = r.encode(t, probeTable, nil) }) == nil
}

// probeTable is the table of trials, which is never there.
const probeTable = "banmesh-probe"

// try builds a transaction and says whether the kernel would take it: it has a
// last message that must fail, ENOENT from a table that is not there, and when
// that is the error, everything before it passed.
func (k *kernel) try(build func(t *transaction)) error {
	t := &k.tx
	t.begin()
	build(t)
	t.change(unix.NFT_MSG_DELTABLE, 0, unix.NFTA_TABLE_NAME, "banmesh-probe-none")
	t.end()
	err := k.flush()
	var ke *kernelError
	if errors.As(err, &ke) && ke.errno == unix.ENOENT && ke.seq == *t.seq-1 {
		return nil
	}
	if err == nil {
		err = errLost
	}
	return err
}

// probe finds the kernel's features, by trials that leave nothing behind.
func (k *kernel) probe() (f features, err error) {
	const table = probeTable
	newTable := func(t *transaction, flags uint32) {
		t.change(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFTA_TABLE_NAME, table)
		t.u32(unix.NFTA_TABLE_FLAGS, flags)
		t.end()
	}
	newMap := func(t *transaction) {
		newTable(t, 0)
		set{name: "m", key: typeIPv4, data: typeMark, flags: unix.NFT_SET_MAP | unix.NFT_SET_TIMEOUT}.encode(t, table, 1)
	}
	switch err := k.try(newMap); {
	case errors.Is(err, unix.EPERM):
		return f, firewall.ErrDenied
	case errors.Is(err, errLost):
		return f, err
	case err != nil:
		return f, fmt.Errorf("%w: %w", firewall.ErrUnsupported, err)
	}
	f.mapGate = k.try(func(t *transaction) {
		newMap(t)
		chain{name: "c"}.encode(t, table)
		_ = rule{exprs: join(from4.load(), lookup("m"))}.encode(t, table, "c")
	}) == nil
	f.destroy = k.try(func(t *transaction) {
		newMap(t)
		list := t.elements(msgDestroySetElem, 0, table, "m")
		one := t.nest(unix.NFTA_LIST_ELEM)
		t.value(unix.NFTA_SET_ELEM_KEY, make([]byte, 4))
		t.unnest(one)
		t.unnest(list)
		t.end()
	}) == nil
	f.persist = k.try(func(t *transaction) { newTable(t, tableOwner|tablePersist) }) == nil
	return f, nil
}

// owns says whether to own the table.
func owns(m firewall.OwnerMode, f features) (bool, error) {
	switch {
	case m == firewall.OwnerNever:
		return false, nil
	case m == firewall.OwnerAlways && !f.persist:
		return false, fmt.Errorf("owned tables that persist (Linux 6.9): %w", firewall.ErrUnsupported)
	case m == firewall.OwnerAlways:
		return true, nil
	}
	return f.persist && nftUnderstandsPersist(), nil
}

// nftUnderstandsPersist says whether the nft that is installed can read back
// its own output about an owned table while no agent runs. Where none is
// installed nobody prints it.
func nftUnderstandsPersist() bool {
	nft, err := exec.LookPath("nft")
	if err != nil {
		if _, err := os.Stat("/usr/sbin/nft"); err != nil {
			return true
		}
		nft = "/usr/sbin/nft"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	// -c checks without a change.
	cmd := exec.CommandContext(ctx, nft, "-c", "-f", "-")
	cmd.Stdin = strings.NewReader("table inet banmesh-probe {\n\tflags owner,persist\n}\n")
	return cmd.Run() == nil
}
