// Package federation shares bans over MQTT brokers that nobody has to trust: the
// node's own feeds, those that it follows and how they converge, and the session
// that speaks to brokers.
package federation
