package livepeer

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// built is the agent, which all tests share; TestMain takes it away.
var built struct {
	sync.Mutex
	directory string
}

// buildAgent gives the agent's binary, built by the first who asks.
func buildAgent(t *testing.T) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.directory != "" {
		return filepath.Join(built.directory, "agent")
	}
	directory, err := os.MkdirTemp("", "banmesh-livepeer-")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(directory, "agent")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "../../cmd/agent").CombinedOutput(); err != nil {
		os.RemoveAll(directory)
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	built.directory = directory
	return binary
}
