package reach

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// drip says a text one octet at a time, or the last one for ever.
func drip(c net.Conn, text string, every time.Duration, forever bool) {
	for i := 0; ; i++ {
		if i >= len(text) {
			if !forever {
				return
			}
			i = len(text) - 1
		}
		time.Sleep(every)
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
	}
}

// TestTarpits: no host holds a probe for longer than the step, or the whole, may
// take, and no time-out is evidence.
func TestTarpits(t *testing.T) {
	swallow := func(c net.Conn) { go io.Copy(io.Discard, c) }
	for _, c := range []struct {
		name  string
		serve func(net.Conn)
		took  time.Duration // at most, and within the last second of it
		text  string
	}{
		{"silent", func(c net.Conn) {}, DefaultGreetingTimeout, "conversation with mx.ex.test[192.0.2.1] timed out while receiving the initial server greeting"},
		{"banner drips", func(c net.Conn) { drip(c, "220 x", time.Second, true) }, DefaultGreetingTimeout, "timed out while receiving the initial server greeting"},
		{"banner of slow lines", func(c net.Conn) {
			for err := error(nil); err == nil; time.Sleep(3 * time.Second) {
				_, err = io.WriteString(c, "220-wait\r\n")
			}
		}, DefaultGreetingTimeout, "timed out while receiving the initial server greeting"},
		{"EHLO unanswered", func(c net.Conn) { swallow(c); io.WriteString(c, banner220) }, DefaultCommandTimeout, "timed out while performing the EHLO handshake"},
		{"EHLO not taken", func(c net.Conn) { io.WriteString(c, banner220) }, DefaultCommandTimeout, "timed out while performing the EHLO handshake"},
		{"STARTTLS unanswered", func(c net.Conn) { swallow(c); io.WriteString(c, banner220); io.WriteString(c, ehlo250) }, DefaultCommandTimeout, "timed out while receiving the STARTTLS response"},
		{"handshake unanswered", func(c net.Conn) {
			swallow(c)
			for _, s := range []string{banner220, ehlo250, ready220} {
				time.Sleep(time.Second)
				io.WriteString(c, s)
			}
		}, DefaultHandshakeTimeout + 3*time.Second, "Cannot start TLS: handshake failure"},
		{"handshake drips", func(c net.Conn) {
			swallow(c)
			for _, s := range []string{banner220, ehlo250, ready220} {
				time.Sleep(time.Second)
				io.WriteString(c, s)
			}
			drip(c, "\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x00", time.Second, true)
		}, DefaultHandshakeTimeout + 3*time.Second, "Cannot start TLS: handshake failure"},
		{"everything slow", func(c net.Conn) {
			swallow(c)
			time.Sleep(58 * time.Second)
			io.WriteString(c, banner220)
			time.Sleep(28 * time.Second)
			io.WriteString(c, "500 what\r\n")
			time.Sleep(28 * time.Second)
			io.WriteString(c, "500-what\r\n")
		}, DefaultAttemptTimeout, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				prober := Prober{HeloName: "client.test", Dial: pipes(c.serve)}
				began := time.Now()
				r := prober.Probe(t.Context(), target(netip.MustParseAddrPort("192.0.2.1:25"), Encrypt))
				// tls.Conn.Close may wait 5 s more for its farewell.
				took := time.Since(began)
				time.Sleep(time.Hour) // for the host to notice
				if took > c.took+5*time.Second || took < c.took-6*time.Second || r.Attempts[0].Took != took {
					t.Errorf("took %v", took)
				}
				if r.Verdict != Unknown || !strings.Contains(r.Text, c.text) {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// TestFloods: too much text ends the attempt at once.
func TestFloods(t *testing.T) {
	for _, text := range []string{strings.Repeat("220-x\r\n", 1<<16), strings.Repeat("x", 1<<20), "220 " + strings.Repeat("x", 1<<20) + "\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			prober := Prober{HeloName: "client.test", Dial: pipes(func(c net.Conn) { io.WriteString(c, text) })}
			began := time.Now()
			r := prober.Probe(t.Context(), target(netip.MustParseAddrPort("192.0.2.1:25"), Encrypt))
			if r.Verdict != Unknown || time.Since(began) > 0 || !strings.Contains(r.Attempts[0].Cause, "too ") {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestContextEnds(t *testing.T) {
	for _, hang := range []func(net.Conn){
		func(net.Conn) {},
		func(c net.Conn) {
			go io.Copy(io.Discard, c)
			io.WriteString(c, banner220)
			io.WriteString(c, ehlo250)
			io.WriteString(c, ready220)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
			defer cancel()
			prober := Prober{HeloName: "client.test", Dial: pipes(hang)}
			goal := target(netip.MustParseAddrPort("192.0.2.1:25"), Encrypt)
			goal.Addresses = append(goal.Addresses, netip.MustParseAddr("192.0.2.2"))
			began := time.Now()
			r := prober.Probe(ctx, goal)
			if time.Since(began) > 12*time.Second || r.Verdict != Unknown || len(r.Attempts) != 2 {
				t.Errorf("%v %+v", time.Since(began), r)
			}
			for _, a := range r.Attempts {
				if a.Cause != context.DeadlineExceeded.Error() {
					t.Errorf("%+v", a)
				}
			}
		})
	}
}

// TestTurns: one connection to a host, one to an address, so many in all.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most, opened := map[string]int{}, map[string]int{}, 0
		count := func(key string, by int) {
			now[key] += by
			most[key] = max(most[key], now[key])
		}
		prober := Prober{HeloName: "client.test", MaxConns: 5}
		prober.Dial = func(_ context.Context, _, address string) (net.Conn, error) {
			here, there := net.Pipe()
			mu.Lock()
			count(address, 1)
			count("all", 1)
			opened++
			mu.Unlock()
			go func() {
				h := newHost(nil)
				h.ehlo = ehlo250None
				time.Sleep(time.Second)
				h.serve(there)
			}()
			// Counted where the prober lets go: the host hears of it only later.
			return &closer{here, sync.OnceFunc(func() {
				mu.Lock()
				defer mu.Unlock()
				count(address, -1)
				count("all", -1)
			})}, nil
		}
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				goal := Target{Host: fmt.Sprintf("mx%d.test", i%8), Level: Encrypt, Addresses: []netip.Addr{
					netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 8)}), netip.AddrFrom4([4]byte{192, 0, 2, byte((i + 1) % 8)}),
				}}
				if r := prober.Probe(t.Context(), goal); r.Verdict != Negative {
					t.Errorf("%+v", r)
				}
			})
		}
		all.Wait()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if opened != 80 || most["all"] != 5 {
			t.Errorf("%d connections, at most %d at once", opened, most["all"])
		}
		for key, n := range most {
			if n > 1 && key != "all" {
				t.Errorf("%s: %d at once", key, n)
			}
		}
		if len(prober.Turns.hosts.all)+len(prober.Turns.addrs.all)+len(prober.Turns.slots) != 0 {
			t.Error("somebody is still waiting")
		}
	})
}

