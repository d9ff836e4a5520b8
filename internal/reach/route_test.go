package reach

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// TestNoRoute: on a machine without IPv6 a host is judged by its IPv4 addresses, and
// is unknown without any.
func TestNoRoute(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		errno     syscall.Errno
		addresses []netip.Addr
		want      Verdict
	}{
		{syscall.ENETUNREACH, []netip.Addr{four, six}, Negative},
		{syscall.EADDRNOTAVAIL, []netip.Addr{six, four}, Negative},
		{syscall.EAFNOSUPPORT, []netip.Addr{six, four}, Negative},
		{syscall.ENETUNREACH, []netip.Addr{six}, Unknown},
		{syscall.ECONNREFUSED, []netip.Addr{four, six}, Unknown},
		{syscall.EHOSTUNREACH, []netip.Addr{four, six}, Unknown}, // their network's, perhaps
	} {
		prober := &Prober{HeloName: "client.test"}
		prober.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "[") {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", c.errno)}
			}
			h := newHost(nil)
			h.ehlo = ehlo250None
			return pipes(h.serve)(ctx, network, address)
		}
		m := &Memory{Prober: prober}
		goal := Target{Host: "mx.ex.test", Addresses: c.addresses, Level: Encrypt}
		if r := m.Probe(t.Context(), goal); r.Verdict != c.want || len(r.Attempts) != len(c.addresses) {
			t.Errorf("%v: %s, %d attempts, want %s", c, r.Verdict, len(r.Attempts), c.want)
		}
		if s := m.Standing(goal); s.Verdict != c.want || s.FirstNegative.IsZero() != (c.want != Negative) {
			t.Errorf("%v: standing %s since %s", c, s.Verdict, s.FirstNegative)
		}
	}
}

// TestRouteElsewhere: that an address cannot be reached counts for nothing where this
// machine has a route to it: a router on the way said so, or the address to connect from
// is not ours.
func TestRouteElsewhere(t *testing.T) {
	here := netip.MustParseAddrPort("127.0.0.1:25")
	foreign := netip.MustParseAddr("192.0.2.77") // RFC 5737: no machine has it
	p := &Prober{HeloName: "client.test", LocalAddr4: foreign, Timeouts: Timeouts{Connect: time.Second}}
	r := p.Probe(t.Context(), target(here, Encrypt))
	if len(r.Attempts) != 1 || r.Attempts[0].NoRoute {
		t.Errorf("connected from %s: %+v", foreign, r.Attempts)
	}
	for _, errno := range []syscall.Errno{syscall.ENETUNREACH, syscall.EADDRNOTAVAIL} {
		if p.noRoute(os.NewSyscallError("connect", errno), here) {
			t.Errorf("%v: no route to %s", errno, here)
		}
	}
}

// TestSharedTurns: probers that follow each other keep the limits together.
func TestSharedTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(3)
		var mu sync.Mutex
		now, most := 0, 0
		dial := func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return nil, syscall.ECONNREFUSED
		}
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				p := &Prober{Turns: turns, Dial: dial}
				p.Probe(t.Context(), Target{Host: "mx.ex.test" + string(rune('a'+i)), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}, Level: Encrypt})
			})
		}
		all.Wait()
		if most != 3 {
			t.Errorf("%d connections at once", most)
		}
	})
}

// TestProofIsLost: a host that was good and no longer offers STARTTLS shows nothing
// about our own path any more.
func TestProofIsLost(t *testing.T) {
	witness := Target{Host: "good.test", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Level: Encrypt}
	other := Target{Host: "bad.test", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, Level: Encrypt}
	show := Attempt{Address: netip.MustParseAddrPort("192.0.2.1:25"), When: time.Now(), Verdict: Positive, Offered: true, Handshake: true}
	m := &Memory{}
	m.Prober = probeFunc(func() Attempt { return show })
	m.Renew(t.Context(), witness)
	if s := m.Standing(other); s.OtherPositive.IsZero() {
		t.Error("no proof")
	}
	show.Verdict, show.Handshake = Unknown, false
	m.Renew(t.Context(), witness)
	if s := m.Standing(other); s.OtherPositive.IsZero() {
		t.Error("no answer is no loss")
	}
	show.Verdict, show.Offered = Negative, false
	m.Renew(t.Context(), witness)
	if s := m.Standing(other); !s.OtherPositive.IsZero() {
		t.Error("a proof that was lost counts")
	}
}

type probeFunc func() Attempt

func (f probeFunc) Probe(_ context.Context, t Target) Result { return fold(&t, []Attempt{f()}, true) }

// TestSTS097_RunAfterSleep: what was not looked at while the machine slept may have been
// good meanwhile.
func TestSTS097_RunAfterSleep(t *testing.T) {
	goal := Target{Host: "bad.test", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, Level: Encrypt}
	show := Attempt{Address: netip.MustParseAddrPort("192.0.2.2:25"), When: time.Now(), Verdict: Negative}
	m := &Memory{Prober: probeFunc(func() Attempt { return show })}
	m.Renew(t.Context(), goal)
	first := show.When
	show.When = first.Add(10 * time.Minute)
	m.Renew(t.Context(), goal)
	if s := m.Standing(goal); !s.FirstNegative.Equal(first) {
		t.Errorf("after ten minutes: since %s", s.FirstNegative)
	}
	// A wall clock eight hours on, and ten minutes by the monotonic one.
	show.When = show.When.Add(8 * time.Hour)
	(*struct { // time.Time
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&show.When)).ext -= int64(8*time.Hour - 10*time.Minute)
	m.Renew(t.Context(), goal)
	if s := m.Standing(goal); !s.FirstNegative.Equal(show.When) {
		t.Errorf("after a sleep: since %s", s.FirstNegative)
	}
}
