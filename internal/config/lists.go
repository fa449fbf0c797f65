package config

// List is a public list of addresses. It counts by a rule of its own, and nothing of
// it is published.
type List struct {
	// File is where the list is on this machine; or else
	File string `toml:"file" sample:"'/srv/lists/drop.txt'"`
	// URL is where `agent fetch` gets it.
	URL string `toml:"url" sample:"'https://www.spamhaus.org/drop/drop_v4.json'"`
	// Allow lets it come by "http", without encryption, or from a "private" address.
	Allow []string `toml:"allow" sample:"['private']"`
	// Every is how often its server is asked, at least 15m; default "6h".
	Every Text `toml:"every" sample:"'6h'"`
	// Format is "lines", "json", "dshield", "ipsum" or "csv"; by default it is found out.
	Format string `toml:"format" sample:"'lines'"`
	// Column is the CSV column (a name or a number) or the JSON key with the address.
	Column string `toml:"column" sample:"'ipAddress'"`
	// Score is the column or key with a score, of which at least Minimum is taken. A list
	// of ipsum's has it without a name.
	Score   string  `toml:"score" sample:"'abuseConfidenceScore'"`
	Minimum float64 `toml:"minimum" sample:"3"` // the least score that is taken
	// Topics are those in which it counts.
	Topics []string `toml:"topics" sample:"['sshd']"`
	// Rule is "watch" (default: the first offence here bans), "suspect" or "ban".
	Rule string `toml:"rule" sample:"'watch'"`
	// For is how long an entry counts after the list was last confirmed: by default "48h"
	// for one with a URL, "30d" for a file.
	For Text `toml:"for" sample:"'48h'"`
	// MaxEntries is how many entries count at most, the first ones; default 100000.
	MaxEntries int `toml:"max_entries" sample:"100000"`
	// MaxChange is by how many percent of itself it may grow or shrink at once; beyond that
	// it waits for `agent lists approve`. Default 50.
	MaxChange int `toml:"max_change" sample:"50"`
	// Prefix lists the widest prefixes accepted; default v4/16 and v6/32.
	Prefix []string `toml:"prefix" sample:"['v4/16', 'v6/32']"`
}

// Fetch says where `agent fetch` leaves the lists that have an address.
type Fetch struct {
	// Spool is the directory.
	Spool string `toml:"spool" sample:"'/var/lib/banmesh-fetch'"`
}
