package blackbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestPFX001_Framing: what the server makes of bytes on the wire. A reply is wanted, or the end of the connection.
func TestPFX001_Framing(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": `floor = "encrypt"`})
	publishPlain(t, "frame.test")
	good := netstring("postseal frame.test")
	for _, c := range []struct{ name, bytes string }{
		{"short_payload", "5:ab,"},
		{"huge_length", "99999999:"},
		{"huger_length", "99999999999999999999999999999999999:"},
		{"negative", "-1:a,"},
		{"plus", "+5:a b.c,"},
		{"leading_zero", "05:a b.c,"},
		{"double_zero", "00:,"},
		{"no_digits", ":a b.c,"},
		{"no_comma", "19:postseal frame.test;"},
		{"over_10000", "10001:" + strings.Repeat("a", 10001) + ","},
		{"letters", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"tls_hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		{"space_before_length", " " + good},
		{"newline_after", good + "\n"},
		{"space_before_colon", "19 :postseal frame.test,"},
		{"hex", "0x13:postseal frame.test,"},
		{"good_then_bad", good + "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := d.in(t)
			conn := d.dial()
			if _, err := io.WriteString(conn, c.bytes); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(c.bytes, good) {
				if reply, err := conn.read(); err != nil || reply != "OK encrypt" {
					t.Errorf("the good question before: %q, %v", reply, err)
				}
			} else if c.name == "short_payload" {
				conn.Conn.(*net.TCPConn).CloseWrite()
			}
			rest, err := io.ReadAll(conn.in)
			if len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %q, %v; want the end", rest, err)
			}
		})
	}
	t.Run("well_formed", func(t *testing.T) {
		t.Parallel()
		d := d.in(t)
		for text, want := range map[string]string{
			"postseal frame.test": "OK encrypt", "postseal ": notFound, " frame.test": notFound, "postseal  frame.test": notFound,
			"postseal a b c": notFound, "postseal " + strings.Repeat("k", 9991): notFound,
		} {
			conn := d.dial()
			fmt.Fprint(conn, netstring(text))
			if got, err := conn.read(); got != want || err != nil {
				t.Errorf("%.40q: %q, %v", text, got, err)
			}
		}
	})
	t.Run("no_space", func(t *testing.T) {
		t.Parallel()
		d := d.in(t)
		conn := d.dial()
		fmt.Fprint(conn, netstring("postseal"))
		if got, err := conn.read(); err == nil && got != notFound && !strings.HasPrefix(got, "PERM ") {
			t.Errorf("%q", got)
		}
	})
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		d := d.in(t)
		conn := d.dial()
		fmt.Fprint(conn, "0:,")
		if got, err := conn.read(); err == nil && got != notFound && !strings.HasPrefix(got, "PERM ") {
			t.Errorf("%q", got)
		}
	})
	t.Cleanup(func() {
		if got := d.ask("postseal", "frame.test"); got != "OK encrypt" {
			t.Errorf("afterwards: %q", got)
		}
	})
}

