package pattern

import (
	"fmt"
	"strings"
)

// The expressions of fail2ban's address tags. The pieces are those that the
// manual and failregex.py of fail2ban describe, but for a look-behind in the
// IPv6 one which is always true where it stands.
const (
	tagIP4 = `(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})`
	tagIP6 = `(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|:){1,7}(?:[0-9a-fA-F]{1,4}|:))`
	tagDNS = `(?P<dns>[\w\-.^_]*\w)`
	// An address in brackets or not.
	tagAddr   = `\[?(?:` + tagIP4 + `|` + tagIP6 + `)\]?`
	tagHost   = `(?:` + tagAddr + `|` + tagDNS + `)`
	tagCIDR   = `(?P<cidr>\d+)`
	tagSubnet = `\[?(?:` + tagIP4 + `|` + tagIP6 + `)(?:/` + tagCIDR + `)?\]?`
)

var plainTags = map[string]string{
	"IP4": tagIP4, "F-IP4/": tagIP4,
	"IP6": tagIP6, "F-IP6/": tagIP6,
	"ADDR": tagAddr, "F-ADDR/": tagAddr,
	"CIDR": tagCIDR, "F-CIDR/": tagCIDR,
	"SUBNET": tagSubnet, "F-SUBNET/": tagSubnet,
	"DNS": tagDNS, "F-DNS/": tagDNS,
	"F-ID/":   `(?P<fid>\S+)`,
	"F-PORT/": `(?P<fport>\w+)`,
}

// Expand replaces fail2ban's tags (<HOST>, <F-USER>...</F-USER>, <SKIPLINES>
// and so on) by their expressions; other text stays as it is. With
// noNames, <HOST> is an address and never a host name.
func Expand(source string, noNames bool) string {
	var b strings.Builder
	open := map[string]bool{}
	skips := 0
	for {
		i := strings.IndexByte(source, '<')
		if i < 0 {
			b.WriteString(source)
			return b.String()
		}
		b.WriteString(source[:i])
		source = source[i:]
		end := tagEnd(source)
		if end < 0 {
			b.WriteByte('<')
			source = source[1:]
			continue
		}
		tag := source[1:end]
		switch plain, ok := plainTags[tag]; {
		case tag == "HOST" && noNames:
			b.WriteString(tagAddr)
		case tag == "HOST":
			b.WriteString(tagHost)
		case tag == "SKIPLINES":
			fmt.Fprintf(&b, `\n(?P<skiplines%d>(?:(?:.*\n)*?))`, skips)
			skips++
		case ok:
			b.WriteString(plain)
		default:
			b.WriteString(customTag(tag, source[:end+1], open))
		}
		source = source[end+1:]
	}
}

// tagEnd gives the place of the '>' that ends a tag at the start of s, or -1.
func tagEnd(s string) int {
	i := 1
	if i < len(s) && s[i] == '/' {
		i++
	}
	from := i
	for i < len(s) && (isNameByte(s[i]) || s[i] == '-') {
		i++
	}
	if i == from {
		return -1
	}
	if i < len(s) && s[i] == '/' {
		i++
	}
	if i < len(s) && s[i] == '>' {
		return i
	}
	return -1
}

func isNameByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// customTag replaces <F-NAME> and </F-NAME>; original is the whole tag.
func customTag(tag, original string, open map[string]bool) string {
	name, closing := strings.CutPrefix(tag, "/")
	name, ok := strings.CutPrefix(name, "F-")
	if !ok || name == "" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return original
	}
	if closing {
		if open[name] {
			return ")"
		}
		return original
	}
	open[name] = true
	switch name = strings.ToLower(name); name {
	case "id":
		name = "fid"
	case "port":
		name = "fport"
	}
	return "(?P<" + name + ">"
}
