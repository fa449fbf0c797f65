package page

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/span"
)

// bansData is the table of bans, a part of it.
type bansData struct {
	Page    control.BanPage
	Search  string
	Topic   string
	Origin  string
	Sort    string
	Topics  []Topic
	Origins []string
	First   int // of the rows here, counted from 1; 0 where there is none
	Last    int
	Prev    string // the address of the page before, "" for none
	Next    string
	Allowed []control.Exemption
	Refused string // why the search cannot be done
}

// rowsShown is how many bans one page shows.
const rowsShown = 100

func (s *Server) bans(r *http.Request) (view, error) {
	q := r.URL.Query()
	d := bansData{Search: q.Get("search"), Topic: q.Get("topic"), Origin: q.Get("origin"), Sort: q.Get("sort")}
	ask := url.Values{"limit": {strconv.Itoa(rowsShown)}}
	for _, k := range []string{"search", "topic", "origin", "sort", "offset"} {
		if v := strings.TrimSpace(q.Get(k)); v != "" {
			ask.Set(k, v)
		}
	}
	if err := s.node.Get(r.Context(), "/v1/bans/page", ask, &d.Page); err != nil {
		return view{}, err
	}
	var peers []control.Peer
	for path, into := range map[string]any{"/v1/peers": &peers, "/v1/allow": &d.Allowed} {
		if err := s.node.Get(r.Context(), path, nil, into); err != nil {
			return view{}, err
		}
	}
	d.Topics = s.o.Topics()
	d.Origins = append(d.Origins, "here")
	for _, p := range peers {
		d.Origins = append(d.Origins, p.Name)
	}
	if n := len(d.Page.Bans); n > 0 {
		d.First, d.Last = d.Page.Offset+1, d.Page.Offset+n
	}
	at := func(offset int) string {
		ask.Del("limit")
		ask.Set("offset", strconv.Itoa(offset))
		return "/bans?" + ask.Encode()
	}
	if d.Page.Offset > 0 {
		d.Prev = at(max(d.Page.Offset-rowsShown, 0))
	}
	if d.Page.Offset+len(d.Page.Bans) < d.Page.Matching {
		d.Next = at(d.Page.Offset + rowsShown)
	}
	return view{Title: "Bans", Template: "bans", Data: d}, nil
}

// target reads the target of a form.
func target(r *http.Request) (ban.Target, error) {
	text := strings.TrimSpace(r.PostFormValue("target"))
	t, err := ban.ParseTarget(text)
	if err != nil {
		return t, control.Refuse(control.CodeBad, "an address, a prefix such as 203.0.113.0/24, or a wallet", "%v", err)
	}
	return t, nil
}

// lasts reads how long something of a form lasts, in seconds; "" is 0.
func lasts(r *http.Request) (int64, error) {
	text := strings.TrimSpace(r.PostFormValue("for"))
	if text == "" {
		return 0, nil
	}
	d, err := span.Parse(text)
	if err != nil || d <= 0 || d == span.Permanent {
		return 0, control.Refuse(control.CodeBad, "a time such as 1h, 30m or 7d", "%.64q is no length of time", text)
	}
	return int64(d.Seconds()), nil
}

// topic reads the topic of a form; "" is every topic.
func topic(r *http.Request) (ban.Topic, error) {
	text := r.PostFormValue("topic")
	if text == "" {
		return "", nil
	}
	t, err := ban.ParseTopic(text)
	if err != nil {
		return "", control.Refuse(control.CodeBad, "", "%v", err)
	}
	return t, nil
}

// comment is the reason that a person gives, or the one that says from where.
func comment(r *http.Request) string {
	if c := strings.TrimSpace(r.PostFormValue("comment")); c != "" {
		return c
	}
	return "on the page"
}

func yes(r *http.Request) bool { return r.PostFormValue("yes") == "1" }

// whom reads the target, the topic and the length in seconds that the forms of a ban and of
// an unban have in common.
func whom(r *http.Request) (t ban.Target, name ban.Topic, seconds int64, err error) {
	if t, err = target(r); err != nil {
		return t, name, 0, err
	}
	if name, err = topic(r); err != nil {
		return t, name, 0, err
	}
	seconds, err = lasts(r)
	return t, name, seconds, err
}

