package daemons

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

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
  server {
    listen %[2]s:%[3]s;
    server_name www.example.org;
    root %[1]s/www;
    location / {
      auth_basic "private";
      auth_basic_user_file %[1]s/htpasswd;
    }
  }
}
`

func runNginx(t *testing.T) (port, errors, access string) {
	t.Helper()
	program := installed(t, "nginx")
	dir := place(t)
	port = freePort(t)
	write(t, filepath.Join(dir, "htpasswd"), "honest:{PLAIN}secret\n")
	write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(nginxConf, dir, server, port))
	start(t, dir, program, "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", filepath.Join(dir, "nginx.conf"))
	return port, filepath.Join(dir, "error.log"), filepath.Join(dir, "access.log")
}

// ask sends a request as it is and gives the status.
func ask(t *testing.T, from, port, request string) int {
	t.Helper()
	conn := dial(t, from, port)
	defer conn.Close()
	fmt.Fprint(conn, request)
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	return r.StatusCode
}

func TestNobodyButTheClientIsBlamedByNginx(t *testing.T) {
	t.Parallel()
	port, errors, access := runNginx(t)
	logins := 0
	for _, name := range append([]string{
		`x", client: ` + framed + `, server: y`,
		`x": password mismatch, client: ` + framed + `, server: y, request: "GET / HTTP/1.1", host: "a`,
		`x" was not found in "/x", client: ` + framed + `, server: `,
		"admin with blanks",
		"honest",
	}, names...) {
		if strings.Contains(name, ":") {
			name = strings.ReplaceAll(name, ":", ";") // ends the name in Basic
		}
		status := ask(t, attacker, port, "GET /p HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic "+encoded(name+":wrong")+"\r\n\r\n")
		if status != http.StatusUnauthorized {
			t.Fatalf("%q: status %d", name, status)
		}
		logins++
	}
	for _, text := range []string{
		framed + ` - - [21/Nov/2026:09:14:02 +0000] "\x16\x03" 400 157 "-" "-"`,
		`user "x": password mismatch, client: ` + framed + `, server: y, request: "GET / HTTP/1.1", host: "z"`,
		"x\", client: " + framed + ", server: y",
	} {
		for _, request := range []string{
			"GET /" + strings.ReplaceAll(text, " ", "%20") + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: x\r\nReferer: " + text + "\r\nUser-Agent: " + text + "\r\nConnection: close\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: " + framed + "\r\nX-Real-IP: " + framed + "\r\nConnection: close\r\n\r\n",
			text + "\r\n\r\n",
		} {
			ask(t, attacker, port, request)
		}
	}
	text := logged(t, errors, "was not found in", logins-1)
	onlyTheAttacker(t, "nginx", text, logins)
	requests := logged(t, access, attacker+" - ", logins+9)
	got := blamed(t, "nginx", requests)
	delete(got, attacker)
	if len(got) > 0 {
		t.Errorf("the access log blames %v\n%s", got, requests)
	}
}
