package fields

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// accessTime is how access logs write a time.
const accessTime = "02/Jan/2006:15:04:05 -0700"

const hostBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"

// isHost says that a text is an address, or a name with a dot: what a logging
// service begins its lines with is neither.
func isHost(s string) bool { return isName(s) && strings.Contains(s, ".") || isAddress(s) }

func isName(s string) bool { return s != "" && strings.Trim(s, hostBytes) == "" }

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// webServer is the header that a logging service puts before a line of a web server.
var webServer = regexp.MustCompile(`^(?:<\d{1,3}>)?(?:(?:[A-Z][a-z]{2} [ \d]\d [\d:]{8}|\d{4}-\d\d-\d\dT[\d:.,]+(?:Z|[+-]\d\d:?\d\d)) )?(?:[\w.-]+ )?(?:nginx|apache2?|httpd|lighttpd|openresty|angie|haproxy|traefik|caddy)(?:\[\d+\])?: `)

// withoutHeader cuts off the header of a web server.
func withoutHeader(text string) string {
	end := strings.Index(text[:min(len(text), maxHeader)], ": ")
	if end < 0 || strings.Contains(text[:end], `"`) {
		return text
	}
	return text[len(webServer.FindString(text[:end+2])):]
}

// virtualHost reads the host that stands before the address: "example.org:443", as
// Apache's vhost_combined writes it, or "example.org". No looked up name of a client ends
// in a port. A name without a port is a host where an address, no ident, and a user follow. A host that is itself
// an address is whatever a client asked for: such a line is of no use, for nobody
// can say which of the two is the client.
func virtualHost(word, rest string) (host string, ok bool) {
	address, rest, _ := strings.Cut(rest, " ")
	if !isAddress(address) || !strings.HasPrefix(rest, "- ") {
		return "", false
	}
	host, port, found := strings.Cut(word, ":")
	if found {
		return host, isName(host) && port != "" && strings.Trim(port, "0123456789") == ""
	}
	named := isName(host) && !isAddress(host) && (strings.Contains(host, ".") || host == "_" || host == "localhost")
	return host, named && !strings.HasPrefix(rest, "- [")
}

// haproxyHead is the text before the request in a line of HAProxy's option httplog: the client, the time,
// the status. The client's own words stand behind them, in braces, and HAProxy writes its quotes as #22.
var haproxyHead = regexp.MustCompile(`^(\S+):\d{1,5} \[(\d\d/[A-Z][a-z]{2}/\d{4}:[\d:]{8}(?:\.\d{1,6})?)\] \S+ \S+ [+\d/-]+ (\d{3}) \+?(\d+) `)

// haproxy reads CLIENT:PORT [TIME] FRONTEND BACKEND/SERVER TIMERS STATUS SIZE ... "REQUEST" and the rest.
func (r *Record) haproxy(text string) error {
	before, rest, _ := strings.Cut(text, `"`)
	request, _, ok := strings.Cut(rest, `"`)
	if !ok || len(before) > maxProxyPart {
		return fmt.Errorf("%w: no request", ErrLine)
	}
	head := haproxyHead.FindStringSubmatch(before)
	if head == nil || !isAddress(head[1]) {
		return fmt.Errorf("%w: no address", ErrLine)
	}
	for _, f := range [][2]string{{"address", head[1]}, {"time", head[2]}, {"request", request}, {"status", head[3]}, {"size", head[4]}} {
		if err := r.add(f[0], f[1]); err != nil {
			return err
		}
	}
	return r.request(request)
}

// access reads a line of HAProxy, or [HOST] ADDRESS IDENT USER [TIME] "REQUEST" STATUS SIZE "REFERER"
// "AGENT" and the rest. The user may hold anything but a quote, which
// servers escape; the request is split where it is a request.
func (r *Record) access(line []byte) error {
	text := strings.TrimSpace(string(line))
	text = withoutHeader(text)
	fault := func(what string) error { return fmt.Errorf("%w: %s", ErrLine, what) }
	address, rest, ok := strings.Cut(text, " ")
	if strings.HasPrefix(rest, "[") {
		return r.haproxy(text)
	}
	if host, ok := virtualHost(address, rest); ok {
		if err := r.add("host", host); err != nil {
			return err
		}
		address, rest, _ = strings.Cut(rest, " ")
	}
	ident, rest, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 || !isHost(address) || isAddress(ident) || strings.ContainsAny(ident, `"[`) {
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
