package control

// Kinds of names that /v1/names lists, for a shell to complete.
const (
	NamesTopics  = "topics"
	NamesPeers   = "peers"
	NamesBans    = "bans"
	NamesAllowed = "allowed" // targets that nobody may ban
	NamesLists   = "lists"
)
