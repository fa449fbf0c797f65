package frame

import "fmt"

// Return codes of a CONNACK (MQTT 3.1.1, table 3.1), and the two reason codes
// of MQTT 5 that a refusal needs.
const (
	Accepted           byte = 0
	RefusedVersion     byte = 1
	RefusedIdentifier  byte = 2
	RefusedUnavailable byte = 3
	RefusedPassword    byte = 4
	RefusedAuthorized  byte = 5
	RefusedVersion5    byte = 0x84
)

// Protocol levels.
const (
	Level31   byte = 3
	Level311  byte = 4
	Level5    byte = 5
	bridgeBit byte = 0x80 // a mosquitto bridge says so in the level
)

// Flags of a CONNECT (section 3.1.2.3).
const (
	FlagClean    byte = 0x02
	FlagWill     byte = 0x04
	flagWillQoS  byte = 0x18
	flagWillKeep byte = 0x20
	flagPassword byte = 0x40
	flagUser     byte = 0x80
)

// A Connection is the content of a CONNECT. Its slices alias the frame.
type Connection struct {
	Level     byte // without the bridge bit
	Bridge    bool // a mosquitto bridge
	Clean     bool
	Will      bool
	Keepalive uint16 // seconds; 0 means none
	ClientID  []byte
	User      []byte
	HasUser   bool
	Password  []byte
	WillTopic []byte
	WillQoS   byte
	// LevelAt and FlagsAt are the offsets of the protocol level and of the
	// connect flags in the body.
	LevelAt, FlagsAt int
}

// ParseConnect reads the body of a CONNECT of MQTT 3.1.1. For another known
// protocol level it gives only that level, so that the refusal can be in the
// client's own protocol.
func ParseConnect(h Header, body []byte) (c Connection, err error) {
	if h.Type != Connect || h.Flags != 0 {
		return c, fmt.Errorf("%w: the first packet is not CONNECT", ErrProtocol)
	}
	r := reader{b: body}
	name := string(r.text())
	c.LevelAt = 2 + len(name)
	c.FlagsAt = c.LevelAt + 1
	level := r.u8()
	c.Level, c.Bridge = level&^bridgeBit, level&bridgeBit != 0
	switch {
	case r.err != nil:
		return c, r.err
	case name == "MQIsdp" && c.Level == Level31, name == "MQTT" && c.Level == Level5:
		return c, nil
	case name != "MQTT":
		return c, fmt.Errorf("%w: protocol %.16q", ErrProtocol, name)
	case c.Level != Level311:
		return c, nil
	}
	flags := r.u8()
	c.Keepalive = r.u16()
	c.ClientID = r.text()
	c.Clean, c.Will, c.WillQoS = flags&FlagClean != 0, flags&FlagWill != 0, flags&flagWillQoS>>3
	switch {
	case flags&1 != 0, c.WillQoS == 3, !c.Will && flags&(flagWillQoS|flagWillKeep) != 0, flags&flagUser == 0 && flags&flagPassword != 0:
		r.fail("wrong connect flags")
	}
	if c.Will {
		c.WillTopic = r.text()
		r.bytes()
	}
	if flags&flagUser != 0 {
		c.User, c.HasUser = r.text(), true
	}
	if flags&flagPassword != 0 {
		c.Password = r.bytes()
	}
	return c, r.end()
}
