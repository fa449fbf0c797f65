package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/span"
)

// evidence is required of a claim that is to count for a ban.
type evidence struct {
	hits        int // fewer make a vote that is never the first
	established bool
	least       ban.Basis // weak asks for none
	never       bool      // such claims count for no ban
}

// byKind holds a value for all claims, and others for those of a class or
// basis. Decided claims follow only rules that name them: a person's word
// does not change with a rule about machines.
type byKind[T any] struct {
	all     T
	decided T
	class   map[ban.Class]T
	basis   map[ban.Basis]T
}

// of gives the value for a claim; its class is more particular than its basis.
func (k *byKind[T]) of(c ban.Class, b ban.Basis) T {
	if b == ban.BasisDecided {
		return k.decided
	}
	if k.class != nil {
		if v, ok := k.class[c]; ok {
			return v
		}
	}
	if k.basis != nil {
		if v, ok := k.basis[b]; ok {
			return v
		}
	}
	return k.all
}

// set gives claims of a kind, by the name of their class or basis, a value; ""
// is all claims.
func (k *byKind[T]) set(name string, v T) bool {
	if name == "" {
		k.all = v
		return true
	}
	if c, err := ban.ParseClass(name); err == nil {
		if k.class == nil {
			k.class = map[ban.Class]T{}
		}
		k.class[c] = v
		return true
	}
	b, err := ban.ParseBasis(name)
	switch {
	case err != nil:
		return false
	case b == ban.BasisDecided:
		k.decided = v
	default:
		if k.basis == nil {
			k.basis = map[ban.Basis]T{}
		}
		k.basis[b] = v
	}
	return true
}

// kinds reads `VALUE, KIND: VALUE` and calls read for each value.
func (p *parser) kinds(read func(kind word)) {
	for p.fault == nil && len(p.words) > 0 {
		var kind word
		if p.at+1 < len(p.words) && p.words[p.at+1].text == ":" {
			kind = p.next()
			p.next()
		}
		read(kind)
		if p.peek().text == "" {
			return
		}
		p.expect(",", "write `VALUE, KIND: VALUE`, where a KIND is a class such as scan, or decided, strong, handed-over, weak")
	}
}

func (p *parser) noKind(w word) {
	p.fail(w, quote(w)+" is no class and no basis", "a kind is a class such as scan, or decided, strong, handed-over, weak")
}

// require reads `hits >= 3 and tcp, scan: hits >= 10, decided: never`.
func (p *parser) require() (k byKind[evidence]) {
	p.kinds(func(kind word) {
		if e := p.evidence(); p.fault == nil && !k.set(kind.text, e) {
			p.noKind(kind)
		}
	})
	return k
}

// evidence reads `hits >= 3 and tcp and strong`.
func (p *parser) evidence() (e evidence) {
	const hint = "write `hits >= 3`, `tcp`, `strong` or `decided`, joined with `and`; or `never`"
	for p.fault == nil {
		switch w := p.next(); w.text {
		case "tcp":
			e.established = true
		case "strong":
			e.least = ban.BasisStrong
		case "decided":
			e.least = ban.BasisDecided
		case "never":
			e.never = true
			return e
		case "hits":
			p.expect(">=", hint)
			w := p.next()
			n, err := strconv.Atoi(w.text)
			if err != nil || n < 1 || n > ban.MaxHits {
				p.fail(w, fmt.Sprintf("expected a number from 1 to %d, got %s", ban.MaxHits, quote(w)), hint)
			}
			e.hits = n
		default:
			p.fail(w, "expected `hits`, `tcp`, `strong`, `decided` or `never`, got "+quote(w), hint)
		}
		if !p.accept("and") {
			break
		}
	}
	return e
}

// refuses says why a claim of some basis may not count for a ban at all, for
// lack of evidence.
func (e evidence) refuses(v *Vote, basis ban.Basis) bool {
	switch {
	case e.never:
		return true
	case e.least == ban.BasisDecided && basis != ban.BasisDecided:
		return true
	case e.established && !v.Established && basis != ban.BasisDecided:
		return true
	}
	return false
}

// ttls reads `72h, decided: 90d, scan: 12h`: how long after its arrival a claim
// counts. Values are seconds.
func (p *parser) ttls() (k byKind[int64]) {
	k.all, k.decided = seconds(DefaultTTL), seconds(MaxTTL)
	p.kinds(func(kind word) {
		from, at := p.peek(), p.at
		for w := p.peek().text; w != "" && w != ","; w = p.peek().text {
			p.next()
		}
		var text string
		if p.at > at {
			text = p.since(from)
		}
		d, err := span.Parse(text)
		switch {
		case err != nil:
			p.fail(from, "expected a length of time, got "+quote(from), "write 90s, 10m, 6h, 7d or 2w")
		case d < time.Second || d > MaxTTL:
			p.fail(from, "a claim counts for 1s or more and at most "+span.Format(MaxTTL), "")
		case !k.set(kind.text, seconds(d)):
			p.noKind(kind)
		}
	})
	return k
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// worth is the basis that a claim has here: another program's ban is as strong
// with the offences that it names, and as weak without; a class that honest
// clients make too is weak whatever its author says.
func worth(v *Vote) ban.Basis {
	switch {
	case v.Basis == ban.BasisDecided:
		return v.Basis
	case v.Class == ban.ClassScanWeak:
		return ban.BasisWeak
	case v.Basis != ban.BasisHandedOver:
		return v.Basis
	case v.Hits > 0:
		return ban.BasisStrong
	}
	return ban.BasisWeak
}

// clip bounds foreign text that an error repeats.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
