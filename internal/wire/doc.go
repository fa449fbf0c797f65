// Package wire is the protocol's codec: names, signed messages, cards,
// documents, invitations and logins, as docs/protocol.md describes them for
// those who write another implementation. It opens no file and no connection.
package wire
