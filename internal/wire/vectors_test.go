package wire

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
)

var update = flag.Bool("update", false, "rewrite the test vectors")

// vectorsFile is read by implementations in other languages too.
const vectorsFile = "../../testdata/vectors/messages.json"

// A vector is a payload, where it was found, and its verdict.
type vector struct {
	Name    string       `json:"name"`
	Meaning string       `json:"meaning"`
	Topic   string       `json:"topic"` // the MQTT topic; "" for an invitation
	Payload string       `json:"payload"`
	Refused string       `json:"refused,omitempty"` // size, format, misplaced or signature
	Message *Description `json:"message,omitempty"`
}

type vectorsText struct {
	Comment   []string          `json:"comment"`
	Keys      map[string]string `json:"keys"`
	States    []vectorState     `json:"states"`
	Logins    []vectorLogin     `json:"logins"`
	Vectors   []vector          `json:"vectors"`
	Operators map[string]string `json:"operators"`
}

// A vectorState is a set of claims and its fingerprint.
type vectorState struct {
	Meaning     string           `json:"meaning"`
	Claims      []DescribedClaim `json:"claims"`
	Fingerprint string           `json:"fingerprint"`
}

type vectorLogin struct {
	Meaning  string `json:"meaning"`
	Client   string `json:"client"`
	User     string `json:"user"`
	Password string `json:"password"`
	Broker   string `json:"broker"`
	At       int64  `json:"at"`
	Good     bool   `json:"good"`
}

func makeVectors(t *testing.T) vectorsText {
	out := vectorsText{
		Comment: []string{
			"Test vectors of the Banmesh protocol, version 1. docs/protocol.md says what the fields mean.",
			"Keys are Ed25519 seeds: SHA-256 of the name. Payloads are hex. A vector with 'refused' must be refused for that reason, or an earlier one of size, format, misplaced, signature.",
		},
		Keys: map[string]string{}, Operators: map[string]string{},
	}
	for _, k := range []string{"root", "node", "other"} {
		out.Keys[k] = hex.EncodeToString(testKey(k).Seed())
	}
	root, node := testKey("root"), testKey("node")
	f := testFeed("sshd", root, node)
	out.Operators["root"] = f.Operator.String()
	msgs := testMessages(t)
	names := make([]Name, 0, len(msgs))
	for n := range msgs {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b Name) int { return cmp.Compare(a.Kind, b.Kind) })
	for _, n := range names {
		b := msgs[n]
		add := func(name, meaning, topic string, payload []byte, refused string) {
			v := vector{Name: name, Meaning: meaning, Topic: topic, Payload: hex.EncodeToString(payload), Refused: refused}
			if refused == "" {
				m, err := Open(n, payload)
				if err != nil {
					t.Fatal(err)
				}
				d := m.Describe()
				v.Message = &d
			}
			out.Vectors = append(out.Vectors, v)
		}
		k := n.Kind.String()
		add(k, "a valid "+k, n.String(), b, "")
		flipped := bytes.Clone(b)
		flipped[len(flipped)-1] ^= 1
		add(k+" with a changed last bit", "the signature covers every byte", n.String(), flipped, "signature")
		add(k+" cut off in its header", "", n.String(), b[:80], "format")
		moved := n
		moved.Operator = testFeed("sshd", testKey("other"), node).Operator
		add(k+" of another operator", "the MQTT topic names another operator than the header", moved.String(), b, "misplaced")
		if n.OfNode() {
			moved = n
			moved.Topic = "livepeer"
			add(k+" in another topic", "a message for sshd found at livepeer", moved.String(), b, "misplaced")
			moved = n
			moved.Network = "jellyfin"
			add(k+" in another network", "", moved.String(), b, "misplaced")
			h, body, err := InspectBody(n, b)
			if err != nil {
				t.Fatal(err)
			}
			why := "format"
			if n.Kind == KindHead {
				why = "signature" // a byte behind the body of a head is a state's, which is not signed
			}
			add(k+" with a byte too many", "signed, but the body has one byte left over", n.String(), Seal(node, h, append(bytes.Clone(body), 0)), why)
			if n.Kind == KindHead {
				state := []Entry{{Key: ban.KeyOf(ban.MustTarget("192.0.2.1")), End: Minutes(testTime) + 60}}
				add("head with a state", "entries behind the signed head, which nobody signed", n.String(), AppendState(b, state), "")
				add("head with an empty state", "a state has entries", n.String(), append(bytes.Clone(b), 0), "format")
				add("head with a state cut off", "", n.String(), AppendState(b, state)[:len(b)+3], "format")
			}
		}
	}
	h := Header{Kind: KindDelta, Network: "livepeer", Topic: "sshd", Operator: f.Operator, Epoch: 7, Number: 12, Issued: testTime}
	at := FeedName("livepeer", f, KindDelta, 0).String()
	before := string(make([]byte, 36))
	for _, c := range []struct{ name, body string }{
		{"delta with targets out of order", before + "\x02\x01\x02\x09\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"},
		{"delta with an unmasked prefix", before + "\x00\x01\x04\x01\xc0\x00\x02\x01\x18"},
		{"delta with IPv4 in IPv6", before + "\x00\x01\x02\x01" + string(make([]byte, 10)) + "\xff\xff\x01\x02\x03\x04"},
		{"delta with a base above the least end", before + "\x01\x01\x01\x05\x00\x00\x00\x00\x01\x01\x00\x00\x00"},
		{"delta with a long form of a number", before + "\x80\x00\x00"},
	} {
		out.Vectors = append(out.Vectors, vector{
			Name: c.name, Meaning: "signed, but not in canonical form", Topic: at, Payload: hex.EncodeToString(Seal(node, h, []byte(c.body))), Refused: "format",
		})
	}
	stolen := &Head{N: 12, TTL: 3 * time.Hour, GC: minutesUp(testTime), Count: 7, Ring: 16, SnapshotN: 3, SnapshotGC: minutesUp(testTime), Stolen: true}
	sealed := Seal(node, Header{Kind: KindHead, Network: "livepeer", Topic: "sshd", Operator: f.Operator, Epoch: 8, Number: 1, Issued: testTime}, stolen.Append(nil))
	if m, err := Open(FeedName("livepeer", f, KindHead, 0), sealed); err != nil {
		t.Fatal(err)
	} else {
		d := m.Describe()
		out.Vectors = append(out.Vectors, vector{
			Name: "head of a stolen key", Meaning: "nothing of the node is to be believed any more", Topic: m.Name.String(), Payload: hex.EncodeToString(sealed), Message: &d,
		})
	}
	out.Vectors = append(out.Vectors, vector{Name: "empty", Meaning: "an erased retained message says nothing", Topic: at, Refused: "size"})
	m, err := Open(names[1], msgs[names[1]])
	if err != nil {
		t.Fatal(err)
	}
	state := vectorState{Meaning: "the claims of the valid delta", Claims: m.Describe().Claims}
	state.Fingerprint = describeFingerprint(m.Body.(*Delta).Up)
	out.States = []vectorState{{Meaning: "no claims", Claims: []DescribedClaim{}, Fingerprint: describeFingerprint(nil)}, state, manyClaims()}
	pass := LoginPassword(node, f.Operator, "broker.example.org", testTime.Add(10*time.Minute))
	login := vectorLogin{"a valid login", f.Node.String(), f.Operator.String(), pass, "broker.example.org", testTime.Unix(), true}
	out.Logins = append(out.Logins, login)
	login.Meaning, login.Good, login.At = "the same, later", false, testTime.Add(time.Hour).Unix()
	out.Logins = append(out.Logins, login)
	login = out.Logins[0]
	login.Meaning, login.Good, login.Client = "the same, of another node", false, ban.NodeOf([]byte("x")).String()
	out.Logins = append(out.Logins, login)
	return out
}

