package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"

	"banmesh/internal/wholefile"
)

// documentsDirectory holds the documents that this operator has signed, below the directory
// of its keys; files end in documentSuffix.
const (
	documentsDirectory = "documents"
	documentSuffix     = ".signed"
	maxDocumentFiles   = 256
)

// Documents gives the trust lists and topic definitions of this operator that
// lie beside its keys. Those that cannot be read are in the error, the others are
// given all the same.
func (id *Identity) Documents() (out []*wire.Message, err error) {
	if id.dir == "" {
		return nil, nil
	}
	dir := filepath.Join(id.dir, documentsDirectory)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the documents: %w", err)
	}
	var faults []error
	for _, e := range entries[:min(len(entries), maxDocumentFiles)] {
		if !strings.HasSuffix(e.Name(), documentSuffix) {
			continue
		}
		m, err := readDocument(filepath.Join(dir, e.Name()))
		if err == nil && m.Header.Operator != id.Operator() {
			err = fmt.Errorf("%s is of another operator, %s", e.Name(), m.Header.Operator)
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		out = append(out, m)
	}
	return out, errors.Join(faults...)
}

func readDocument(path string) (*wire.Message, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading a document: %w", err)
	}
	if info.Size() > wire.MaxPayload {
		return nil, fmt.Errorf("%s: %w", path, wire.ErrSize)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a document: %w", err)
	}
	m, err := wire.OpenDocument(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// KeepDocument puts a document that the operator signed into the directory of
// a node's keys, from which a running agent publishes it. It refuses one that
// is older than the one that lies there.
func KeepDocument(dir string, raw []byte) (*wire.Message, error) {
	m, err := wire.OpenDocument(raw)
	if err != nil {
		return nil, err
	}
	path := documentPath(dir, m.Name)
	if old, err := readDocument(path); err == nil && old.Header.Number > m.Header.Number {
		return nil, fmt.Errorf("the document has number %d; the one here has %d", m.Header.Number, old.Header.Number)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("keeping a document: %w", err)
	}
	if err := wholefile.Write(path, raw, 0o644); err != nil {
		return nil, fmt.Errorf("keeping a document: %w", err)
	}
	return m, nil
}

func documentPath(dir string, n wire.Name) string {
	file := n.Network + "." + n.Kind.String()
	if n.Topic != "" {
		file += "." + string(n.Topic)
	}
	return filepath.Join(dir, documentsDirectory, file+documentSuffix)
}

// PublishTrust signs the operator's next trust list for a network.
func (o *Store) PublishTrust(network string, now time.Time, list []wire.Trusted) ([]byte, error) {
	n := wire.Name{Network: network, Kind: wire.KindTrust, Operator: o.Operator()}
	raw, err := wire.SignTrust(o.root, network, o.nextNumber(n, now), now, wire.Trust{Operators: list})
	return o.kept(raw, err)
}

// PublishDefinition signs the operator's next definition of a topic for a
// network; an empty text withdraws it.
func (o *Store) PublishDefinition(network string, topic ban.Topic, now time.Time, text string) ([]byte, error) {
	n := wire.Name{Network: network, Kind: wire.KindDefinition, Topic: topic, Operator: o.Operator()}
	raw, err := wire.SignDefinition(o.root, network, topic, o.nextNumber(n, now), now, text)
	return o.kept(raw, err)
}

// PublishList signs the operator's next list of a topic for a network; one
// without a name and entries withdraws it.
func (o *Store) PublishList(network string, topic ban.Topic, now time.Time, list wire.List) ([]byte, error) {
	n := wire.Name{Network: network, Kind: wire.KindList, Topic: topic, Operator: o.Operator()}
	raw, err := wire.SignList(o.root, network, topic, o.nextNumber(n, now), now, list)
	return o.kept(raw, err)
}

// PublishedList gives the list of a topic that lies beside the keys in a
// directory, nil for none.
func PublishedList(dir, network string, topic ban.Topic) *wire.List {
	m, err := readDocument(documentPath(dir, wire.Name{Network: network, Kind: wire.KindList, Topic: topic}))
	if err != nil {
		return nil
	}
	l, _ := m.Body.(*wire.List)
	return l
}

func (o *Store) kept(raw []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	_, err = KeepDocument(o.dir, raw)
	return raw, err
}

// nextNumber is above that of the last version, and above any that a lost
// directory may have signed: numbers are Unix seconds where the clock allows.
func (o *Store) nextNumber(n wire.Name, now time.Time) uint64 {
	next := uint64(wire.Seconds(now))
	if old, err := readDocument(documentPath(o.dir, n)); err == nil {
		next = max(next, old.Header.Number+1)
	}
	return next
}
