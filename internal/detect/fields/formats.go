package fields

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"unicode/utf8"
)

// json reads one object. Nothing may follow it.
func (r *Record) json(line []byte) error {
	text := body(bytes.TrimSpace(line), "{")
	if text == nil {
		return fmt.Errorf("%w: no object", ErrLine)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := r.value(d, "", 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: text after the object", ErrLine)
	}
	return nil
}

// value reads the next value, which has the path at.
func (r *Record) value(d *json.Decoder, at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: objects are nested too deeply", ErrLine)
	}
	token, err := d.Token()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLine, err)
	}
	switch v := token.(type) {
	case json.Delim:
		if v == '[' {
			return r.list(d, at, depth)
		}
		return r.object(d, at, depth)
	case string:
		return r.add(at, v)
	case json.Number:
		return r.add(at, v.String())
	case bool:
		return r.add(at, fmt.Sprint(v))
	}
	return r.add(at, "")
}

func (r *Record) object(d *json.Decoder, at string, depth int) error {
	if at != "" {
		if err := r.add(at, ""); err != nil {
			return err
		}
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLine, err)
		}
		name, _ := token.(string)
		if at != "" {
			name = at + "." + name
		}
		if err := r.value(d, name, depth+1); err != nil {
			return err
		}
	}
	_, err := d.Token()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLine, err)
	}
	return nil
}

// list reads an array: its field is the texts in it, after one another.
func (r *Record) list(d *json.Decoder, at string, depth int) error {
	var items []string
	for i := 0; d.More(); i++ {
		if i > maxFields {
			return fmt.Errorf("%w: a list is too long", ErrLine)
		}
		inner := Record{}
		if err := inner.value(d, "x", depth+1); err != nil {
			return err
		}
		items = append(items, inner.values...)
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("%w: %w", ErrLine, err)
	}
	return r.add(at, strings.Join(items, ", "))
}

// logfmt reads key=value and key="value with \"escapes\"", between spaces.
func (r *Record) logfmt(line []byte) error {
	text := strings.TrimSpace(string(line))
	for text != "" {
		end := strings.IndexAny(text, "= \t")
		if end < 0 || text[end] != '=' {
			// A word by itself: the part before the first field is a header.
			word := text
			if end >= 0 {
				word = text[:end]
			}
			if len(r.names) > 0 && strings.ContainsAny(word, `"`) {
				return fmt.Errorf("%w: a quote outside of a value", ErrLine)
			}
			text = strings.TrimLeft(text[len(word):], " \t")
			continue
		}
		name := text[:end]
		value, rest, ok := logfmtValue(text[end+1:])
		if !ok || name == "" || strings.ContainsAny(name, `"`) {
			return fmt.Errorf("%w: a quote that does not end", ErrLine)
		}
		if err := r.add(name, value); err != nil {
			return err
		}
		text = strings.TrimLeft(rest, " \t")
	}
	if len(r.names) == 0 {
		return fmt.Errorf("%w: no field", ErrLine)
	}
	return nil
}

func logfmtValue(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, " \t")
		if end < 0 {
			end = len(text)
		}
		return text[:end], text[end:], true
	}
	value, rest, ok = quoted(text[1:])
	// A space follows a value; else its end was not its end.
	if ok && rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return "", "", false
	}
	return value, rest, ok
}

// quoted reads to the next quote that no backslash stands before.
func quoted(text string) (value, rest string, ok bool) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return unescape(text[:i]), text[i+1:], true
		}
	}
	return "", "", false
}

// unescape reads \" \\ \n \t and \xHH; another escape stays as it is.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 >= len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case '"', '\\', '/':
			b.WriteByte(c)
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'x':
			high, low := -1, -1
			if i+2 < len(s) {
				high, low = hex(s[i+1]), hex(s[i+2])
			}
			if high < 0 || low < 0 {
				b.WriteString(`\x`)
				continue
			}
			b.WriteByte(byte(high<<4 | low))
			i += 2
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return strings.ToValidUTF8(b.String(), string(utf8.RuneError))
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// accessTime is how access logs write a time.
const accessTime = "02/Jan/2006:15:04:05 -0700"

const hostBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"

