package api

import (
	"cmp"
	"slices"

	"banmesh/internal/control"
)

// A Condition is a kind of thing that can be wrong with a node. The set is
// closed: [Conditions] lists them all, docs/warnings.md is checked against it,
// and a [control.Warning] is made of one of them alone.
type Condition struct {
	Code     string // stable, for scripts and alerts
	Title    string // a sentence without the particulars
	Severity string // one of the Severity words of package control
	Mend     string // the command or the step that ends it, in general
}

// The conditions, by part.
var (
	Configuration = Condition{"configuration", "The newest configuration is refused, and the one before it is in force.", control.SeverityHigh, "agent check, then agent reload"}
	Undone        = Condition{"config", "The configuration asks for things that this node does not do.", control.SeverityLow, "agent check lists them"}

	NotEnforcing    = Condition{"not-enforcing", "Bans are computed and not enforced.", control.SeverityHigh, "run the agent as root, or with CAP_NET_ADMIN as its systemd unit does"}
	BansLeft        = Condition{"bans-left", "The kernel enforces bans that this agent does not keep.", control.SeverityHigh, "agent firewall flush, or agent firewall panic while another agent runs"}
	FirewallOff     = Condition{"firewall-off", "Enforcement was switched off by hand.", control.SeverityHigh, "agent firewall resume"}
	FirewallFull    = Condition{"firewall-full", "The kernel holds as many bans as max_bans allows.", control.SeverityHigh, "raise max_bans in [firewall], or accept from fewer operators"}
	FirewallRefuses = Condition{"firewall", "The firewall refuses writes.", control.SeverityHigh, "agent firewall check"}
	FirewallPending = Condition{"firewall-pending", "Bans wait to be written to the firewall.", control.SeverityLow, "nothing: the write is repeated every second"}
	NoCounters      = Condition{"no-counters", "The kernel's counters cannot be read.", control.SeverityLow, "agent firewall check"}
	NoTracking      = Condition{"no-tracking", "The kernel tracks no connections, so none is limited or remembered.", control.SeverityHigh, "modprobe nf_conntrack; then restart the agent"}

	NoHoneyports = Condition{"no-honeyports", "Honeyports are configured and not watched.", control.SeverityLow, "modprobe nft_redir nft_socket nft_fib_inet; then restart the agent"}
	MemoryFull   = Condition{"memory-full", "The kernel has no room to remember more connections of a topic.", control.SeverityHigh, "a shorter time to remember: corroborate = \"10m\" in the topic; or less traffic from many addresses at its ports"}

	GateDown = Condition{"gate", "The wallet gate does not answer, and the orchestrator refuses everybody whose webhook it is.", control.SeverityHigh, "systemctl enable --now banmesh-gate.socket; journalctl -u banmesh-gate"}
	GateList = Condition{"gate-list", "The wallet gate does not answer by the newest list.", control.SeverityHigh, "df -h; the file that [gate] names, and who may read it; journalctl -u banmesh-gate"}

	CompatDown = Condition{"compat-down", "A protocol of another program is configured and not spoken.", control.SeverityHigh, "the reason in the text; it is tried again by itself"}

	ListHeld  = Condition{"list-held", "A public list changed more than it may by itself, and its newest edition waits; the one before it counts on.", control.SeverityLow, "agent lists show NAME, then agent lists approve NAME if that is right"}
	ListFault = Condition{"list-fault", "The newest edition of a public list cannot be had or read; the one before it counts until its end.", control.SeverityLow, "agent lists; journalctl -u banmesh-fetch"}
	ListEnded = Condition{"list-ended", "A public list has ended, since nothing confirmed it: nothing of it counts.", control.SeverityHigh, "agent lists; systemctl enable --now banmesh-fetch.timer"}

	VallumdLeftOut = Condition{"vallumd-left-out", "Bans are not told to vallumds, because their sets cannot hold them.", control.SeverityLow, "sets6 in [[vallumd]]; otherwise nothing need be done: they are enforced here"}
	VallumdFull    = Condition{"vallumd-full", "A broker of vallumd's tells more addresses than may count.", control.SeverityLow, "live in [[vallumd]]; agent withdraw --all --by vallumd:NAME"}

	DenialsEnd = Condition{"denials-end", "Own denials of wallets end soon.", control.SeverityLow, "agent denylist list, then agent denylist renew"}

	NeverBanFault = Condition{"never-ban", "The never-ban list may lack entries.", control.SeverityHigh, "the cause is in the text; it is looked for again every few seconds"}
	Pack          = Condition{"pack", "A signed pack has ended or is about to.", control.SeverityLow, "agent allow pack add FILE, with a newer one"}

	Source         = Condition{"source", "A log cannot be read.", control.SeverityHigh, "the log's path and permissions"}
	LogMissing     = Condition{"log-missing", "None of the logs of a topic is there.", control.SeverityLow, "name the log in agent.toml, or agent topics ignore TOPIC"}
	ProxiesHeld    = Condition{"proxies", "The log of a web server names proxies, and nobody behind them can be banned.", control.SeverityLow, "have the web server log its client and not the proxy before it: docs/recipes.md"}
	LogSilent      = Condition{"log-silent", "A service listens at its port, and none of its logs had a line.", control.SeverityHigh, "name the log in agent.toml"}
	NoSource       = Condition{"no-source", "No log is read, so nothing is detected.", control.SeverityHigh, `name the log in agent.toml: [topics.sshd] files = ["/var/log/auth.log"]`}
	ShieldedOnly   = Condition{"shielded", "The offences of a topic name one address that is never banned, so nobody is.", control.SeverityLow, "have the application log its client and not the proxy before it: docs/recipes.md"}
	BanDoesNotBite = Condition{"ban-does-not-bite", "Log lines go on naming an address after its ban.", control.SeverityHigh, "agent explain ADDRESS"}
	NoProof        = Condition{"no-corroboration", "A topic asks the kernel about connections, and the kernel cannot be asked: lines count here, and the bans go out as weak.", control.SeverityLow, `enforce with nftables, or say that the log is believed: corroborate = "off" in the topic`}
	Uncorroborated = Condition{"uncorroborated", "Log lines named addresses that had no connection, and did not count.", control.SeverityLow, `agent explain-line; behind a proxy: corroborate = "off" in the topic`}
	StrayPort      = Condition{"stray-port", "A service is at ports that its topic does not name: a ban does not close them, and the kernel cannot confirm its log.", control.SeverityHigh, "ports = [...] in the topic"}
	Tainted        = Condition{"tainted", "Log lines that a client may have written whole did not count.", control.SeverityLow, "agent status; keep the service up to date"}
	Stalled        = Condition{"stalled", "This node stood still, and weak log lines of that moment count for nobody.", control.SeverityLow, "look for the cause of the pause: memory, disk, a busy host"}
	Behind         = Condition{"behind", "Bans are in force, and the disk has not taken them yet.", control.SeverityHigh, "df -h; look at the disk: dmesg, iostat"}
	Undecided      = Condition{"pending", "Decisions could not be recorded and are kept.", control.SeverityHigh, "df -h; it is tried again by itself"}
	DetectState    = Condition{"detect-state", "Positions in the logs cannot be saved.", control.SeverityHigh, "df -h"}

	NoBroker         = Condition{"no-broker", "No broker answers, so nothing new is shared or heard.", control.SeverityHigh, "the broker's log, and the network between"}
	BrokerRefuses    = Condition{"broker-refuses", "A broker refuses subscriptions of this node.", control.SeverityHigh, "the network's name in agent.toml, or the broker's access rules: docs/broker.md"}
	BrokerKeepsNone  = Condition{"broker-keeps-none", "A broker says why it does not keep messages of this node.", control.SeverityHigh, "the reason that it gives; a second broker in agent.toml makes up for it"}
	BrokerMisbehaves = Condition{"broker-misbehaves", "A broker sends packets that no MQTT broker may send.", control.SeverityHigh, "tell who runs it, and use another broker meanwhile"}
	BrokerLoses      = Condition{"broker-loses", "A broker acknowledges messages and does not keep them.", control.SeverityHigh, "the broker's log and quotas, and whether it admits this operator; a second broker in agent.toml makes up for it"}
	IndexLost        = Condition{"index-lost", "A server of a NATS cluster hands newcomers no new messages.", control.SeverityHigh, "start the server of the cluster that is down; or restart the one that is named, which makes it a new index: docs/broker.md"}
	IndexSole        = Condition{"index-sole", "One server of a NATS cluster feeds every server's index of retained messages.", control.SeverityLow, "restart one of the other servers, which makes it a new index elsewhere: docs/broker.md; a second, independent broker in agent.toml makes up for it"}
	Contended        = Condition{"another-machine", "A broker ends this node's connection again and again: another machine seems to use its keys.", control.SeverityHigh, "stop the other machine; or give this one a key of its own: with this agent stopped, agent key node rotate"}
	Unanswered       = Condition{"unanswered", "A broker does not acknowledge messages of this node.", control.SeverityLow, "the broker's log and load; the connection is made anew after half a minute"}
	Unpublished      = Condition{"publish", "This node's own bans are in force here and not published.", control.SeverityHigh, "df -h; it is tried again every few seconds"}
	Revoked          = Condition{"revoked", "The operator has revoked this node.", control.SeverityHigh, "agent key node rotate, with the agent stopped; then have the new key certified"}
	Certificate      = Condition{"certificate", "The node's certificate has ended, is about to, or is missing.", control.SeverityHigh, "agent key node request > node.request; agent key node certify node.request --dir KEYS > card, where the root key is; agent key node install card"}
	Cloned           = Condition{"cloned", "Another machine writes with this node's key.", control.SeverityHigh, "stop the other machine and restart this agent; or, with this agent stopped, agent key node rotate"}
	KeyReplaced      = Condition{"key-replaced", "Another machine wrote with this node's key, so this node made itself a new one.", control.SeverityHigh, "find out how the key got away: a clone, a backup or a thief; a second time this node falls silent until agent key node rotate"}
	Copied           = Condition{"copied", "This machine started on a copy of another one's state, and is a node of its own.", control.SeverityLow, "nothing; if it took that machine's place: stop it, agent key restore DIR with a backup of its keys"}
	Restarted        = Condition{"feed-restarted", "A feed of this node began again, because brokers held messages that this machine does not know.", control.SeverityLow, "nothing if the state was lost or restored from a backup; otherwise see that no other machine has these keys"}

	FeedEquivocating = Condition{"feed-equivocating", "Two different stories were signed with a peer's key.", control.SeverityHigh, "ask the operator: the key is on two machines, or stolen; its bans of before stay until they end"}
	FeedContested    = Condition{"feed-contested", "Two machines seem to write with a peer's key.", control.SeverityHigh, "ask the operator: a clone or a restored backup runs beside the original, or a thief; agent undo NAME stops believing it meanwhile"}
	FeedStolen       = Condition{"feed-stolen", "A peer's own node says that its key was stolen.", control.SeverityHigh, "ask the operator to revoke the node and to give the machine a new key; its bans of before stay until they end"}
	FeedQuarantined  = Condition{"feed-quarantined", "A peer's feed was beyond a limit of this node: nothing of it counts, and no more is taken.", control.SeverityHigh, "agent peers show NAME; agent undo NAME --release begins anew with it"}
	FeedWithheld     = Condition{"feed-withheld", "The brokers withhold a part of a peer's feed.", control.SeverityHigh, "use a second broker: [[brokers]] in agent.toml"}
	FeedStale        = Condition{"feed-stale", "A peer's feed is silent for longer than its author promises.", control.SeverityLow, "the node is down or the broker withholds it: ask the operator, or use a second broker"}
	FeedTooLarge     = Condition{"feed-too-large", "A peer claims more than the limits allow.", control.SeverityHigh, "agent peers show NAME"}
	PeerHeld         = Condition{"peer-held", "Claims of a peer wait; they are watched meanwhile where the topic's watch rule says so.", control.SeverityLow, "agent hold list, then agent hold approve NAME --for 6h or agent hold reject NAME; it opens by itself after a day"}
	PeerQuarantined  = Condition{"peer-quarantined", "An operator is quarantined: its claims count for nothing.", control.SeverityLow, "agent peers show NAME; agent undo NAME --release"}
	ClaimDisputed    = Condition{"claim-disputed", "A peer says that a target that this node claims should not be banned.", control.SeverityLow, "agent explain TARGET; agent withdraw TARGET --reason mistake if the peer is right"}
	HistoryFault     = Condition{"history", "Events are missing in the history, or cannot be written.", control.SeverityLow, "df -h; it is tried again every few seconds"}
	PeerTooMuch      = Condition{"peer-too-much", "A peer claims more than is kept of one.", control.SeverityLow, "agent hold list; or raise live in the topic's limits"}
	MessagesFail     = Condition{"messages", "Messages to a receiver do not arrive, or are not kept until they do.", control.SeverityLow, "agent notify; agent notify test NAME"}
	FeedUncertified  = Condition{"feed-uncertified", "A peer's card no longer certifies its node.", control.SeverityLow, "ask the operator to renew the node's certificate"}
)

