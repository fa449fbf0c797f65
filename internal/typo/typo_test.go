package typo

import "testing"

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
