package signedlist

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/wallet"
	"banmesh/internal/wholefile"
)

// Folder is the directory below the configuration that holds imported lists, each
// as its operator signed it, and the descriptions of this operator's own.
const Folder = "lists.d"

// Own describes this operator's own list in a topic.
type Own struct {
	Name     string `json:"list,omitempty"`
	Contact  string `json:"contact,omitempty"`
	Criteria string `json:"criteria,omitempty"`
	// Details are by address in the spelling of EIP-55.
	Details map[string]Details `json:"details,omitempty"`
}

// Kept is all that a folder says.
type Kept struct {
	Own   map[ban.Topic]Own
	Lists []*List // imported ones
}

// Source is the source of the claims that an imported list makes.
func (l *List) Source() string {
	return "list:" + string(l.Topic) + "-" + l.Operator.String()[:8]
}

func ownFile(config string, topic ban.Topic) string {
	return filepath.Join(config, Folder, "own-"+string(topic)+".json")
}

// File is where an imported list is kept.
func (l *List) File(config string) string {
	return filepath.Join(config, Folder, "list-"+l.Operator.String()+"-"+string(l.Topic)+".json")
}

// Keep puts an imported list's file into the folder, in the place of an older
// edition.
func (l *List) Keep(config string, b []byte) error {
	if err := os.MkdirAll(filepath.Join(config, Folder), 0o755); err != nil {
		return err
	}
	return wholefile.Write(l.File(config), b, 0o644)
}

// ReadOwn gives the description of the own list of a topic.
func ReadOwn(config string, topic ban.Topic) (o Own, err error) {
	b, err := readBounded(ownFile(config, topic))
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(b, &o); err != nil {
		return Own{}, fmt.Errorf("reading %s: %w", ownFile(config, topic), err)
	}
	return o, o.check()
}

func (o Own) check() error {
	for _, s := range []string{o.Name, o.Contact, o.Criteria} {
		if err := CheckText(s); err != nil {
			return err
		}
	}
	for address, d := range o.Details {
		if err := d.Check(); err != nil {
			return fmt.Errorf("%s: %w", address, err)
		}
	}
	return nil
}

// WriteOwn keeps it.
func WriteOwn(config string, topic ban.Topic, o Own) error {
	if err := o.check(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(config, Folder), 0o755); err != nil {
		return err
	}
	return wholefile.Write(ownFile(config, topic), append(b, '\n'), 0o644)
}

// ReadFolder gives all that a configuration's folder says. A file that is damaged
// is left out and named in the error; the rest is given all the same.
func ReadFolder(config string) (k Kept, err error) {
	k.Own = map[ban.Topic]Own{}
	files, err := os.ReadDir(filepath.Join(config, Folder))
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	faults := []error{err}
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".json")
		switch topic, own := strings.CutPrefix(name, "own-"); {
		case name == f.Name():
		case own:
			o, err := ReadOwn(config, ban.Topic(topic))
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", f.Name(), err))
				continue
			}
			k.Own[ban.Topic(topic)] = o
		case strings.HasPrefix(name, "list-"):
			l, err := readList(filepath.Join(config, Folder, f.Name()))
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", f.Name(), err))
				continue
			}
			k.Lists = append(k.Lists, l)
		}
	}
	return k, errors.Join(faults...)
}

func readList(path string) (*List, error) {
	b, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	return Open(b)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(b) > MaxFile {
		err = fmt.Errorf("%s has more than %d MB", path, MaxFile>>20)
	}
	return b, err
}

// An Index finds notes and contacts by wallet.
type Index struct {
	kept   Kept
	listed map[indexKey]*List
	notes  map[indexKey]Details
}

type indexKey struct {
	topic  ban.Topic
	wallet [20]byte
}

// NewIndex makes an index of a folder's contents.
func NewIndex(k Kept) *Index {
	x := &Index{kept: k, listed: map[indexKey]*List{}, notes: map[indexKey]Details{}}
	for _, l := range k.Lists {
		for _, e := range l.Entries {
			if w, err := wallet.Parse(e.Address); err == nil {
				x.listed[indexKey{l.Topic, w}], x.notes[indexKey{l.Topic, w}] = l, e.Details
			}
		}
	}
	for topic, o := range k.Own {
		for address, d := range o.Details {
			if w, err := wallet.Parse(address); err == nil {
				x.notes[indexKey{topic, w}] = d
			}
		}
	}
	return x
}

// Details gives the note and the evidence about a wallet in a topic.
func (x *Index) Details(topic ban.Topic, w [20]byte) Details { return x.notes[indexKey{topic, w}] }

// Contact gives where a wallet that is denied in a topic may object: of the list
// that names it, or of the own one.
func (x *Index) Contact(topic ban.Topic, w [20]byte) string {
	if l := x.listed[indexKey{topic, w}]; l != nil && l.Contact != "" {
		return l.Contact
	}
	return x.kept.Own[topic].Contact
}
