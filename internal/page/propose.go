package page

import (
	"context"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
)

// A Proposal is a rule for lines that no rule matches, and the trial of it on the
// same lines.
type Proposal struct {
	Rule    string
	Line    string // the line that it was made of
	Matched int    // of the lines that nothing matched
	Others  int    // lines that it matches besides
	Of      int    // lines that nothing matched
	// Harmless is how many lines that are no offence the topic's definition has, and
	// Wrong how many of them the rule matches.
	Harmless, Wrong int
	Warning         string
}

var (
	numbers = regexp.MustCompile(`\d+`)
	quoted  = regexp.MustCompile(`"[^"]*"|'[^']*'`)
	// user is the word behind "user" or "for", which whoever connects may choose.
	user = regexp.MustCompile(`\b(?:(?:user|account|login)=|(?:user|account) |for (?:invalid )?(?:user )?)(\S+)`)
	// program is the host and the program behind a date, as syslog writes them, and
	// priority its number before one.
	priority = regexp.MustCompile(`^(?:<\d+>)?$`)
	program  = regexp.MustCompile(`^(?:[\w.-]+ )?([A-Za-z][\w./-]*)(?:\[\d+\])?:\s+`)
)

// propose makes a rule of the first line that nothing matched and that names an
// address, and tries it on all the lines and on those of the topic that
// are no offence. It is a draft: only a person knows
// whether the line shows an offence.
func (s *Server) propose(ctx context.Context, spec string, lines []detect.TrialLine) *Proposal {
	var text []string
	p := &Proposal{}
	for _, l := range lines {
		text = append(text, l.Text)
		if !missed(l) {
			continue
		}
		p.Of++
	}
	if p.Of == 0 {
		return nil
	}
	all := strings.Join(text, "\n")
	// Which part of each line is its date is the engine's to say: rules do not see it.
	_, dated, err := s.o.Trial(ctx, TrialRequest{Rule: "^<HOST>$", Lines: all})
	if err != nil || len(dated) != len(lines) {
		return nil
	}
	for i, l := range lines {
		if !missed(l) {
			continue
		}
		if rule, ok := ruleOf(l.Text, dated[i].Date); ok {
			p.Rule, p.Line = rule, l.Text
			break
		}
	}
	if p.Rule == "" {
		return nil
	}
	_, tried, err := s.o.Trial(ctx, TrialRequest{Rule: p.Rule, Lines: all})
	if err != nil || len(tried) != len(lines) {
		return nil // nothing is proposed that was not tried
	}
	for i, l := range tried {
		switch {
		case !l.Matched:
		case missed(lines[i]):
			p.Matched++
		default:
			p.Others++
		}
	}
	if p.Matched == 0 {
		return nil
	}
	if topic, err := ban.ParseTopic(spec); err == nil {
		harmless := s.o.Harmless(topic)
		p.Harmless = len(harmless)
		_, tried, err := s.o.Trial(ctx, TrialRequest{Rule: p.Rule, Lines: strings.Join(harmless, "\n")})
		if err != nil {
			return nil
		}
		for _, l := range tried {
			if l.Matched {
				p.Wrong++
			}
		}
	}
	if strings.Contains(p.Rule, ".*") || strings.Contains(p.Rule, `\S+`) {
		p.Warning = "A part of the line is free text that a client may choose. Anchor the rule at the end of the line, and put the address before the free text where the program allows."
	}
	return p
}

// ruleOf makes a rule of a line without its date, wherever that is: its first address
// becomes <HOST>, numbers and names any.
func ruleOf(line, date string) (string, bool) {
	before, after, _ := strings.Cut(line, date)
	rest, begin := before+after, "^"
	if date != "" && priority.MatchString(before) {
		rest, begin = strings.TrimLeft(after, " \t"), "^"+general(before)+`\s*`
		if m := program.FindStringSubmatch(rest); m != nil {
			rest, begin = rest[len(m[0]):], begin+`(?:\S+ )?`+regexp.QuoteMeta(m[1])+`(?:\[\d+\])?:\s+`
		}
	}
	at, length := addressIn(rest)
	if length == 0 {
		return "", false
	}
	return begin + general(rest[:at]) + "<HOST>" + general(rest[at+length:]) + "$", true
}

// addressIn finds the first address of a text.
func addressIn(text string) (at, length int) {
	for i := 0; i < len(text); {
		j := i
		for j < len(text) && strings.IndexByte("0123456789abcdefABCDEF:.", text[j]) >= 0 {
			j++
		}
		word := strings.TrimRight(text[i:j], ".:")
		if a, err := netip.ParseAddr(word); err == nil && (i == 0 || !alphanumeric(text[i-1])) && !a.IsUnspecified() {
			return i, len(word)
		}
		i = max(j, i) + 1
	}
	return 0, 0
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// general escapes a part of a line and lets numbers, quoted texts and names vary.
func general(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		q, u, n := quoted.FindStringIndex(text), user.FindStringSubmatchIndex(text), numbers.FindStringIndex(text)
		first := len(text)
		for _, m := range [][]int{q, n} {
			if m != nil {
				first = min(first, m[0])
			}
		}
		if u != nil {
			first = min(first, u[2])
		}
		b.WriteString(regexp.QuoteMeta(text[:first]))
		switch {
		case first == len(text):
			return b.String()
		case u != nil && u[2] == first:
			b.WriteString(`\S+`)
			text = text[u[3]:]
		case q != nil && q[0] == first:
			b.WriteString(text[first:first+1] + `.*` + text[first:first+1])
			text = text[q[1]:]
		default:
			b.WriteString(`\d+`)
			text = text[n[1]:]
		}
	}
	return b.String()
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func ordinals(list []int) string {
	var words []string
	for _, n := range list {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ", ")
}
