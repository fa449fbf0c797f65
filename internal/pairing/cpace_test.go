package pairing

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/gtank/ristretto255"
)

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func scalar(t *testing.T, text string) *ristretto255.Scalar {
	t.Helper()
	s, err := ristretto255.NewScalar().SetCanonicalBytes(unhex(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Appendix B.3 of draft-irtf-cfrg-cpace-21.
func TestTheExchangeIsThatOfTheDraft(t *testing.T) {
	code, channel := []byte("Password"), []byte("\x0bA_initiator\x0bB_responder")
	sid := unhex(t, "7e4b4791d6a8ef019b936c79fb7f2c57")
	ya, yb := scalar(t, "da3d23700a9e5699258aef94dc060dfda5ebb61f02a5ea77fad53f4ff0976d08"), scalar(t, "d2316b454718c35362d83d69df6320f38578ed5984651435e2949762d900b80d")
	same := func(name string, got []byte, want string) {
		t.Helper()
		if !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%s is %x, want %s", name, got, want)
		}
	}
	same("the generator", generator(code, channel, sid).Bytes(), "222b6b195fe84b1652badb6f6a3ae3d24341e7306967f0b8115b40d5698c7e56")
	a, b := share(ya, code, channel, sid), share(yb, code, channel, sid)
	same("Ya", a, "d6bac480f2c386c394efc7c47adb9925dcd2630b64f240c50f8d0eec482b9157")
	same("Yb", b, "3ea7e0b19560d7c0b0f5734f63b955286dfa8232b5ebe63324e2d9e7433f7258")
	for _, side := range []struct {
		secret *ristretto255.Scalar
		other  []byte
	}{{ya, b}, {yb, a}} {
		k, err := secretElement(side.secret, side.other)
		if err != nil {
			t.Fatal(err)
		}
		same("K", k, "80b69a8a76457ab6a4d7f887a4bf6b55a2f80ac19c333f917a05fc9887c8b40f")
		key := sessionKey(sid, k, a, []byte("ADa"), b, []byte("ADb"))
		same("the key", key[:], "b69effbf61b51d56401c0f65601abe428de8206feaaf0e32198896dcae7b35cd2b38950a39dfd5d4a79164614c2984f7daa460b588c1e80c3fa2068af7900447")
	}
	s := scalar(t, "7cd0e075fa7955ba52c02759a6c90dbbfc10e6d40aea8d283e407d88cf538a05")
	k, err := secretElement(s, unhex(t, "2c3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c"))
	if err != nil {
		t.Fatal(err)
	}
	same("a product", k, "7c13645fe790a468f62c39beb7388e541d8405d1ade69d1778c5fe3e7f6b600e")
	for _, bad := range []string{"2b3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c", strings.Repeat("00", 32), ""} {
		if k, err := secretElement(s, unhex(t, bad)); err == nil {
			t.Errorf("%q is taken for a share and gives %x", bad, k)
		}
	}
}

func TestLengthsAreWrittenInSevens(t *testing.T) {
	for n, head := range map[int]string{0: "00", 127: "7f", 128: "8001", 300: "ac02"} {
		if got := appendWithLength(nil, make([]byte, n)); !bytes.HasPrefix(got, unhex(t, head)) || len(got) != n+len(head)/2 {
			t.Errorf("%d bytes begin with %x, want %s", n, got[:2], head)
		}
	}
}
