package commands

import (
	"slices"
	"strings"
	"testing"
)

func TestTheLinesThatTwoTextsDifferIn(t *testing.T) {
	for _, c := range []struct{ old, now, want string }{
		{"a\nb\nc\n", "a\nb\nc\n", ""},
		{"a\nb\nc\n", "a\nx\nc\n", "-b +x"},
		{"", "a\n", "+a"},
		{"a\nb\n", "b\nc\n", "-a +c"},
		{"a\na\nb\n", "a\nb\nb\n", "-a +b"},
	} {
		if got := difference(c.old, c.now); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%q to %q: %q, want %s", c.old, c.now, got, c.want)
		}
	}
	// A change beyond the bound is shown all the same.
	padded := strings.Repeat("# x\n", maxCompared+1)
	if got := difference(padded+"a\n"+padded, padded+"b\n"+padded); !slices.Equal(got, []string{"-a", "+b"}) {
		t.Errorf("behind much that is equal: %q", got)
	}
	if got := difference("a\n"+padded+"b\n", "c\n"+padded+"d\n"); !slices.Contains(got, "-b") || !slices.Contains(got, "+d") {
		t.Errorf("around more than is compared: %d lines lack the last", len(got))
	}
	long := strings.Repeat("x\n", 3*maxCompared)
	if got := difference(long, long); len(got) != 0 {
		t.Errorf("equal long texts differ in %d lines", len(got))
	}
}

// A published definition of a topic that this program ships is laid over it: the effect
// that is told is that of both.
func TestTheEffectOfAPublishedDefinitionIsTheOneThatItWillHaveHere(t *testing.T) {
	o := offered{Topic: "sshd", By: "alice", text: []byte("name = \"sshd\"\ntarget = \"ip\"\n[detect]\nfiles = [\"/var/log/door.log\"]\n[[detect.rule]]\nclass = \"auth\"\nregex = ['^no from <ADDR>$']\n")}
	o.prove()
	if o.Fault == "" || !strings.Contains(o.Fault, "sample") {
		t.Errorf("with the shipped samples, which it does not find: %q", o.Fault)
	}
	o = offered{Topic: "sshd", By: "alice", text: []byte("name = \"sshd\"\ntarget = \"ip\"\n[enforce]\nports = [\"2222\"]\nprotocols = [\"tcp\"]\n")}
	if o.prove(); o.Fault != "" {
		t.Error(o.Fault)
	}
	var told strings.Builder
	if err := printConsequences(&told, o); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"closes     tcp 2222\n", "changes    the shipped definition of sshd", "journal    _UID=0", "ban        after 5", "guests     who logs in"} {
		if !strings.Contains(told.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, told.String())
		}
	}
	o = offered{Topic: "games", By: "alice", text: []byte("name = \"door\"\ntarget = \"ip\"\n[enforce]\nall_ports = true\n")}
	if _, err := o.definition(); err == nil || !strings.Contains(err.Error(), `it is about "door"`) {
		t.Errorf("another topic's: %v", err)
	}
}
