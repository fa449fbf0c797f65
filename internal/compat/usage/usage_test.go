package usage

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

func request(body io.Reader, packed bool) *http.Request {
	r, err := http.NewRequest(http.MethodPost, "/v1/usage-metrics", io.NopCloser(body))
	if err != nil {
		panic(err) // the URL is ours
	}
	if packed {
		r.Header.Set("Content-Encoding", "gzip")
	}
	return r
}

const item1 = `{"name":"dropped","value":7,"unit":"packet","labels":{"origin":"lists:x","ip_type":"ipv4"}}`

func TestAReportIsReadByOrigin(t *testing.T) {
	t.Parallel()
	got, err := Read(request(strings.NewReader(`{"remediation_components":[{"metrics":[{"items":[`+item1+`,`+item1+`,
		{"name":"dropped","value":5,"unit":"byte","labels":{"origin":"lists:x"}},{"name":"dropped","value":3,"unit":"request","labels":null},
		{"name":"processed","value":9,"unit":"request"},{"name":"dropped","value":1e300,"unit":"request"},{"name":"dropped","value":-1,"unit":"request"}]}]}],"log_processors":null}`), false))
	if err != nil || got.Components != 1 || len(got.Dropped) != 2 || got.Dropped["lists:x"] != (Dropped{Packets: 14, Bytes: 5}) || got.Dropped[""] != (Dropped{Requests: 3}) {
		t.Errorf("%+v %v", got, err)
	}
}

// counted is a body that would have a hundred megabytes.
type counted struct{ read, most int }

func (c *counted) Read(b []byte) (int, error) {
	n := min(len(b), c.most-c.read)
	if n == 0 {
		return 0, io.EOF
	}
	for i := range n {
		b[i] = ' '
	}
	c.read += n
	return n, nil
}

func TestOfAHundredMegabytesOneIsRead(t *testing.T) {
	t.Parallel()
	body := &counted{most: 100 << 20}
	if _, err := Read(request(body, false)); !errors.Is(err, ErrTooLong) || body.read > MaxBody+1 {
		t.Errorf("%d bytes were read: %v", body.read, err)
	}
	body = &counted{most: 100 << 20}
	r := request(body, false)
	r.ContentLength = 100 << 20
	if _, err := Read(r); !errors.Is(err, ErrTooLong) || body.read != 0 {
		t.Errorf("%d bytes of one that says its length were read: %v", body.read, err)
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := io.Copy(z, &counted{most: 4 * MaxBody}); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	if _, err := Read(request(&bomb, true)); !errors.Is(err, ErrTooLong) {
		t.Errorf("a packed one of %d bytes: %v", bomb.Len(), err)
	}
	for body, want := range map[string]error{
		"":                               ErrSyntax,
		"{":                              ErrSyntax,
		`{"remediation_components":"x"}`: ErrForm,
		`"` + strings.Repeat("x", MaxBody-2) + `"`: ErrForm,
		`"` + strings.Repeat("x", MaxBody-1) + `"`: ErrTooLong,
	} {
		if _, err := Read(request(strings.NewReader(body), false)); !errors.Is(err, want) {
			t.Errorf("%.40s: %v, want %v", body, err, want)
		}
	}
}

// A body of many small things takes no more memory than one of few.
func TestManyEmptyThingsTakeNoMemory(t *testing.T) {
	for name, body := range map[string]string{
		"components": `{"remediation_components":[` + strings.Repeat("{},", MaxBody/3-20) + `{}]}`,
		"metrics":    `{"remediation_components":[{"metrics":[` + strings.Repeat("{},", MaxBody/3-20) + `{}]}]}`,
		"items":      `{"remediation_components":[{"metrics":[{"items":[` + strings.Repeat("{},", MaxBody/3-30) + `{}]}]}]}`,
		"labels":     `{"remediation_components":[{"metrics":[{"items":[{"labels":{` + strings.Repeat(`"a":0,`, MaxBody/6-30) + `"b":0}}]}]}]}`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Read(request(strings.NewReader(body), false))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; err != nil || took > 24<<20 {
			t.Errorf("%s: %d bytes were allocated for %d: %v", name, took, len(body), err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"remediation_components":[{"metrics":[{"items":[` + item1 + `]}]}]}`))
	f.Add([]byte(`{"remediation_components":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Read(request(bytes.NewReader(b), false))
		if status, text := Answer(err); err != nil && (status < 400 || status > 499 || text == "") {
			t.Errorf("%d %s", status, text)
		}
		if len(got.Dropped) > maxItems {
			t.Errorf("%d origins", len(got.Dropped))
		}
	})
}