// isHost says that a text is an address, or a name with a dot: what a logging
// service begins its lines with is neither.
func isHost(s string) bool {
	if strings.Contains(s, ".") && strings.Trim(s, hostBytes) == "" {
		return true
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

// virtualHost reads the host that Apache's vhost_combined writes before the address,
// "example.org:443". No looked up name of a client ends in a port, and a client
// that is named in this way has no ident.
func virtualHost(word, rest string) (host string, ok bool) {
	host, port, found := strings.Cut(word, ":")
	address, rest, _ := strings.Cut(rest, " ")
	_, err := netip.ParseAddr(address)
	return host, found && host != "" && strings.Trim(host, hostBytes) == "" && port != "" && strings.Trim(port, "0123456789") == "" && err == nil && strings.HasPrefix(rest, "- ")
}

// access reads ADDRESS IDENT USER [TIME] "REQUEST" STATUS SIZE "REFERER"
// "AGENT" and the rest. The user may hold anything but a quote, which
// servers escape; the request is split where it is a request.
func (r *Record) access(line []byte) error {
	text := strings.TrimSpace(string(line))
	fault := func(what string) error { return fmt.Errorf("%w: %s", ErrLine, what) }
	address, rest, ok := strings.Cut(text, " ")
	if host, ok := virtualHost(address, rest); ok {
		if err := r.add("host", host); err != nil {
			return err
		}
		address, rest, _ = strings.Cut(rest, " ")
	}
	ident, rest, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 || !isHost(address) || strings.ContainsAny(ident, `"[`) {
		return fault("no address")
	}
	open := unescapedQuote(rest)
	if open < 0 || !strings.HasSuffix(rest[:open], "] ") {
		return fault("no request")
	}
	at := strings.LastIndexByte(rest[:open], '[')
	if at < 1 || rest[at-1] != ' ' {
		return fault("no time")
	}
	request, tail, ok := quoted(rest[open+1:])
	if !ok || !strings.HasPrefix(tail, " ") {
		return fault("the request does not end")
	}
	tail = tail[1:]
	status, tail, _ := strings.Cut(tail, " ")
	size, tail, _ := strings.Cut(tail, " ")
	if len(status) != 3 || strings.Trim(status, "0123456789") != "" || strings.Trim(size, "0123456789-") != "" {
		return fault("no status")
	}
	for _, f := range [][2]string{
		{"address", address},
		{"ident", ident},
		{"user", unescape(rest[:at-1])},
		{"time", rest[at+1 : open-2]},
		{"request", request},
		{"status", status},
		{"size", size},
	} {
		if err := r.add(f[0], f[1]); err != nil {
			return err
		}
	}
	for _, name := range []string{"referer", "agent"} {
		if !strings.HasPrefix(tail, `"`) {
			break
		}
		value, after, ok := quoted(tail[1:])
		if !ok {
			return fault("a text does not end")
		}
		if err := r.add(name, value); err != nil {
			return err
		}
		tail = strings.TrimPrefix(after, " ")
	}
	return r.request(request)
}

func unescapedQuote(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// request splits METHOD PATH?QUERY PROTOCOL; other texts have none of these
// fields. uri is the request without its method and protocol, whatever it is.
func (r *Record) request(s string) error {
	uri := s
	if method, rest, ok := strings.Cut(s, " "); ok && isMethod(method) {
		uri = rest
	}
	if at := strings.LastIndex(uri, " HTTP/"); at >= 0 {
		uri = uri[:at]
	}
	if err := r.add("uri", uri); err != nil {
		return err
	}
	words := strings.Split(s, " ")
	if len(words) != 3 || !isMethod(words[0]) || !strings.HasPrefix(words[2], "HTTP/") {
		return nil
	}
	path, query, _ := strings.Cut(words[1], "?")
	for _, f := range [][2]string{{"method", words[0]}, {"path", path}, {"query", query}, {"protocol", words[2]}} {
		if err := r.add(f[0], f[1]); err != nil {
			return err
		}
	}
	return nil
}

func isMethod(s string) bool { return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" }

// proxyHead and proxyMiddle are what stands before the first quote of a line of Nginx
// Proxy Manager, and between the first text and the second. Nginx escapes quotes in
// what a client writes, and checks that a host holds no blank.
var (
	proxyHead   = regexp.MustCompile(`^\[(\d\d/[A-Z][a-z]{2}/\d{4}:[\d:]{8} [+-]\d{4})\] (?:\S+ \S+ )?(\d{3}) - ([A-Z]+) \S+ (\S+) $`)
	proxyMiddle = regexp.MustCompile(`^ \[Client ([0-9A-Fa-f.:]+)\] \[Length [\d-]+\] \[Gzip [\d.-]+\](?: \[Sent-to \S*\])? $`)
)

// maxProxyPart bounds either: nginx takes no header of more than 8 KiB.
const maxProxyPart = 9 << 10

// unquoted takes the text before the first quote, which the expression must match, and
// the quoted one after it.
func unquoted(text string, re *regexp.Regexp) (groups []string, value, rest string, ok bool) {
	before, rest, ok := strings.Cut(text, `"`)
	if !ok || len(before) > maxProxyPart {
		return nil, "", "", false
	}
	if groups = re.FindStringSubmatch(before); groups == nil {
		return nil, "", "", false
	}
	value, rest, ok = quoted(rest)
	return groups, value, rest, ok
}

// proxy reads [TIME] CACHE UPSTREAM-STATUS STATUS - METHOD SCHEME HOST "URI"
// [Client ADDRESS] [Length N] [Gzip R] [Sent-to HOST] "AGENT" "REFERER".
func (r *Record) proxy(line []byte) error {
	if !bytes.HasPrefix(line, []byte("[")) {
		return fmt.Errorf("%w: no time", ErrLine)
	}
	m, uri, text, ok := unquoted(strings.TrimSpace(string(line)), proxyHead)
	var client []string
	var agent, referer string
	if ok {
		client, agent, text, ok = unquoted(text, proxyMiddle)
	}
	if ok {
		text, ok = strings.CutPrefix(text, ` "`)
	}
	if ok {
		referer, text, ok = quoted(text)
	}
	if !ok || text != "" {
		return fmt.Errorf("%w: not as the proxy manager writes", ErrLine)
	}
	path, query, _ := strings.Cut(uri, "?")
	for _, f := range [][2]string{
		{"time", m[1]},
		{"status", m[2]},
		{"method", m[3]},
		{"host", m[4]},
		{"request", m[3] + " " + uri},
		{"uri", uri},
		{"path", path},
		{"query", query},
		{"address", client[1]},
		{"agent", agent},
		{"referer", referer},
	} {
		if err := r.add(f[0], f[1]); err != nil {
			return err
		}
	}
	return nil
}
