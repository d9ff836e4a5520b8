package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postseal/postseal/policy/delegation"
)

// nameServer is a server that knows null.test, which takes no mail.
func nameServer(t *testing.T) (address string) {
	t.Helper()
	pc, err := listenDNS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc.LocalAddr().String()
}

func listenDNS() (net.PacketConn, error) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		if q.Question[0].Name == "null.test." && q.Question[0].Qtype == dns.TypeMX {
			rr, _ := dns.NewRR("null.test. 300 MX 0 .")
			m.Answer = append(m.Answer, rr)
		} else {
			// RFC 2308 §5: how long an absence lasts.
			rr, _ := dns.NewRR(". 300 SOA a.test. b.test. 1 300 300 300 300")
			m.Ns = append(m.Ns, rr)
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	return pc, nil
}

// wholeDaemon runs a daemon with everything but Postfix until the test ends. Its
// sockets are socketmap and delegation in the folder.
func wholeDaemon(t *testing.T, text string) (d *daemon, dir string, drain context.CancelFunc, ended <-chan struct{}) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("PATH", dir) // no postconf
	path := filepath.Join(dir, "postseal.toml")
	config := strings.ReplaceAll(fmt.Sprintf(`%s
[socketmap]
listen = ["unix:DIR/socketmap"]
[delegation]
listen = ["unix:DIR/delegation"]
unix_mode = "0600"
[milter]
listen = []
[http]
listen = []
[control]
listen = ""
[resolver]
servers = ["%s"]
[cache]
path = "DIR/postseal.db"
[ledger]
path = "DIR/ledger.db"
`, text, nameServer(t)), "DIR", dir)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	life, end := context.WithCancel(context.Background())
	serving, drain := context.WithCancel(life)
	d, err := newDaemon(life, &globalOptions{configPath: path, configSet: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d.serving = serving
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.run(serving); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { drain(); d.cutConnections(); <-done; end() })
	eventually(t, "sockets", func() bool {
		d.sockets.mu.Lock()
		defer d.sockets.mu.Unlock()
		return len(d.sockets.open) == 2
	})
	return d, dir, drain, done
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	return c
}

// exchange sends a request and reads the answer with its empty line.
func exchange(t *testing.T, c net.Conn, request string) string {
	t.Helper()
	if _, err := c.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err == nil {
		_, err = r.ReadString('\n')
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

const reservingConfig = `
[[senders.allow]]
login = ["news"]
from = ["news@ours.test"]
`

// TestPOL05_DaemonServes: many requests on one connection to the whole daemon; and at
// the end it answers for as long as the socketmap is drained, and no longer.
func TestPOL05_DaemonServes(t *testing.T) {
	d, dir, drain, ended := wholeDaemon(t, reservingConfig)
	c := dial(t, filepath.Join(dir, "delegation"))
	refused := policyRequest(delegation.Rcpt, "alice", "192.0.2.7", "news@ours.test", "u@partner.test")
	for _, tt := range [][2]string{
		{refused, "action=550 5.7.1 postseal: sender-not-allowed: login alice may not use the sender news@ours.test"},
		{policyRequest(delegation.Rcpt, "news", "192.0.2.7", "news@ours.test", "u@null.test"), "action=556 5.1.10 postseal: the domain null.test takes no mail (null MX, RFC 7505)"},
		{policyRequest(delegation.Rcpt, "", "192.0.2.7", "news@ours.test", "u@null.test"), "action=DUNNO"},
		{policyRequest(delegation.EndOfMessage, "alice", "192.0.2.7", "news@ours.test", ""), "action=DUNNO"},
		{"nonsense\n\n", "action=DUNNO"},
		{refused, "action=550 5.7.1 postseal: sender-not-allowed: login alice may not use the sender news@ours.test"},
	} {
		if got := exchange(t, c, tt[0]); got != tt[1] {
			t.Errorf("%q\ngot  %s\nwant %s", tt[0], got, tt[1])
		}
		if strings.HasPrefix(tt[0], "nonsense") {
			c = dial(t, filepath.Join(dir, "delegation"))
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "delegation")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	socketmap := dial(t, filepath.Join(dir, "socketmap"))
	eventually(t, "the connection of smtp(8)", func() bool { return d.socketmap.Conns() == 1 })
	drain()
	for range 2 {
		if got := exchange(t, dial(t, filepath.Join(dir, "delegation")), refused); !strings.HasPrefix(got, "action=550 5.7.1 ") {
			t.Error(got)
		}
	}
	select {
	case <-ended:
		t.Fatal("ended with a connection of smtp(8)")
	default:
	}
	socketmap.Close()
	await(t, "the end, although smtpd(8) holds connections", ended)
}

// TestPOL05_DaemonEndsAtOnce: no drain is waited for.
func TestPOL05_DaemonEndsAtOnce(t *testing.T) {
	d, dir, drain, ended := wholeDaemon(t, "")
	for _, name := range []string{"delegation", "socketmap"} {
		dial(t, filepath.Join(dir, name))
	}
	eventually(t, "connections", func() bool { return d.socketmap.Conns()+d.delegated.Conns() == 2 })
	drain()
	d.cutConnections()
	await(t, "the end", ended)
}

// TestPOL05_ListenTakenOut: a reload that takes the socket away lets the connections
// of that moment go on.
func TestPOL05_ListenTakenOut(t *testing.T) {
	d, dir, _, _ := wholeDaemon(t, reservingConfig)
	c := dial(t, filepath.Join(dir, "delegation"))
	refused := policyRequest(delegation.Rcpt, "alice", "192.0.2.7", "news@ours.test", "u@partner.test")
	exchange(t, c, refused)
	path := filepath.Join(dir, "postseal.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), fmt.Sprintf("listen = [%q]", "unix:"+dir+"/delegation"), "listen = []", 1)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.reload(); err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, c, refused); !strings.HasPrefix(got, "action=550 5.7.1 ") {
		t.Error(got)
	}
	c.Close()
	eventually(t, "the end of the socket", func() bool {
		d.sockets.mu.Lock()
		defer d.sockets.mu.Unlock()
		return len(d.sockets.leaving) == 0
	})
}