func (s *Server) ban(r *http.Request) (n notice, err error) {
	q := control.BanRequest{}
	if q.Target, q.Topic, q.For, err = whom(r); err != nil {
		return n, err
	}
	var answer control.Ban
	if err := s.node.Post(r.Context(), "/v1/bans", q, &answer); err != nil {
		return n, err
	}
	n = notice{Good: true, Text: answer.Target.String() + " is banned in " + string(answer.Topic) + " until " + answer.Until.UTC().Format("2006-01-02 15:04:05") + " UTC."}
	if answer.Cut {
		n.Lines = append(n.Lines, "It lasts 90 days, the longest that there is.")
	}
	if answer.Kernel != "" {
		n.Good = false
		n.Lines = append(n.Lines, "Not enforced yet: "+answer.Kernel)
	}
	return n, nil
}

func (s *Server) unban(r *http.Request) (n notice, err error) {
	q := control.UnbanRequest{Comment: comment(r), Yes: yes(r), Dispute: r.PostFormValue("dispute") == "1"}
	if q.Target, q.Topic, q.For, err = whom(r); err != nil {
		return n, err
	}
	var answer control.UnbanAnswer
	if err := s.node.Post(r.Context(), "/v1/unban", q, &answer); err != nil {
		return n, err
	}
	n = notice{Good: true, Text: q.Target.String() + " is unbanned, and no peer bans it until " + answer.Exempt.UTC().Format("2006-01-02 15:04") + " UTC. A new offence here still does."}
	n.lifted(answer.Lifted)
	for _, x := range answer.Left {
		n.Good = false
		n.Lines = append(n.Lines, "The kernel still drops "+x.Target.String()+" in "+x.Where+", which this agent does not keep: "+x.Fix)
	}
	n.kernel(answer.Kernel)
	return n, nil
}

// lifted names the bans that a decision ended.
func (n *notice) lifted(list []control.Ban) {
	if len(list) == 0 {
		n.Lines = append(n.Lines, "There was no ban of it.")
	}
	for i, b := range list {
		if i == 10 {
			n.Lines = append(n.Lines, "and "+strconv.Itoa(len(list)-i)+" more bans")
			break
		}
		n.Lines = append(n.Lines, "Lifted: "+b.Target.String()+" in "+string(b.Topic)+", by "+strings.Join(b.Origin, ", "))
	}
}

// kernel says where the kernel does not follow yet.
func (n *notice) kernel(why string) {
	if why != "" {
		n.Good = false
		n.Lines = append(n.Lines, "The kernel does not follow yet: "+why)
	}
}

func (s *Server) allow(r *http.Request) (n notice, err error) {
	q := control.AllowRequest{Comment: comment(r), Yes: yes(r)}
	if q.Target, err = target(r); err != nil {
		return n, err
	}
	if q.For, err = lasts(r); err != nil {
		return n, err
	}
	var answer control.UnbanAnswer
	if err := s.node.Post(r.Context(), "/v1/allow", q, &answer); err != nil {
		return n, err
	}
	n = notice{Good: true, Text: q.Target.String() + " is allowed: no ban touches it, whoever makes it."}
	n.lifted(answer.Lifted)
	n.kernel(answer.Kernel)
	return n, nil
}

func (s *Server) allowRemove(r *http.Request) (n notice, err error) {
	q := control.AllowRequest{}
	if q.Target, err = target(r); err != nil {
		return n, err
	}
	var answer control.AllowRemoveAnswer
	if err := s.node.Post(r.Context(), "/v1/allow/remove", q, &answer); err != nil {
		return n, err
	}
	n = notice{Good: true, Text: q.Target.String() + " is no longer exempt."}
	for _, b := range answer.Banned {
		n.Lines = append(n.Lines, "Banned again: "+b.Target.String()+" in "+string(b.Topic))
	}
	n.kernel(answer.Kernel)
	return n, nil
}