func describeFingerprint(es []Entry) string {
	f := FingerprintOf(es)
	return hex.EncodeToString(f[:])
}

// manyClaims is a state whose tree has branches: a leaf that is full and one
// that has an entry more.
func manyClaims() vectorState {
	var claims []ban.Claim
	for i := range 2*LeafEntries + 1 {
		a := netip.AddrFrom4([4]byte{198, 51, byte(100 + i/LeafEntries%2), byte(i % LeafEntries)})
		t, err := ban.TargetOfAddr(a)
		if i == 2*LeafEntries {
			t, err = ban.TargetOfPrefix(netip.MustParsePrefix("2001:db8:5::/64"))
		}
		if err != nil {
			panic(err)
		}
		claims = append(claims, ban.Claim{Target: t, End: testTime.Add(time.Duration(i) * time.Minute), Class: ban.ClassScan, Hits: uint8(i), Basis: ban.Basis(i % 4)})
	}
	es := SortClaims(claims, testTime)
	d := Description{}
	d.ops(es, nil)
	return vectorState{Meaning: "more claims than a leaf of the tree holds", Claims: d.Claims, Fingerprint: describeFingerprint(es)}
}

func TestVectorsAreWhatTheCodecWrites(t *testing.T) {
	made, err := json.MarshalIndent(makeVectors(t), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	made = append(made, '\n')
	if *update {
		if err := os.MkdirAll(filepath.Dir(vectorsFile), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorsFile, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, made) {
		t.Error("the messages that this version writes are not those of the vectors; if that is meant, run with -update")
	}
	var v vectorsText
	if err := json.Unmarshal(kept, &v); err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Vectors {
		payload, err := hex.DecodeString(c.Payload)
		if err != nil {
			t.Fatal(err)
		}
		n, err := ParseTopicName(c.Topic)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Open(n, payload)
		want := map[string]error{"": nil, "size": ErrSize, "format": ErrFormat, "misplaced": ErrMisplaced, "signature": ErrSignature}[c.Refused]
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", c.Name, err, want)
		}
		if err == nil {
			d := m.Describe()
			a, _ := json.Marshal(d)
			b, _ := json.Marshal(c.Message)
			if !bytes.Equal(a, b) {
				t.Errorf("%s: %s, want %s", c.Name, a, b)
			}
		}
	}
}

// TestAnotherDecoderAgrees runs the decoder in test/federation, which shares
// nothing with this one but docs/protocol.md, over the vectors.
func TestAnotherDecoderAgrees(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	out, err := exec.Command(python, "../../test/federation/decoder.py", vectorsFile).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
