// Package federation shares bans over MQTT brokers that nobody has to trust:
// the codec of signed messages, keys and certificates, feeds and how they
// converge, and the session that speaks to brokers. docs/protocol.md describes
// the protocol for those who write another implementation.
package federation
