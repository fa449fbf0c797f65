package source

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// dockerRoot is where Docker Engine keeps its containers.
	dockerRoot = "/var/lib/docker/containers"
	// maxRecord is the longest line of a json-file log that is looked at.
	// Docker splits messages at 16 KiB; escaped whole, that is 96 KiB.
	maxRecord = 256 << 10
	// maxContainerFile bounds the description of a container that is read.
	maxContainerFile = 4 << 20
)

// dockerFormat is Docker's logs: json-file, one JSON object a line, and local,
// one record of protobuf after the other, with pieces of long log lines in
// several.
type dockerFormat struct {
	names   []string // globs of containers' names; the others are skipped
	indexes []int    // of names in the spec
	globs   int      // patterns of paths come first
	order   []int    // indexes of those in the spec
}

// newDocker follows the logs of containers given by name and of files given by
// pattern.
func newDocker(spec []string, resume []FilePosition, at time.Time, g *gate, o Options) (part, error) {
	root := o.DockerRoot
	if root == "" {
		root = dockerRoot
	}
	var format dockerFormat
	var globs []string
	for i, s := range spec {
		if strings.Contains(s, "/") {
			globs = append(globs, s)
			format.order = append(format.order, i)
		} else {
			format.names = append(format.names, s)
			format.indexes = append(format.indexes, i)
		}
	}
	format.globs = len(globs)
	if len(format.names) > 0 {
		globs = append(globs, filepath.Join(root, "*", "*-json.log"), filepath.Join(root, "*", localDir, localFile))
	}
	f, err := newFiles(globs, format, resume, at, g, o)
	if err != nil {
		return nil, err
	}
	for _, name := range format.names {
		if _, err := filepath.Match(name, ""); err != nil {
			return nil, err
		}
	}
	f.docker = true
	return f, nil
}

func (d dockerFormat) limit() int { return maxRecord }

func (d dockerFormat) decoder(f *file) decoder {
	name, id := containerOf(containerDir(f.path))
	dec := &dockerDecoder{tag: name, host: id, stream: "docker:" + name}
	for _, i := range f.matched {
		if i < d.globs {
			dec.matched = append(dec.matched, d.order[i])
			continue
		}
		for k, pattern := range d.names {
			if ok, _ := filepath.Match(pattern, name); ok {
				dec.matched = append(dec.matched, d.indexes[k])
			}
		}
	}
	if isLocalLog(f.path) {
		return &localDecoder{*dec}
	}
	return dec
}

// containerDir gives the directory of the container whose log has a path.
func containerDir(path string) string {
	if dir := filepath.Dir(path); isLocalLog(path) {
		return filepath.Dir(dir)
	} else {
		return dir
	}
}

// containerOf tells the name and the short id of the container with a
// directory. Docker describes the container there; without that, the name
// is the directory's.
func containerOf(dir string) (name, id string) {
	id = filepath.Base(dir)
	if len(id) > 12 {
		id = id[:12]
	}
	name = id
	info, err := os.Stat(filepath.Join(dir, "config.v2.json"))
	if err != nil || info.Size() > maxContainerFile {
		return name, id
	}
	b, err := os.ReadFile(filepath.Join(dir, "config.v2.json"))
	if err != nil {
		return name, id
	}
	var container struct{ Name string }
	if json.Unmarshal(b, &container) == nil && container.Name != "" {
		name = strings.TrimPrefix(container.Name, "/")
	}
	return name, id
}

// A dockerDecoder joins the pieces of one container's lines. Docker cuts the
// lines of each of its two streams by itself.
type dockerDecoder struct {
	tag, host, stream string
	matched           []int
	out, err          joined
	text              []byte
}

// joined is a line in the making. One that grew too long is handed on cut, and
// the rest of it skipped.
type joined struct {
	text []byte
	skip bool
}

var records = sync.Pool{New: func() any { return new(dockerRecord) }}

// A dockerRecord is one line of the file.
type dockerRecord struct {
	Log    *string   `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

func (d *dockerDecoder) decode(raw []byte, line *Line) outcome {
	if len(d.matched) == 0 {
		return skipped
	}
	r := records.Get().(*dockerRecord)
	defer records.Put(r)
	*r = dockerRecord{}
	if err := json.Unmarshal(raw, r); err != nil || r.Log == nil {
		return unusable
	}
	text, whole := strings.CutSuffix(*r.Log, "\n")
	return d.add([]byte(text), r.Stream, whole, r.Time, line)
}

// add takes a piece of a line of one of the container's two streams; whole says
// that the line ends with it.
func (d *dockerDecoder) add(text []byte, stream string, whole bool, at time.Time, line *Line) outcome {
	j := &d.out
	if stream == "stderr" {
		j = &d.err
	}
	if j.skip {
		j.skip = !whole
		return skipped
	}
	if !whole && len(j.text)+len(text) <= MaxLine {
		j.text = append(j.text, text...)
		return more
	}
	if room := MaxLine - len(j.text); len(text) > room {
		text = text[:room]
		for len(text) > 0 && !utf8.Valid(text[len(text)-1:]) && len(text) > room-utf8.UTFMax {
			text = text[:len(text)-1] // not in the middle of a character
		}
		line.cut = true
	}
	j.skip = !whole
	d.text = append(append(d.text[:0], j.text...), bytes.TrimSuffix(text, []byte{'\r'})...)
	j.text = j.text[:0]
	line.Text, line.Time, line.Tag, line.Host, line.Stream, line.Matched = d.text, at, d.tag, d.host, d.stream, d.matched
	return complete
}
