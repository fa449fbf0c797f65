package strict

import "testing"

func TestEachKeyHasItsLine(t *testing.T) {
	p := Places{}
	p.Note("a.toml", []byte("network = \"x\"\n[[brokers]]\nurl = \"1\"\n\n[[brokers]]\n  url = \"2\"\n[topics.sshd]\nban.for = 1\n"))
	p.Note("b.toml", []byte("[[brokers]]\nurl = \"3\"\n"))
	for path, want := range map[string]Place{
		"network": {"a.toml", 1, 1, 7}, "brokers.0.url": {"a.toml", 3, 1, 3}, "brokers.1.url": {"a.toml", 6, 3, 3}, "brokers.2.url": {"b.toml", 2, 1, 3},
		"brokers.1.others": {"a.toml", 5, 3, 7}, "topics.sshd.ban.for": {"a.toml", 8, 1, 7}, "topics.sshd.watch": {"a.toml", 7, 2, 11},
	} {
		if got, ok := p.Find(path); !ok || got != want {
			t.Errorf("%s is at %v, want %v", path, got, want)
		}
	}
	if got, ok := p.Find("users.bob"); ok {
		t.Errorf("what no file says is at %v", got)
	}
}
