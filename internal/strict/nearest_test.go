package strict

import (
	"reflect"
	"slices"
	"testing"
)

func TestTheNameThatIsMeantIsFound(t *testing.T) {
	names := []string{"maxretry", "findtime", "bantime", "ban", "url", "others", "sshd"}
	for wrong, want := range map[string]string{
		"max_retry": "maxretry", "Max-Retry": "maxretry", "bantym": "bantime", "other": "others", "ssh": "sshd", "bna": "ban", "colour": "", "": "",
	} {
		if got := Nearest(wrong, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", wrong, got, want)
		}
	}
}

func TestKeysAreThoseOfEveryTable(t *testing.T) {
	type base struct {
		Ban string `toml:"ban,omitempty"`
	}
	type table struct {
		base
		Ports []uint16 `toml:"ports"`
	}
	type file struct {
		Topics map[string]table `toml:"topics"`
		Other  *table           `toml:"other"`
	}
	if got := Keys(reflect.TypeFor[file]()); !slices.Equal(got, []string{"topics", "ban", "ports", "other", "ban", "ports"}) {
		t.Errorf("%q", got)
	}
}
