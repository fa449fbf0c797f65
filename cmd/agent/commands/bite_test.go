package commands

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/firewall/testnet"
)

// nginxConf is of one server; %[1]s is its directory, %[2]s its address and %[3]s
// the rest of the http block.
const nginxConf = `
daemon off;
master_process off;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { }
http {
  access_log %[1]s/access.log combined;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  %[3]s
}
`

func startNginx(t *testing.T, address, rest string) (log string) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	testnet.Must(t, os.WriteFile(filepath.Join(dir, "htpasswd"), []byte("honest:{PLAIN}secret\n"), 0o644))
	testnet.Must(t, os.WriteFile(conf, fmt.Appendf(nil, nginxConf, dir, address, fmt.Sprintf(rest, dir, address)), 0o644))
	c := exec.Command("nginx", "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", conf)
	testnet.Must(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return filepath.Join(dir, "access.log")
}

// TestABanBehindAProxyIsToldNotToBite has a real nginx behind another one on a second
// host: the application names its client, and the kernel meets the proxy's
// packets alone.
func TestABanBehindAProxyIsToldNotToBite(t *testing.T) {
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Skip("nginx is not here")
	}
	const app, proxy, offender = "198.18.0.1", "198.18.0.2", "203.0.113.66"
	t.Parallel()
	testnet.Enter(t)
	host := testnet.Attach(t, "proxy", []string{app + "/24"}, []string{proxy + "/24", offender + "/32"})
	log := startNginx(t, app+":80", `set_real_ip_from `+proxy+`; real_ip_header X-Forwarded-For;
  server { listen %[2]s; location / { auth_basic "private"; auth_basic_user_file %[1]s/htpasswd; } }`)
	host.Do(func() {
		startNginx(t, proxy+":80", `upstream app { server `+app+`:80; keepalive 4; }
  server { listen %[2]s; location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr; } }`)
	})
	node := newWalkNode(t, `
[topics.nginx]
detect = true
files = ["`+log+`"]
corroborate = "off"
`)
	guess := func() int {
		status := 0
		host.Do(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(offender)}, Timeout: patience}
			conn, err := d.Dial("tcp", proxy+":80")
			if err != nil {
				return // it does not listen yet
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			r, err := http.NewRequest(http.MethodGet, "http://"+proxy+"/", http.NoBody)
			testnet.Must(t, err)
			r.SetBasicAuth("root", "guess")
			r.Close = true
			testnet.Must(t, r.Write(conn))
			b := make([]byte, 12)
			if n, _ := conn.Read(b); n == len(b) {
				fmt.Sscanf(string(b), "HTTP/1.1 %d", &status)
			}
		})
		return status
	}
	node.until("the proxy passes requests on", func() bool { return guess() == http.StatusUnauthorized })
	node.until("the offender is banned", func() bool {
		guess()
		return node.is(offender) == "ban" && node.dropped(offender)
	})
	// It goes on as if there were no ban, from the sixth second on as a warning.
	var warning string
	node.until("status warns", func() bool {
		if guess() != http.StatusUnauthorized {
			t.Fatal("the ban bites")
		}
		out, _, err := node.do("", "status", "--json")
		var s control.Status
		if err != nil || json.Unmarshal([]byte(out), &s) != nil {
			return false
		}
		for _, w := range s.Warnings {
			if w.Code == "ban-does-not-bite" {
				warning = w.Text + "; " + w.Fix
			}
		}
		time.Sleep(50 * time.Millisecond) // so many guesses a second
		return warning != ""
	})
	for _, want := range []string{
		"nginx: ", " offences of " + offender + " are dated after its ban", "the service's connections come from " + proxy + ", which passes them on",
		`"An application behind a proxy on another machine" in docs/recipes.md`,
	} {
		if !strings.Contains(warning, want) {
			t.Errorf("status: %s\nlacks %s", warning, want)
		}
	}
	if out, _, _ := node.do("", "explain", offender); !strings.Contains(out, "after its ban") || !strings.Contains(out, "come from "+proxy) {
		t.Errorf("explain: %s", out)
	}
	if out, _, _ := node.do("", "doctor"); !strings.Contains(out, offender) {
		t.Errorf("doctor: %s", out)
	}
	if !strings.Contains(node.log.String(), "ban does not bite") {
		t.Error("the log does not say so")
	}
}
