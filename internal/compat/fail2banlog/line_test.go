package fail2banlog

import (
	"testing"

	"banmesh/internal/ban"
)

func TestLinesThatSayOfABan(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"2026-11-28 00:00:00,123 fail2ban.actions        [4711]: NOTICE  [sshd] Ban 192.0.2.7":                                               "sshd 192.0.2.7 ",
		"2026-11-28 00:00:00,123 fail2ban.actions        [4711]: NOTICE  [nginx-http-auth] Restore Ban 2001:db8::7":                          "nginx-http-auth 2001:db8::7 ",
		"2026-11-28 00:00:00,123 fail2ban.observer       [4711]: NOTICE  [sshd] Increase Ban 192.0.2.7 (2 # 2:00:00 -> 2026-11-28 02:00:00)": "sshd 192.0.2.7 02:00",
		"2026-11-28 00:00:00,123 fail2ban.actions        [4711]: NOTICE  [sshd] Unban 192.0.2.7":                                             "",
		"2026-11-28 00:00:00,123 fail2ban.actions        [4711]: WARNING [sshd] 192.0.2.7 already banned":                                    "",
		"2026-11-28 00:00:00,123 fail2ban.filter         [4711]: INFO    [sshd] Found 192.0.2.7 - 2026-11-28 00:00:00":                       "",
		"2026-11-28 00:00:00,123 fail2ban.actions        [4711]: NOTICE  [sshd] Ban host.example.org":                                        "",
		"2026-11-28 00:00:00,123 fail2ban.actions        [4711]: NOTICE  [sshd] Ban 0x1111111111111111111111111111111111111111":              "",
		"x 2026-11-28 00:00:00,123 fail2ban.actions        [4711]: NOTICE  [sshd] Ban 192.0.2.7":                                             "",
		"2026-11-28 00:00:00,123 fail2ban.actions        [4711]: ERROR   Failed to execute [sshd] Ban 192.0.2.7":                             "",
		"2026-13-28 00:00:00,123 fail2ban.actions        [4711]: NOTICE  [sshd] Ban 192.0.2.7":                                               "",
	} {
		b, ok := ParseLine([]byte(line))
		got := ""
		if ok {
			got = b.Jail + " " + b.Target.String() + " "
			if !b.End.IsZero() {
				got += b.End.Format("15:04")
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte("2026-11-28 00:00:00,123 fail2ban.actions        [4711]: NOTICE  [sshd] Ban 192.0.2.7"))
	f.Add([]byte("2026-11-28 00:00:00,123 fail2ban.observer       [4711]: NOTICE  [sshd] Increase Ban 192.0.2.7 (2 # 2:00:00 -> 2026-11-28 02:00:00)"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if b, ok := ParseLine(in); ok && (b.Target.IsZero() || b.Target.Kind() == ban.KindWallet || b.Jail == "") {
			t.Errorf("%+v", b)
		}
	})
}
