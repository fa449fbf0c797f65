package settings

import (
	"fmt"
	"regexp"
	"time"

	"banmesh/internal/detect"
	"banmesh/internal/printable"
	"banmesh/topics"
)

// ImportedHead begins each definition that `agent import fail2ban` writes, so
// that a later import knows it for its own.
const ImportedHead = ImportHead + ", which replaces it when it is run again. Own settings belong into agent.toml.\n"

// ImportOrigin is the line below, which says of when a definition is.
var ImportOrigin = regexp.MustCompile(`(?m)^# Jail "(.*)" of "(.*)" as of (\d{4}-\d\d-\d\d)\.( Frozen: .*)?\n`)

// ImportedText is the file of an imported jail.
func ImportedText(dir string, i detect.Imported, now time.Time) []byte {
	origin := fmt.Sprintf("# Jail %q of %q as of %s.", i.Jail, dir, now.Format(time.DateOnly))
	if i.Frozen != "" && !i.Shipped {
		origin += " Frozen: " + printable.Text(i.Frozen) + "."
	}
	body := topics.Format(i.Definition)
	if i.Shipped {
		body = topics.FormatChanges(i.Definition)
	}
	return append([]byte(ImportedHead+origin+"\n"), body...)
}
