package booted

import (
	"testing"
	"time"
)

func TestAMachineDoesOneCommandAfterTheOther(t *testing.T) {
	t.Parallel()
	m := New(t).Start(time.Minute, "")
	if out := m.Must("hostnamectl status --static >/dev/null 2>&1; systemctl show -P SystemState; echo $HOME > /tmp/kept; cat"); out != "running\n" && out != "degraded\n" {
		t.Errorf("the first command said %q", out)
	}
	if out, code := m.Do("cat /tmp/kept; echo no >&2; exit 7"); out != "/root\nno\n" || code != 7 {
		t.Errorf("the second said %q and ended with %d", out, code)
	}
}
