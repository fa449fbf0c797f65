package broker

import (
	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/retained"
)

// publication queues a publication for the session with an identifier of its
// own. The caller holds mu. It gives false where nothing more can be queued.
func (o *outbound) publication(f *encoded, qos byte) bool {
	id, v := o.identify(f, qos)
	if v == queue {
		if o.buf == nil {
			o.buf = takeBuffer()
		}
		e, at := f.as(qos), len(o.buf)
		o.buf = append(o.buf, e.bytes...)
		o.numbered(at, e.id, id)
	}
	return v != stop
}

// appendRetained queues a retained message. It is encoded in place: it is large, and
// nobody else gets the same bytes now. The caller holds mu.
func (o *outbound) appendRetained(m *retained.Message, qos byte) bool {
	f := encode(m.Topic, m.Payload, m.QoS, true)
	id, v := o.identify(&f, qos)
	if v == queue {
		at := len(o.buf)
		var place int
		o.buf, place = frame.AppendPublish(o.buf, m.Topic, m.Payload, qos, true)
		o.numbered(at, place, id)
	}
	return v != stop
}

// numbered counts the publication that begins at an offset of buf, and sets
// its identifier, which is at a place in it, or nowhere (-1).
func (o *outbound) numbered(at, place int, id uint16) {
	o.queued += len(o.buf) - at
	if place >= 0 {
		o.buf[at+place], o.buf[at+place+1] = byte(id>>8), byte(id)
	}
}

// The ways of a publication.
type verdict byte

const (
	queue verdict = iota
	skip          // there is no room for it in the session
	stop          // too much is pending for the client
)

// identify gives a publication its identifier, and keeps it where the session
// outlives the connection.
func (o *outbound) identify(f *encoded, qos byte) (id uint16, v verdict) {
	s := o.c.session
	switch {
	case s == nil:
		return 0, stop
	case qos == 0:
		return 0, queue
	case qos == 2 || !s.clean:
		id, ok := s.keep(f, qos)
		if !ok {
			o.c.b.count.dropped.Inc()
			return 0, skip
		}
		return id, queue
	case o.c.unacked.Add(1) > maxUnacked:
		return 0, stop
	}
	o.nextID++
	if o.nextID > maxFastID {
		o.nextID = 1
	}
	return o.nextID, queue
}

// An encoded publication is made once for all who receive it, in each quality
// of service that one of them needs.
type encoded struct {
	topic   string
	payload []byte
	qos     byte // of the publication
	retain  bool
	forms   [3]form
}

// A form is a PUBLISH and the offset of its identifier, or -1.
type form struct {
	bytes []byte
	id    int
}

func encode(topic string, payload []byte, qos byte, retain bool) encoded {
	return encoded{topic: topic, payload: payload, qos: qos, retain: retain}
}

// as gives the form for a quality of service.
func (f *encoded) as(qos byte) form {
	w := &f.forms[qos]
	if w.bytes == nil {
		w.bytes, w.id = frame.AppendPublish(make([]byte, 0, len(f.topic)+len(f.payload)+16), f.topic, f.payload, qos, f.retain)
	}
	return *w
}