// closer says when its connection is closed.
type closer struct {
	net.Conn
	closing func()
}

func (c *closer) Close() error {
	c.closing()
	return c.Conn.Close()
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		prober := Prober{HeloName: "client.test", Dial: pipes(func(net.Conn) {})}
		goal := target(netip.MustParseAddrPort("192.0.2.1:25"), Encrypt)
		var first sync.WaitGroup
		first.Go(func() { prober.Probe(t.Context(), goal) })
		synctest.Wait()
		for _, host := range []string{"mx.ex.test", "same-address.test"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			goal.Host = host
			if r := prober.Probe(ctx, goal); r.Verdict != Unknown || r.Attempts[0].Text != "not tried" {
				t.Errorf("%+v", r)
			}
			cancel()
		}
		first.Wait()
	})
}

func TestFold(t *testing.T) {
	u, p, n := Attempt{Text: "u"}, Attempt{Verdict: Positive, Text: "p"}, Attempt{Verdict: Negative, Text: "n", Stripped: "s"}
	for _, c := range []struct {
		attempts []Attempt
		complete bool
		want     Verdict
		text     string
	}{
		{nil, true, Unknown, "no address of mx is known"},
		{[]Attempt{p}, true, Positive, "p"},
		{[]Attempt{n}, true, Negative, "n"},
		{[]Attempt{n}, false, Unknown, "n"},
		{[]Attempt{p}, false, Positive, "p"},
		{[]Attempt{u}, true, Unknown, "u"},
		{[]Attempt{n, u}, true, Unknown, "u"},
		{[]Attempt{n, p}, true, Positive, "p"},
		{[]Attempt{u, p, n}, true, Positive, "p"},
		{[]Attempt{n, n}, true, Negative, "n"},
		{[]Attempt{p, u}, true, Positive, "p"},
	} {
		if r := fold(&Target{Host: "mx"}, c.attempts, c.complete); r.Verdict != c.want || r.Text != c.text {
			t.Errorf("%v: %+v", c.attempts, r)
		}
	}
}

func TestTooManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialled := 0
		prober := Prober{HeloName: "client.test"}
		prober.Dial = func(context.Context, string, string) (net.Conn, error) {
			dialled++
			here, there := net.Pipe()
			h := newHost(nil)
			h.ehlo = ehlo250None
			go h.serve(there)
			return here, nil
		}
		goal := Target{Host: "mx.test", Level: Encrypt}
		for i := range MaxAddresses + 1 {
			goal.Addresses = append(goal.Addresses, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		}
		if r := prober.Probe(t.Context(), goal); r.Verdict != Unknown || dialled != MaxAddresses {
			t.Errorf("%d dialled, %v", dialled, r.Verdict)
		}
	})
}