// Conditions gives every condition, by code.
func Conditions() []Condition {
	list := []Condition{
		Configuration, Undone,
		NotEnforcing, BansLeft, FirewallOff, FirewallFull, FirewallRefuses, FirewallPending, NoCounters, NoTracking, MemoryFull, NoHoneyports,
		GateDown, GateList, CompatDown, VallumdLeftOut, VallumdFull, ListHeld, ListFault, ListEnded, DenialsEnd, NeverBanFault, Pack,
		Source, LogMissing, LogSilent, NoSource, ProxiesHeld, ShieldedOnly, BanDoesNotBite, NoProof, Uncorroborated, StrayPort, Tainted, Stalled, Behind, Undecided, DetectState,
		NoBroker, BrokerRefuses, BrokerKeepsNone, BrokerMisbehaves, BrokerLoses, IndexLost, IndexSole, Contended, Unanswered, Unpublished, Revoked, Certificate, Cloned, KeyReplaced, Copied, Restarted,
		FeedEquivocating, FeedContested, FeedStolen, FeedQuarantined, FeedWithheld, FeedStale, FeedTooLarge, FeedUncertified,
		PeerHeld, PeerQuarantined, PeerTooMuch, ClaimDisputed, HistoryFault, MessagesFail,
	}
	slices.SortFunc(list, func(a, b Condition) int { return cmp.Compare(a.Code, b.Code) })
	return list
}

// Warn makes the warning that the condition holds: text has the particulars,
// mend the command with its arguments, or "" for the general one.
func (c Condition) Warn(text, mend string) control.Warning {
	return control.Warning{Code: c.Code, Title: c.Title, Severity: c.Severity, Text: text, Fix: cmp.Or(mend, c.Mend)}
}
