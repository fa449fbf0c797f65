package main

// An engine is the cost of a broker's work, as `make bench-broker` measures it
// on a busy machine of two cores: QoS 1, 300 bytes, one publication at a time, which is
// the dearest way to deliver. Many in flight cost a tenth of it at ours. Filters
// of mosquitto and nats-server are assumed, not measured.
type engine struct {
	name       string
	delivery   float64 // CPU seconds of one delivery
	login      float64 // CPU seconds of a TLS login with a filter
	connection float64 // bytes of a TLS connection
	filter     float64 // bytes of a filter that others have, too
	threads    float64 // processors that one server uses; 0 means all
	index      bool    // tells those who come back which states changed
}

var (
	ours      = engine{name: "banmesh", delivery: 15e-6, login: 0.66e-3, connection: 46e3, filter: 140, index: true}
	mosquitto = engine{name: "mosquitto", delivery: 11e-6, login: 0.95e-3, connection: 17e3, filter: 140, threads: 1}
	nats      = engine{name: "nats-server", delivery: 50e-6, login: 1.15e-3, connection: 104e3, filter: 1000}
)

// Bytes of the protocol, as federation's tests and `make bench-broker` measure them.
const (
	// deliveryBytes is a publication of 300 bytes on the wire: MQTT, TCP, IP and
	// TLS included.
	deliveryBytes = 369 + 40 + 29
	// banBytes is a ban in a small feed's head.
	banBytes = 16
	// returnShare is the part of a join that a node hears again when it comes back
	// to a broker that has an index of states.
	returnShare = 0.005
	// feedOverhead is a broker's memory for a retained message
	// beside its payload: topic and bookkeeping.
	feedOverhead = 400
	// loginTime is how long agents take to come back, in seconds: ten seconds of
	// goodbyes and a delay of 1 to 10 seconds of their own.
	loginTime = 20
)
