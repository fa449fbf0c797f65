package suspects

import (
	"fmt"
	"strings"
	"testing"
)

const (
	one = "0xc3c7c4C8f7061B7d6A72766Eee5359fE4F36e61E"
	two = "0x5bE44e23041E93CDF9bCd5A0968524e104e38ae1"
)

// The lines follow go-livepeer's; those with a wallet are as its users
// reported them (issues 2098, 2718 and 3378), with a test's wallet.
func TestAWalletIsCountedByWhatItsLineIsWorth(t *testing.T) {
	for line, want := range map[string]string{
		"Nov 09 21:20:43 i5 livepeer[35130]: E1109 21:20:43.399386   35130 orchestrator.go:185] Error receiving ticket sessionID=828acce4 recipientRandHash=5cf5 senderNonce=5: invalid ticket senderNonce sender=" + one + " nonce=5 highest=6": one + " payment",
		"E0109 21:47:48.069061      22 orchestrator.go:181] manifestID=00d83c9a seqNo=5585 orchSessionID=c6923ca0 clientIP=10.129.127.54 sender=" + one + " Error receiving ticket sessionID=c6923ca0 senderNonce=5: invalid":                    one + " payment",
		"E1121 08:19:58.689960    9781 segment_rpc.go:308] clientIP=192.0.2.7 sender=" + strings.ToLower(two) + ` Could not verify segment creds err="ErrSegSig"`:                                                                                two + " unproven",
		"E1121 08:19:58.689960    9781 stream_orchestrator.go:260] Insufficient balance, stopping stream x for sender " + two:                                                                                                                    two + " payment",
		"E1121 08:19:58.689960    9781 job_orchestrator.go:570] Sig check failed sender=" + two:                                                                                                                                                  two + " unproven",
		// Not errors of a wallet, or no wallet.
		"I1121 08:19:58.689960    9781 segment_rpc.go:90] sender=" + one + " Received segment":                                                     "",
		"E1121 08:19:58.689960    9781 segment_rpc.go:308] clientIP=192.0.2.7 sender=" + one + ` Cannot process manifest err="OrchestratorCapped"`: "",
		"Error receiving ticket sender=" + one + "0":                                                                                               "",
		"Error receiving ticket sender=0x" + strings.Repeat("0", 40):                                                                               "",
		"Error receiving ticket sender=name.eth":                                                                                                   "",
		"Error receiving ticket":                                                                                                                   "",
		"Error receiving ticket senderNonce=5 sender":                                                                                              "",
	} {
		r, err := Read(strings.NewReader(line + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, s := range r.Suspects {
			got = fmt.Sprintf("%s unproven", s.Wallet)
			if s.Payment == 1 {
				got = fmt.Sprintf("%s payment", s.Wallet)
			}
		}
		if got != want || r.Lines != 1 {
			t.Errorf("%s\ncounts %q of %d lines, want %q", line, got, r.Lines, want)
		}
	}
}

func TestTheMostComesFirstAndLinesMayBeLong(t *testing.T) {
	log := strings.Repeat("Error receiving ticket sender="+one+"\n", 2) + strings.Repeat("x", 3*maxLine) + " Error receiving ticket sender=" + one + "\n" +
		strings.Repeat("Error receiving ticket sender="+two+"\n", 3) + "Sig check failed sender=" + one // no line end
	r, err := Read(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(r), fmt.Sprintf("{6 [{%s 0 3} {%s 1 2}] false}", two, one); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWalletsWithoutEndAreCutOff(t *testing.T) {
	var log strings.Builder
	for n := range maxWallets + 1 {
		fmt.Fprintf(&log, "Sig check failed sender=0x%040x\n", n+1)
	}
	r, err := Read(strings.NewReader(log.String()))
	if err != nil || len(r.Suspects) != maxWallets || !r.More {
		t.Errorf("%d wallets, more %v, %v", len(r.Suspects), r.More, err)
	}
}

func FuzzALogIsRead(f *testing.F) {
	f.Add("Error receiving ticket sender=" + one + "\nsendersender=0x\n")
	f.Fuzz(func(t *testing.T, log string) {
		r, err := Read(strings.NewReader(log))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.Suspects {
			if !strings.Contains(strings.ToLower(log), strings.ToLower(s.Wallet)) {
				t.Fatalf("%q names %s", log, s.Wallet)
			}
		}
	})
}
