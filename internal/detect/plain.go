package detect

import (
	"bytes"
	"net/netip"
	"strconv"
)

// plain gives a line as expressions see it, whatever wrote it: without a
// terminal's colours, and in the old form of syslog where it is of the new one.
// It returns line itself where there is nothing to change, else it uses buffer.
func plain(line, buffer []byte) []byte {
	if bytes.IndexByte(line, escape) >= 0 {
		line = uncoloured(line, buffer)
		buffer = buffer[len(buffer):]
	}
	if len(line) > 0 && line[0] == '<' {
		line = unprioritised(line, buffer)
		buffer = buffer[len(buffer):]
	}
	return unzoned(line, buffer)
}

// unzoned takes out the zones of addresses: "fe80::1%eth0" is "fe80::1". A zone
// follows an address of IPv6 and ends with a word, as in RFC 4007.
func unzoned(line, buffer []byte) []byte {
	out, copied := line, 0
	for i := 0; i < len(line); {
		at := bytes.IndexByte(line[i:], '%')
		if at < 0 {
			break
		}
		at += i
		end := at + 1
		for end < len(line) && end-at <= maxZone && isZone(line[end]) {
			end++
		}
		i = end
		if end-at < 2 || end-at > maxZone || !endsInIPv6(line[:at]) {
			i = at + 1
			continue
		}
		if copied == 0 {
			out = buffer[:0]
		}
		out = append(out, line[copied:at]...)
		copied = end
	}
	if copied == 0 {
		return line
	}
	return append(out, line[copied:]...)
}

// maxZone bounds a zone with its "%": an interface's name has 15 bytes at most.
const maxZone = 16

func isZone(c byte) bool { return isAlnum(c) || c == '_' || c == '-' || c == '.' }

// endsInIPv6 says that a text ends in an address of IPv6.
func endsInIPv6(text []byte) bool {
	const longest = 45
	from := len(text)
	for from > 0 && len(text)-from <= longest && (isHex(text[from-1]) || text[from-1] == ':' || text[from-1] == '.') {
		from--
	}
	if bytes.IndexByte(text[from:], ':') < 0 {
		return false
	}
	addr, err := netip.ParseAddr(string(text[from:]))
	return err == nil && addr.Is6()
}

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

const escape = 0x1b

// uncoloured takes out "ESC [ 0;1 m" and other control sequences.
func uncoloured(line, out []byte) []byte {
	out = out[:0]
	for i := 0; i < len(line); i++ {
		if line[i] != escape {
			out = append(out, line[i])
			continue
		}
		if i+1 >= len(line) || line[i+1] != '[' {
			continue // a lone escape
		}
		for i += 2; i < len(line) && (line[i] < 0x40 || line[i] > 0x7e); i++ {
		}
	}
	return out
}

// unprioritised takes off "<38>", and turns "<38>1 TIME HOST APP PID ID [DATA]
// MESSAGE" (RFC 5424) into "TIME HOST APP[PID]: MESSAGE".
func unprioritised(line, out []byte) []byte {
	end := bytes.IndexByte(line[:min(len(line), 5)], '>')
	if end < 2 {
		return line
	}
	if n, err := strconv.Atoi(string(line[1:end])); err != nil || n > 191 {
		return line
	}
	rest := line[end+1:]
	if !bytes.HasPrefix(rest, []byte("1 ")) {
		return rest
	}
	var words [5][]byte // time, host, program, its number, id of the message
	text := rest[2:]
	for i := range words {
		var ok bool
		if words[i], text, ok = bytes.Cut(text, []byte(" ")); !ok {
			return rest
		}
	}
	text, ok := afterData(text)
	if !ok {
		return rest
	}
	out = append(append(append(out[:0], words[0]...), ' '), words[1]...)
	out = append(append(out, ' '), words[2]...)
	if string(words[3]) != "-" {
		out = append(append(append(out, '['), words[3]...), ']')
	}
	return append(append(out, ": "...), bytes.TrimPrefix(text, []byte("\ufeff"))...)
}

// afterData skips the structured data of RFC 5424: "-" or [id name="value"]...,
// in which a backslash keeps the next character from meaning anything.
func afterData(text []byte) ([]byte, bool) {
	if rest, ok := bytes.CutPrefix(text, []byte("-")); ok {
		return bytes.TrimPrefix(rest, []byte(" ")), len(rest) == 0 || rest[0] == ' '
	}
	for len(text) > 0 && text[0] == '[' {
		inside := false
		i := 1
		for ; i < len(text) && (inside || text[i] != ']'); i++ {
			switch text[i] {
			case '\\':
				i++
			case '"':
				inside = !inside
			}
		}
		if i >= len(text) {
			return nil, false
		}
		text = text[i+1:]
	}
	return bytes.CutPrefix(text, []byte(" "))
}
