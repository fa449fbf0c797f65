package detect_test

import (
	"encoding/json"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/detect/filter"
)

// judge runs the installed fail2ban's own filters on lines and prints the matches it
// finds in each: a list of [failregex, who, whether it is none]. Each filter
// runs in a process of its own, because fail2ban's processes share what they
// learn of dates.
const judge = `
import json, logging, os, sys, time
os.environ['TZ'] = 'Europe/Zurich'; time.tzset()
logging.disable(logging.CRITICAL)
from fail2ban.client.filterreader import FilterReader
from fail2ban.server.filter import Filter
from fail2ban.server.mytime import MyTime
MyTime.setTime(1124013600)
def run(q):
    reader = FilterReader(q['name'], 'jail', q['options'], basedir=sys.argv[1])
    reader.read(); reader.getOptions({})
    f = Filter(None)
    f.returnRawHost = f.checkAllRegex = f.active = True
    f.checkFindTime = False
    for o in reader.convert():
        for v in o[3] if o[0] == 'multi-set' else [o[3]]:
            try:
                if o[2] == 'prefregex': f.prefRegex = v
                elif o[2] == 'usedns': f.setUseDns(v)
                elif o[2] == 'maxlines': f.setMaxLines(v)
                elif o[2] == 'addfailregex': f.addFailRegex(v)
                elif o[2] == 'addignoreregex': f.addIgnoreRegex(v)
                elif o[2] == 'datepattern': f.setDatePattern(v)
            except Exception: return None
    out = []
    for line in q['lines']:
        journal = q['options'].get('logtype') == 'journal'
        try: found = f.processLine(('', '2005-08-14T12:00:00', line), 1124013600) if journal else f.processLine(line)
        except Exception: out.append(None)
        else: out.append([[x[0], str(x[1] or ''), bool(x[3].get('nofail'))] for x in found or []])
    return out
for l in iter(sys.stdin.readline, ''):
    child = os.fork()
    if child: os.waitpid(child, 0)
    else: print(json.dumps(run(json.loads(l))), flush=True); os._exit(0)
`

var anAddress = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+`)

// spoil changes a line as logs and attackers do. The address "::" is left out:
// fail2ban took it for one only after 1.0.2.
func spoil(r *rand.Rand, line string, all []string) string {
	pick := func(list ...string) string { return list[r.Intn(len(list))] }
	words := strings.SplitAfter(line, " ")
	for range 1 + r.Intn(3) {
		i := r.Intn(len(words))
		switch r.Intn(8) {
		case 0:
			words = append(append([]string{""}, words[:i]...), words[i+1:]...)
		case 1:
			words = append(words[:i+1:i+1], words[i:]...)
		case 2:
			for k := range words {
				words[k] = anAddress.ReplaceAllString(words[k], pick("2001:db8::1", "::ffff:1.2.3.4", "host.example.com", "1.2.3.4.5", "fe80::1%eth0"))
			}
		case 3:
			words[i] += pick("from 9.8.7.6 ", "for root ", "\t", "  ", "é ", "user ", ": ", "[preauth] ", "invalid user ")
		case 4:
			if i > 3 {
				words[i] = strings.ToUpper(words[i])
			}
		case 5:
			if b := []byte(words[i]); len(b) > 0 && i > 3 {
				b[r.Intn(len(b))] = pick(" ", ":", "[", "]", "(", ")", "<", ">", "=", "\"", "'", ",", ";", "-", "_", "/", "x")[0]
				words[i] = string(b)
			}
		case 6:
			words = words[:i+1]
		case 7:
			other := strings.SplitAfter(all[r.Intn(len(all))], " ")
			words = append(words[:i+1:i+1], other[r.Intn(len(other)):]...)
		}
	}
	return strings.ToValidUTF8(strings.Join(words, ""), "")
}

func TestSpoiltLinesAreJudgedAsTheInstalledFail2banJudgesThem(t *testing.T) {
	config, tests := places(t)
	const python = "/usr/bin/python3" // which Debian's package is for
	if err := exec.Command(python, "-c", "import fail2ban.server.filter").Run(); err != nil {
		t.Skipf("the installed fail2ban cannot be asked: %v", err)
	}
	zone, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Fatal(err)
	}
	peer := exec.CommandContext(t.Context(), python, "-c", judge, config)
	peer.Stderr = os.Stderr
	in, err := peer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := peer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.Start(); err != nil {
		t.Fatal(err)
	}
	questions, answers := json.NewEncoder(in), json.NewDecoder(out)
	names, err := filepath.Glob(filepath.Join(config, "filter.d", "*.conf"))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewSource(7))
	lines, matched, different := 0, 0, 0
	const each = 50
	for _, path := range names {
		name := strings.TrimSuffix(filepath.Base(path), ".conf")
		b, err := os.ReadFile(filepath.Join(tests, "files", "logs", name))
		if err != nil || strings.HasPrefix(name, "domino") {
			continue // common parts; and the one that may never answer
		}
		var samples []string
		for _, l := range strings.Split(strings.ToValidUTF8(string(b), "\uFFFD"), "\n") {
			if l = strings.TrimRight(l, "\r"); l != "" && l[0] != '#' {
				samples = append(samples, l)
			}
		}
		var spoilt []string
		for i := range each {
			if len(samples) > 0 {
				spoilt = append(spoilt, spoil(r, samples[i%len(samples)], samples))
			}
		}
		for _, options := range []map[string]string{{}, {"mode": "aggressive"}, {"logtype": "journal"}} {
			if err := questions.Encode(map[string]any{"name": name, "options": options, "lines": spoilt}); err != nil {
				t.Fatal(err)
			}
			var theirs [][][]any
			if err := answers.Decode(&theirs); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if theirs == nil {
				continue // an option that the filter does not know
			}
			ours := judged(t, config, name, options, spoilt, zone)
			for i, line := range spoilt {
				if theirs[i] == nil {
					continue // fail2ban failed on it
				}
				lines++
				if len(ours[i]) > 0 {
					matched++
				}
				a, _ := json.Marshal(ours[i])
				b, _ := json.Marshal(theirs[i])
				if !strings.EqualFold(string(a), string(b)) {
					different++
					t.Errorf("%s %v: %q:\n got %s\nwant %s", name, options, line, a, b)
				}
			}
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := peer.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d lines judged by both, %d with offences; %d differently", lines, matched, different)
	if lines < 10_000 || matched < 1_000 {
		t.Errorf("only %d lines with %d matches were compared", lines, matched)
	}
}

func judged(t *testing.T, config, name string, options map[string]string, lines []string, zone *time.Location) [][][]any {
	spec := name
	for k, v := range options {
		spec += "[" + k + "=" + v + "]"
	}
	read, err := f2bconf.ReadFilter(config, spec, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := filter.Compile(detect.FilterOf(read))
	if err != nil {
		t.Fatal(err)
	}
	follower, err := f.Follow(dates.Options{Now: func() time.Time { return suiteNow }, Location: zone})
	if err != nil {
		t.Fatal(err)
	}
	follower.All = true
	var at time.Time
	if options["logtype"] == "journal" {
		at = suiteNow
	}
	out := make([][][]any, len(lines))
	for i, l := range lines {
		out[i] = [][]any{}
		for _, m := range follower.Line([]byte(l), at, nil) {
			nofail, _ := m.Fields.Get("nofail")
			out[i] = append(out[i], []any{m.Rule, m.ID, nofail != ""})
		}
	}
	return out
}
