package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestTheProgramIsWhatItIsCalled(t *testing.T) {
	for _, tt := range []struct {
		called string
		args   []string
		code   int
		want   []string // parts of its output
		not    []string
	}{
		{"banmesh", []string{"--help"}, 0, []string{"  banmesh run ", "  banmesh topics subscribe sshd", "  broker ", "banmesh [flags]"}, []string{"  agent run"}},
		{"banmesh", []string{"--version"}, 0, []string{"banmesh unknown\n"}, nil},
		{"banmesh", []string{"broker", "--help"}, 0, []string{"  banmesh broker run ", "banmesh broker [command]"}, []string{"--state-dir", "  broker run"}},
		{"banmesh", []string{"help", "broker", "status"}, 0, []string{"banmesh broker status"}, nil},
		{"banmesh", []string{"broker", "--version"}, 0, []string{"banmesh broker unknown\n"}, nil},
		{"banmesh", []string{"broker", "statsu"}, 2, []string{"banmesh broker: error: ", "did you mean `banmesh broker status`?"}, nil},
		{"banmesh", []string{"stauts"}, 2, []string{"banmesh: error: ", "did you mean `banmesh status`?"}, nil},
		{"banmesh", []string{"status", "--socket", "/nonexistent"}, 10, []string{"hint: start it with `banmesh run`"}, []string{"`agent run`"}},
		{"banmesh", []string{"__complete", "broker", "sta"}, 0, []string{"status"}, nil},
		{"banmesh", []string{"__complete", "bro"}, 0, []string{"broker"}, nil},
		{"banmesh", []string{"__complete", "broker"}, 0, []string{"broker"}, nil},
		{"banmesh", []string{"__complete", "topics", "sub"}, 0, []string{"subscribe"}, nil},
		{"banmesh", []string{"topics", "subscribe", "--help"}, 0, []string{"banmesh topics subscribe"}, []string{"agent topics subscribe"}},
		{"agent", []string{"--help"}, 0, []string{"  agent run "}, []string{"banmesh run"}},
		{"agent", []string{"status", "--socket", "/nonexistent"}, 10, []string{"hint: start it with `agent run`"}, nil},
		{"banmesh-broker", []string{"--help"}, 0, []string{"  broker run "}, nil},
		{"broker", []string{"--version"}, 0, []string{"broker unknown\n"}, nil},
		{"broker", []string{"__complete", "sta"}, 0, []string{"status"}, nil},
	} {
		t.Run(tt.called+" "+strings.Join(tt.args, " "), func(t *testing.T) {
			var out bytes.Buffer
			code := run(t.Context(), tt.called, tt.args, nil, &out, &out)
			if code != tt.code {
				t.Errorf("exit code %d, want %d:\n%s", code, tt.code, &out)
			}
			for _, part := range tt.want {
				if !strings.Contains(out.String(), part) {
					t.Errorf("%q is missing in:\n%s", part, &out)
				}
			}
			for _, part := range tt.not {
				if strings.Contains(out.String(), part) {
					t.Errorf("%q stands in:\n%s", part, &out)
				}
			}
		})
	}
}