// TestPFX001_Connections: several questions per connection in any cut, and very many connections.
func TestPFX001_Connections(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": `floor = "encrypt"`})
	publishPlain(t, "conn.test")
	publishPlain(t, "wait.test")
	truth.publish(t, "_mta-sts.wait.test TXT !delay=500ms")
	t.Run("pipelined", func(t *testing.T) {
		conn := d.dial()
		const n = 2000
		go fmt.Fprint(conn, strings.Repeat(netstring("postseal conn.test")+netstring("postseal .x"), n))
		for i := range 2 * n {
			want := [...]string{"OK encrypt", notFound}[i%2]
			if got, err := conn.read(); got != want || err != nil {
				t.Fatalf("reply %d: %q, %v", i, got, err)
			}
		}
	})
	t.Run("slow_first_keeps_order", func(t *testing.T) {
		conn := d.dial()
		fmt.Fprint(conn, netstring("postseal wait.test")+netstring("postseal .x"))
		for _, want := range []string{"OK encrypt", notFound} {
			if got, err := conn.read(); got != want || err != nil {
				t.Fatalf("%q, %v; want %q", got, err, want)
			}
		}
	})
	t.Run("byte_by_byte", func(t *testing.T) {
		conn := d.dial()
		for range 3 {
			for _, b := range []byte(netstring("postseal conn.test")) {
				if _, err := conn.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := conn.read(); got != "OK encrypt" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
		}
	})
	t.Run("half_closed", func(t *testing.T) {
		conn := d.dial()
		fmt.Fprint(conn, netstring("postseal conn.test"))
		_ = conn.Conn.(*net.TCPConn).CloseWrite()
		if got, err := conn.read(); got != "OK encrypt" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	})
	t.Run("gone_before_the_answer", func(t *testing.T) {
		for range 50 {
			conn := d.dial()
			fmt.Fprint(conn, netstring("postseal wait.test"))
			conn.Close()
		}
		if got := d.ask("postseal", "conn.test"); got != "OK encrypt" {
			t.Errorf("%q", got)
		}
	})
}

// TestPFX001_ManyConnections: 2,000 idle connections and 10,000 short ones starve nobody; nor do half-sent requests. Above
// 4,096 the next one waits for a place, and gets it: an idle one is not closed before Postfix has given it up.
func TestPFX001_ManyConnections(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	publishPlain(t, "many.test")
	d.ask("QUERY", "many.test")
	open := func(n int) []*client {
		conns := make([]*client, n)
		for i := range conns {
			conns[i] = d.dial()
			if got, err := conns[i].ask("QUERY", "many.test"); got != notFound || err != nil {
				t.Fatalf("connection %d: %q, %v", i, got, err)
			}
		}
		return conns
	}
	idle := open(2000)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 1000 {
				if got, err := d.try("QUERY", "many.test"); got != notFound || err != nil {
					t.Errorf("short connection: %q, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, c := range idle[:1000] {
		if _, err := io.WriteString(c, "15:QUERY"); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	d.wants("many.test", notFound)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("beside half-sent requests: answered after %v", took)
	}
	for _, c := range idle[:1000] { // and they are answered when the rest comes
		if _, err := io.WriteString(c, " many.test,"); err != nil {
			t.Fatal(err)
		}
		if got, err := c.read(); got != notFound || err != nil {
			t.Fatalf("half-sent, then whole: %q, %v", got, err)
		}
	}
	idle = append(idle, open(2096)...)
	late := d.dial()
	fmt.Fprint(late, netstring("QUERY many.test"))
	idle[0].Close()
	if got, err := late.read(); got != notFound || err != nil {
		t.Errorf("connection 4097 after another went: %q, %v", got, err)
	}
	for i, c := range idle[1:] {
		if got, err := c.ask("QUERY", "many.test"); got != notFound || err != nil {
			t.Fatalf("idle connection %d was lost: %q, %v", i, got, err)
		}
	}
}

// TestPFX001_UnixSocket: the socketmap on a unix socket, with its mode.
func TestPFX001_UnixSocket(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, nil)
	path := d.dir + "/sm.sock"
	d.configure(d.conf.with(config{"socketmap": fmt.Sprintf("listen = [%q, %q]\nunix_mode = \"0660\"\ndrain = \"1s\"", "unix:"+path, "inet:"+d.socketmap())}))
	d.start()
	publishPlain(t, "unix.test")
	c, err := dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.ask("QUERY", "unix.test"); got != notFound || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	d.kill() // a socket left behind is no obstacle
	d.start()
	if c, err = dial("unix", path); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.ask("QUERY", "unix.test"); got != notFound || err != nil {
		t.Errorf("after kill -9: %q, %v", got, err)
	}
	d.terminate()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind at the end: %v", err)
	}
}

// TestPFX014_Drain: after SIGTERM what is open is answered until it goes or drain ends, and so is what comes meanwhile; a
// second SIGTERM ends at once.
func TestPFX014_Drain(t *testing.T) {
	t.Parallel()
	publishPlain(t, "drain.test")
	start := func(t *testing.T, drain string) (*daemon, *client) {
		d := newDaemon(t, nil)
		d.configure(d.conf.with(config{"socketmap": strings.Replace(d.conf["socketmap"], "1s", drain, 1)}))
		d.start()
		c := d.dial()
		if got, err := c.ask("QUERY", "drain.test"); got != notFound || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		return d, c
	}
	t.Run("ends_with_the_last_connection", func(t *testing.T) {
		t.Parallel()
		d, c := start(t, "60s")
		d.signal(syscall.SIGTERM)
		d.await("drain", func() bool { return strings.Contains(d.log.String(), "draining") })
		d.wants("drain.test", notFound) // a new connection: nobody else answers on this socket
		if got, err := c.ask("QUERY", "drain.test"); got != notFound || err != nil {
			t.Errorf("while draining: %q, %v", got, err)
		}
		c.Close()
		if code := d.ended(); code != 0 {
			t.Errorf("exit code %d\n%s", code, d.log)
		}
	})
	t.Run("ends_after_drain", func(t *testing.T) {
		t.Parallel()
		d, _ := start(t, "1s")
		begin := time.Now()
		if code := d.terminate(); code != 0 || time.Since(begin) < 900*time.Millisecond || time.Since(begin) > 6*time.Second {
			t.Errorf("exit code %d after %v", code, time.Since(begin))
		}
	})
	t.Run("second_signal", func(t *testing.T) {
		t.Parallel()
		d, _ := start(t, "60s")
		d.signal(syscall.SIGTERM)
		d.await("drain", func() bool { return strings.Contains(d.log.String(), "ending once") })
		begin := time.Now()
		if code := d.terminate(); code != 0 || time.Since(begin) > 3*time.Second {
			t.Errorf("exit code %d after %v\n%s", code, time.Since(begin), d.log)
		}
	})
	t.Run("zero", func(t *testing.T) {
		t.Parallel()
		d, _ := start(t, "0s")
		begin := time.Now()
		if code := d.terminate(); code != 0 || time.Since(begin) > 3*time.Second {
			t.Errorf("exit code %d after %v", code, time.Since(begin))
		}
	})
}
