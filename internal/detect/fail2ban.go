package detect

import (
	"fmt"

	"banmesh/internal/detect/filter"
	"banmesh/topics"
)

func fail2banFilter(def *topics.Definition, dir string) (filter.Config, error) {
	return filter.Config{}, fmt.Errorf("topic %s: fail2ban filters are not read yet", def.Name)
}
