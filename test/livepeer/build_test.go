package livepeer

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// built are the programs, which all tests share; TestMain takes them away.
var built struct {
	sync.Mutex
	directory string
}

// build gives a program's binary, built by the first who asks.
func build(t *testing.T, command string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.directory == "" {
		directory, err := os.MkdirTemp("", "banmesh-livepeer-")
		if err != nil {
			t.Fatal(err)
		}
		built.directory = directory
	}
	if binary := filepath.Join(built.directory, command); exists(binary) {
		return binary
	}
	binary, err := Build(t.Context(), built.directory, "../..", command)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func buildAgent(t *testing.T) string { t.Helper(); return build(t, "agent") }
