package settings

import (
	"regexp"
	"slices"
	"strings"
)

// nftToken is a word of nft's language: a text in quotes, a brace, a comma, anything
// else between blanks.
var nftToken = regexp.MustCompile(`"[^"]*"|[{},;]|[^\s{},;"]+`)

// nftRules reads the arguments of nft: statements, one after the other.
func nftRules(words []string) (out []packetRule) {
	var statement []string
	for _, token := range append(nftToken.FindAllString(strings.Join(words, " "), -1), ";") {
		if token != ";" {
			statement = append(statement, token)
			continue
		}
		for len(statement) > 0 && strings.HasPrefix(statement[0], "-") {
			statement = statement[1:]
		}
		if len(statement) > 1 {
			out = append(out, nftStatement(statement[0], statement[1], statement[2:]))
		}
		statement = nil
	}
	return out
}

func nftStatement(verb, object string, words []string) (r packetRule) {
	if r.removes = verb == "delete" || verb == "destroy"; !r.removes && verb != "add" && verb != "insert" && verb != "create" {
		return packetRule{}
	}
	if len(words) > 0 && slices.Contains([]string{"ip", "ip6", "inet", "bridge", "netdev", "arp"}, words[0]) {
		words = words[1:]
	}
	switch {
	case object == "element" && len(words) > 2:
		if slices.ContainsFunc(words[2:], offenderTag.MatchString) {
			r.entersSet = words[1]
		}
	case object == "rule" && len(words) > 2:
		r.chain = words[1]
		r.understood(verb, object, words[0], words[1])
		r.nftExpression(words[2:])
	}
	return r
}

// nftExpression reads the conditions and the verdict of a rule.
func (r *packetRule) nftExpression(words []string) {
	for i := 0; i < len(words); i++ {
		word := words[i]
		switch word {
		case "saddr":
			value, not, n := nftValue(words[i+1:])
			if i += n; strings.HasPrefix(value, "@") {
				r.source, r.except = value[1:], not
			} else {
				r.from(value, not)
			}
			r.understoodOf(word, not, value)
		case "dport", "protocol", "nexthdr", "l4proto":
			value, not, n := nftValue(words[i+1:])
			i += n
			r.narrowed = r.narrowed || not
			if word == "dport" {
				r.ports = value
			} else {
				r.protocol = value
			}
			r.understoodOf(word, not, value)
		case "iif", "iifname", "prefix", "comment", "level", "packets", "bytes", "position", "index", "handle":
			_, _, n := nftValue(words[i+1:])
			i += n
		case "reject", "drop", "accept", "return":
			r.verdict = word
			r.understood(word)
			return // only how to reject, and comments
		case "jump", "goto":
			if i++; i < len(words) {
				r.verdict = strings.ToLower(words[i])
			}
		case "tcp", "udp":
			r.protocol = word
		case "ip", "ip6", "th", "meta", "counter", "log":
		default:
			r.narrowed = true
		}
	}
}

func (r *packetRule) understoodOf(key string, not bool, value string) {
	if r.understood(key); not {
		r.understood("!=")
	}
	r.understood(value)
}

// nftValue reads the value after a key: a word, or a list of them in braces, which
// becomes one word. n is how many tokens it takes.
func nftValue(words []string) (value string, not bool, n int) {
	if n < len(words) && words[n] == "!=" {
		not = true
		n++
	}
	if n < len(words) && words[n] == "{" {
		end := slices.Index(words[n:], "}")
		if end < 0 {
			return "", not, len(words)
		}
		return strings.Join(words[n+1:n+end], ""), not, n + end + 1
	}
	if n < len(words) {
		return words[n], not, n + 1
	}
	return "", not, n
}
