package pattern

import "testing"

func TestAnExpressionThatAClientCanMoveIsFound(t *testing.T) {
	const sshd = `^ ?(?:\S+ )?(?:sshd|sshd-session)(?:\[\d+\])?: (?:error: |fatal: )?<F-CONTENT>.+</F-CONTENT>$`
	for _, c := range []struct {
		name, prefix, source string
		field                string // "" where nobody can move it
	}{
		{"fixed to the end", "", `^Failed password for <F-USER>.*</F-USER> from <ADDR> port \d+(?: ssh\d*)?$`, ""},
		{"fixed to the end, behind a prefix", sshd, `^Failed password for <F-USER>.*</F-USER> from <ADDR> port \d+(?: ssh\d*)?$`, ""},
		{"nothing before it that repeats", "", `^<ADDR> - \S+ \[\] "GET [^"]*" 401 `, ""},
		{"numbers and a host before it", "", `^ \[error\] \d+#\d+: \*\d+ no user, client: <ADDR>, server: .*`, ""},
		{"a reason that a client may have written", "", `^User <F-USER>.*</F-USER> from <ADDR> not allowed because shell \S+ does not exist$`, "<user>"},
		{"a reason of the machine's own", "", `^User <F-USER>.*</F-USER> from <ADDR> not allowed because shell <F-OWN>\S+</F-OWN> does not exist$`, ""},
		{"a reason of one's own that is a text", "", `^User <F-USER>.*</F-USER> from <ADDR> because <F-OWN>.+</F-OWN>$`, "<user>"},
		{"a reason without the separator", "", `^passwd-file\(<F-USER>.*</F-USER>,<ADDR>\): unknown user[^,]*$`, "<user>"},
		{"words on both sides", "", `^login of \S+ from <ADDR> by \S+$`, ""},
		{"open to the right", "", `^Failed password for <F-USER>.*</F-USER> from <ADDR>`, "<user>"},
		{"open to the right, lazy", "", `^Failed password for .*? from <ADDR> port`, ".*?"},
		{"no space is no help", "", `^user=<<F-USER>[^>]*</F-USER>>, rip=<ADDR>, lip=`, "<user>"},
		{"one word is no help", "", `user \w+ at <ADDR>$`, ""},
		{"one word that goes on", "", `^user \w+ at <ADDR>`, `\w+`},
		{"text after it", "", `^login of .* from <ADDR>: .*$`, ".*"},
		{"text after it that may hold another", "", `^login of .* from <ADDR> by [^:]+$`, ".*"},
		{"text after it that may not, of a client's too", "", `^login of .* from <ADDR> by [^ ]+$`, ".*"},
		{"not held to the start", "", `Failed authentication from <ADDR>: reason .*$`, ""},
		{"the end is one of several lines", "", `(?m)^login of .* from <ADDR>$`, ".*"},
		{"an optional end", "", `^login of .* from <ADDR>(?:$| )`, ".*"},
		{"a prefix that lets text before the content", `^.*sshd: <F-CONTENT>.+</F-CONTENT>$`, `^bad <ADDR> x`, ".*"},
		{"a prefix that goes on after the content", sshd[:len(sshd)-1] + ` .*$`, `^Failed for .* from <ADDR>$`, ".*"},
		{"not held to the content's start", sshd, `from <ADDR>: .*$`, "the start of the line"},
		{"what the line repeats holds it", "", `^for (?P<user>.*) from <ADDR>(?::\d{1,5})?: bad password \[name: (?P=user)\]$`, ""},
		{"what the line repeats in a rest of any length", "", `^for (?P<user>.*) from <ADDR>(?::\d{1,5})?: .* \[name: (?P=user)\]$`, "<user>"},
		{"a host name that the program looked up", "", `^from <F-HOSTNAME>[\w.-]+</F-HOSTNAME>\[<ADDR>\]: .*$`, ""},
		{"a host name that holds more", "", `^from <F-HOSTNAME>[^\[]+</F-HOSTNAME>\[<ADDR>\]: .*$`, "<hostname>"},
		{"a tag with a part that varies", `^ ?(?:\S+ )?postfix(?:-\w+)?/(?:\w+/)?smtpd(?:\[\d+\])?: <F-CONTENT>.+</F-CONTENT>$`, `^bad from <ADDR>: .*$`, ""},
		{"a word that is no tag", "", `^login \w+ from <ADDR> .*$`, `\w+`},
		{"a word of text and a part", "", `^user-\w+ from <ADDR> .*$`, `\w+`},
		{"three words", "", `^\S+ \S+ \S+ <ADDR> .*$`, `\S+`},
		{"a text that stands once in the line", "", `^user "<F-USER>(?:(?!, client: ).)*</F-USER>", client: <ADDR>, server: (?:(?!, client: ).)*$`, ""},
		{"another text that stands once", "", `^user "<F-USER>(?:(?!, client: ).)*</F-USER>", client: <ADDR>, server: (?:(?!, server: ).)*$`, "<user>"},
		{"a text that stands once before it", "", `^user "<F-USER>(?:(?!, client: ).)*</F-USER>", client: <ADDR>, server: .*$`, "<user>"},
		{"in a loop", "", `^(?:from <ADDR> )+x`, ""},
	} {
		re, err := Compile(c.source, Options{NoNames: true})
		if err != nil {
			t.Fatal(err)
		}
		var prefix *Regex
		if c.prefix != "" {
			if prefix, err = Compile(c.prefix, Options{}); err != nil {
				t.Fatal(err)
			}
		}
		list := re.Weaknesses(prefix)
		field, open := "", false
		for _, w := range list {
			field, open = w.Field, open || w.Open
		}
		switch {
		case c.name == "not held to the start", c.name == "one word is no help":
			if c.name == "not held to the start" && !open {
				t.Errorf("%s: %+v", c.name, list)
			}
		case c.name == "in a loop":
			if len(list) == 0 {
				t.Errorf("%s: %+v", c.name, list)
			}
		case field != c.field:
			t.Errorf("%s: %+v, want %q", c.name, list, c.field)
		}
	}
}
