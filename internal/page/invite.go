package page

import (
	"fmt"
	"image/color"
	"net/http"
	"strconv"
	"strings"

	"github.com/boombuler/barcode/qr"

	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// inviteData is the form of an invitation, and one that was made.
type inviteData struct {
	Topics  []Topic
	Brokers []string
	Text    string
	QR      *qrCode
	Fault   string
	Hint    string
	Days    int
}

// maxInviteDays bounds how long an invitation made here is good.
const maxInviteDays = 365

func (s *Server) invite(r *http.Request) (view, error) {
	d, err := s.inviteForm(r)
	return view{Title: "Invite", Template: "invite", Data: d}, err
}

func (s *Server) inviteForm(r *http.Request) (d inviteData, err error) {
	var status control.Status
	if err := s.node.Get(r.Context(), "/v1/status", nil, &status); err != nil {
		return d, err
	}
	for _, b := range status.Brokers {
		if !strings.HasPrefix(b.URL, "unix://") {
			d.Brokers = append(d.Brokers, b.URL)
		}
	}
	d.Topics, d.Days = s.o.Topics(), 30
	return d, nil
}

// makeInvite signs an invitation. It holds no secret and gives no rights.
func (s *Server) makeInvite(r *http.Request) (view, error) {
	d, err := s.inviteForm(r)
	if err != nil {
		return view{}, err
	}
	v := view{Title: "Invite", Template: "invite", Data: &d}
	q := InviteRequest{Self: r.PostFormValue("self") == "1", Note: strings.TrimSpace(r.PostFormValue("note"))}
	if q.Days, err = strconv.Atoi(r.PostFormValue("days")); err != nil || q.Days < 1 || q.Days > maxInviteDays {
		d.Fault = fmt.Sprintf("an invitation is good for 1 to %d days", maxInviteDays)
		return v, nil
	}
	d.Days = q.Days
	q.Brokers = strings.Fields(r.PostFormValue("brokers"))
	for _, text := range r.PostForm["topic"] {
		t, err := ban.ParseTopic(text)
		if err != nil {
			d.Fault = err.Error()
			return v, nil
		}
		q.Topics = append(q.Topics, t)
	}
	d.Text, err = s.o.Invite(r.Context(), q)
	if err != nil {
		d.Fault, d.Hint = err.Error(), "agent network invite, where the root key is"
		return v, nil
	}
	d.QR = qrOf(d.Text)
	return v, nil
}

// A qrCode is the modules of a code as one path in an SVG picture.
type qrCode struct {
	Size int // with the quiet zone
	Path string
}

// quiet is the width of the empty border that readers want, in modules.
const quiet = 4

// qrOf draws a text as a QR code; nil where it is too long for one.
func qrOf(text string) *qrCode {
	c, err := qr.Encode(text, qr.L, qr.Auto)
	if err != nil {
		return nil
	}
	size := c.Bounds().Dx()
	var b strings.Builder
	for y := range size {
		for x := 0; x < size; x++ {
			from := x
			for x < size && c.At(x, y) == color.Black {
				x++
			}
			if x > from {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from+quiet, y+quiet, x-from, x-from)
			}
		}
	}
	return &qrCode{Size: size + 2*quiet, Path: b.String()}
}
