package doctor

// words are the sentence and the general command of each check that can be wrong while no
// warning of the status says so. They go into messages, so they name no log, host or user.
var words = map[string]struct{ title, mend string }{
	"config":    {"The configuration's files have a fault; the agent goes on with those before.", "agent check, then agent reload"},
	"readable":  {"The service's user may not read a file of the configuration.", "agent doctor names it, and the command"},
	"import":    {"Jails of fail2ban are not as they were imported.", "agent import fail2ban --dry-run, then without --dry-run"},
	"clock":     {"Nobody synchronises this machine's clock.", "timedatectl set-ntp true"},
	"table":     {"The firewall's table is gone, or is not the first to see packets.", "agent firewall check"},
	"boot":      {"Firewall rules that are loaded at boot stand in the way of bans.", "agent doctor names them, and the command"},
	"log":       {"A log that is read had not a line.", "is it the right log? files or journal in agent.toml"},
	"never-ban": {"The never-ban list is empty.", "agent reload"},
	"broker":    {"A broker is not connected, or none is configured.", "agent status; the broker's log"},
	"policy":    {"Bans of a topic are accepted, and nobody is trusted in it.", "agent peers add NAME ID"},
	"peer":      {"A peer is not heard, or claimed an address that must never be banned.", "agent peers; agent feeds"},
	"agent":     {"The agent does not answer.", "journalctl -u banmesh-agent -n 20"},
}

// Words gives the sentence and the general command of a check that is wrong.
func Words(check string) (title, mend string) {
	w, ok := words[check]
	if !ok {
		return "Something is wrong with this node.", "agent doctor"
	}
	return w.title, w.mend
}
