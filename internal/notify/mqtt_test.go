package notify

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// runMosquitto starts Debian's broker with one user, and gives its address.
func runMosquitto(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("mosquitto is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	l.Close()
	dir := t.TempDir()
	passwords := filepath.Join(dir, "passwords")
	if out, err := exec.Command("mosquitto_passwd", "-b", "-c", passwords, "home", secret).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	conf := filepath.Join(dir, "mosquitto.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous false\npassword_file %s\nuser root\nlog_dest none\n", port, passwords)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "-c", conf)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatal("mosquitto does not listen")
		}
	}
}

func TestARealBrokerHandsOnMessages(t *testing.T) {
	t.Parallel()
	address := runMosquitto(t)
	o := mqtt.NewClientOptions().AddBroker("tcp://" + address).SetClientID("reader").SetUsername("home").SetPassword(secret).SetProtocolVersion(4)
	reader := mqtt.NewClient(o)
	if x := reader.Connect(); x.Wait() && x.Error() != nil {
		t.Fatal(x.Error())
	}
	defer reader.Disconnect(0)
	got := make(chan mqtt.Message, 2)
	if x := reader.Subscribe("home/banmesh", 1, func(_ mqtt.Client, m mqtt.Message) { got <- m }); x.Wait() && x.Error() != nil {
		t.Fatal(x.Error())
	}
	e := &Entry{Name: "x", Type: MQTT, URL: "tcp://" + address, To: []string{"home/banmesh"}, User: "home", TokenFile: secretFile(t, secret), On: []Kind{Ban}, Every: DefaultEvery}
	if faults := e.Check(); len(faults) > 0 {
		t.Fatal(faults)
	}
	r, err := newReceiver(e)
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := r.send(t.Context(), example(e)); err != nil || answer != address+" acknowledged it" {
		t.Fatalf("%q, %v", answer, err)
	}
	m := <-got
	var d document
	if err := json.Unmarshal(m.Payload(), &d); err != nil || m.Qos() != 1 || m.Retained() || d.Kind != Ban || d.Notices[0].Target.String() != "203.0.113.7" || strings.Contains(string(m.Payload()), "Failed password") {
		t.Errorf("%s, %v", m.Payload(), err)
	}
	e.TokenFile = secretFile(t, "another-secret")
	if r, err = newReceiver(e); err != nil {
		t.Fatal(err)
	}
	if _, err := r.send(t.Context(), example(e)); err == nil || strings.Contains(err.Error(), "another-secret") {
		t.Errorf("a wrong password: %v", err)
	}
}

// A broker that takes the connection and says nothing, or something else.
func TestABrokerThatMisbehavesIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{"silence": "", "another protocol": "SSH-2.0-x\r\n", "a huge packet": "\x30\xff\xff\xff\x7f", "a refusal": "\x20\x02\x00\x05"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Read(make([]byte, 1024))
			_, _ = c.Write([]byte(says))
			_, _ = c.Read(make([]byte, 1024))
		}()
		e := &Entry{Name: "x", Type: MQTT, URL: "tcp://" + l.Addr().String(), To: []string{"home"}}
		r, err := newReceiver(e)
		if err != nil {
			t.Fatal(err)
		}
		r.(*broker).within = 200 * time.Millisecond
		if answer, err := r.send(t.Context(), example(e)); err == nil {
			t.Errorf("%s: %q", name, answer)
		}
		l.Close()
		<-served
	}
}
