package wire

import (
	"errors"
	"strings"
	"testing"
)

const refusedTopic = "banmesh/1/net/operators/aaaaaaaaaaaaaaaaaaaaaaaaaa/card"

func TestANoticeOfARefusalReadsBackAndNothingElseDoes(t *testing.T) {
	good := Refusal{Reason: "quota", Topic: refusedTopic, Count: 3}
	b, err := AppendRefusal(nil, good)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseRefusal(b); err != nil || got != good {
		t.Fatalf("%s reads as %+v, %v", b, got, err)
	}
	for _, bad := range []string{
		"", "{}", "null", `{"reason":"quota"}`, string(b) + "x", string(b) + "{}",
		strings.Replace(string(b), "quota", "because", 1),
		strings.Replace(string(b), `"count":3`, `"count":0`, 1),
		strings.Replace(string(b), `"count":3`, `"count":3,"more":1`, 1),
		strings.Replace(string(b), refusedTopic, "x\\u202e", 1),
		string(b) + strings.Repeat(" ", MaxRefusal),
	} {
		if got, err := ParseRefusal([]byte(bad)); !errors.Is(err, ErrRefusal) {
			t.Errorf("%s reads as %+v", bad, got)
		}
	}
}

func FuzzRefusal(f *testing.F) {
	b, err := AppendRefusal(nil, Refusal{"quota", refusedTopic, 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRefusal(b)
		if err != nil {
			return
		}
		again, err := AppendRefusal(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseRefusal(again); err != nil || got != r {
			t.Fatalf("%+v reads back as %+v, %v", r, got, err)
		}
	})
}
