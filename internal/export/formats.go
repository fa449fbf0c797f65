package export

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// A format is one spelling of the list of banned addresses that another
// program reads as a file.
type format struct {
	name        string // the path is /v1/bans.NAME
	contentType string
	// listName is the default of the name parameter: the table, set or list that
	// the reader's machine fills. "" takes no such parameter.
	listName string
	write    func(*lineWriter, *listing)
}

// formats are all but text and JSON, which programs of this project read too.
var formats = []format{
	{"netset", plainText, "", writeNetset},
	{"pf", plainText, "", writeNetset},
	{"nft", plainText, "banmesh-list", writeNft},
	{"ipset", plainText, "banmesh-list", writeIPSet},
	{"rsc", plainText, "banmesh", writeMikroTik},
	{"map", plainText, "", writeHAProxy},
	{"geo", plainText, "", writeGeo},
	{"iprep", plainText, "", writeIPRep},
}

const (
	plainText = "text/plain; charset=utf-8"
	// nftBatch is how many elements stand in one command: longer lines make
	// nft's parser slow.
	nftBatch = 256
	// ipsetRoom is the capacity of every set that is written: ipset refuses to make a
	// set again with another one.
	ipsetRoom = 1 << 20
	// ipsetMaxTimeout is the longest timeout that ipset takes, in seconds.
	ipsetMaxTimeout = 2147483
	// Suricata's scores go to 127. Bans that this node made itself score that.
	iprepHere, iprepNetwork = 127, 100
)

// serveFormat answers with a list in a format.
func (h *Handler) serveFormat(f format) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, err := readListName(r.URL.Query(), f.listName)
		if err != nil {
			refuse(w, http.StatusBadRequest, err, "letters, digits, dash and underscore, at most 24, a letter first")
			return
		}
		h.list(w, r, listKind{path: f.name, kind: "ip", contentType: f.contentType, repeats: reduced}, func(out *lineWriter, l *listing) {
			l.name = name
			f.write(out, l)
		})
	}
}

// head writes a comment that says how much of the list this is. It has no
// date, so that an unchanged list has unchanged bytes.
func (l *listing) head(out *lineWriter) {
	if len(l.entries) == l.total {
		out.line(fmt.Appendf(nil, "# Banmesh: all %d bans", l.total))
		return
	}
	out.line(fmt.Appendf(nil, "# Banmesh: %d of %d bans, as limit and minprefix ask", len(l.entries), l.total))
}

// writeNetset writes an address or prefix a line, as FireHOL's tools, pf's
// tables, OPNsense, pfSense and banIP read it.
func writeNetset(out *lineWriter, l *listing) {
	l.head(out)
	for i := range l.entries {
		out.line([]byte(l.entries[i].Target.String()))
	}
}

// writeNft writes commands for nft -f that replace the elements of two sets in
// one transaction, and make the sets where they are missing.
func writeNft(out *lineWriter, l *listing) {
	l.head(out)
	out.line([]byte("add table inet " + l.name))
	for _, family := range []string{"4", "6"} {
		out.line(fmt.Appendf(nil, "add set inet %s banned%s { type ipv%s_addr; flags interval; auto-merge; }", l.name, family, family))
		out.line(fmt.Appendf(nil, "flush set inet %s banned%s", l.name, family))
	}
	for _, family := range []string{"4", "6"} {
		begun := 0
		for i := range l.entries {
			if l.family(i) != family {
				continue
			}
			if begun%nftBatch == 0 {
				if begun > 0 {
					out.line([]byte("}"))
				}
				out.line(fmt.Appendf(nil, "add element inet %s banned%s {", l.name, family))
			}
			begun++
			out.line([]byte(l.entries[i].Target.String() + ","))
		}
		if begun > 0 {
			out.line([]byte("}"))
		}
	}
}

// writeIPSet writes commands for ipset restore: a new set is filled and takes
// the old one's place at once. Each ban has its own timeout.
func writeIPSet(out *lineWriter, l *listing) {
	l.head(out)
	for _, family := range []string{"4", "6"} {
		set, filling := l.name+"-"+family, l.name+"-"+family+"-n"
		inet := "inet"
		if family == "6" {
			inet = "inet6"
		}
		for _, name := range []string{set, filling} {
			out.line(fmt.Appendf(nil, "create %s hash:net family %s maxelem %d timeout 0 -exist", name, inet, ipsetRoom))
		}
		out.line([]byte("flush " + filling))
		for i := range l.entries {
			if l.family(i) == family {
				out.line(fmt.Appendf(nil, "add %s %s timeout %d -exist", filling, l.entries[i].Target, min(l.rest(i), ipsetMaxTimeout)))
			}
		}
		out.line([]byte("swap " + filling + " " + set))
		out.line([]byte("destroy " + filling))
	}
}

// writeMikroTik writes a script for RouterOS's import: the old list goes, the
// new one comes with timeouts, so that nothing is written to flash and every ban ends
// though no further list arrives. Each command may fail alone.
func writeMikroTik(out *lineWriter, l *listing) {
	l.head(out)
	for _, family := range []string{"4", "6"} {
		path := "/ip/firewall/address-list"
		if family == "6" {
			path = "/ipv6/firewall/address-list"
		}
		if family == "6" && l.count(family) == 0 && l.only == "4" {
			continue // a router without IPv6 has no such menu
		}
		out.line(fmt.Appendf(nil, ":do { %s remove [find list=%s] } on-error={}", path, l.name))
		for i := range l.entries {
			if l.family(i) == family {
				out.line(fmt.Appendf(nil, ":do { %s add list=%s address=%s timeout=%ds } on-error={}", path, l.name, l.entries[i].Target, l.rest(i)))
			}
		}
	}
}

// writeHAProxy writes a map from address to topic, for src,map_ip(FILE).
func writeHAProxy(out *lineWriter, l *listing) {
	l.head(out)
	for i := range l.entries {
		out.line([]byte(l.entries[i].Target.String() + " " + string(l.entries[i].Topic)))
	}
}

// writeGeo writes the inside of a geo block of nginx.
func writeGeo(out *lineWriter, l *listing) {
	l.head(out)
	for i := range l.entries {
		out.line([]byte(l.entries[i].Target.String() + " 1;"))
	}
}

// writeIPRep writes Suricata's reputation list, in category 1.
func writeIPRep(out *lineWriter, l *listing) {
	l.head(out)
	for i := range l.entries {
		score := iprepNetwork
		if l.entries[i].Here {
			score = iprepHere
		}
		out.line([]byte(l.entries[i].Target.String() + ",1," + strconv.Itoa(score)))
	}
}

// csv answers with all there is about each ban, as spreadsheets read it.
func (h *Handler) csv(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, listKind{path: "csv", kind: "all", contentType: "text/csv; charset=utf-8; header=present"}, func(out *lineWriter, l *listing) {
		out.line([]byte("target,topic,class,until,origin\r"))
		for i := range l.entries {
			e := toJSON(l.entries[i])
			out.line(fmt.Appendf(nil, "%s,%s,%s,%s,%s\r", e.Target, e.Topic, e.Class, time.Unix(e.Until, 0).UTC().Format(time.RFC3339), e.Origin))
		}
	})
}
