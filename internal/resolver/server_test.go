package resolver

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// The state machine of the package comment, in full.
func TestDANE004_StateMachine(t *testing.T) {
	probe, err := ParseProbe("ns:.")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort("127.0.0.1:53")
	for story, want := range map[string][]State{
		// a, A: ordinary answer without and with AD; p, P: answer to the probe; x: failure; X: failed probe
		"aaaa": {Unknown, Unknown, Unknown, Unknown},
		"A":    {Proven},
		"P":    {Proven},
		"pp":   {Unknown, Suspended},
		"pP":   {Unknown, Proven},
		"pPp":  {Unknown, Proven, Proven},
		"pAp":  {Unknown, Proven, Suspended}, // only a probe with AD ends the row
		"Ppp":  {Proven, Proven, Suspended},
		"Pxxx": {Proven, Proven, Proven, Proven},
		"PpXp": {Proven, Proven, Proven, Suspended}, // silence neither counts nor interrupts
		"XXXX": {Unknown, Unknown, Unknown, Unknown},
		"ppA":  {Unknown, Suspended, Suspended},
		"ppP":  {Unknown, Suspended, Proven},
		"pppp": {Unknown, Suspended, Suspended, Suspended},
		"Paaa": {Proven, Proven, Proven, Proven},
	} {
		s := newServer(at, true, probe)
		var got []State
		for i, event := range story {
			before := s.is()
			var changed, again bool
			switch event {
			case 'a', 'A':
				changed = s.sawAnswer(event == 'A')
			case 'p', 'P':
				changed, again = s.sawProbe(event == 'P', time.Now())
			case 'x':
				s.sawFailure(ErrTimeout, time.Now())
			case 'X':
				s.probeFailed(ErrServFail, time.Now())
			}
			got = append(got, s.is())
			if changed != (s.is() != before) {
				t.Errorf("%s, event %d: changed is %v", story, i, changed)
			}
			if again && s.is() == Suspended {
				t.Errorf("%s, event %d: asks again though it is settled", story, i)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", story, got, want)
		}
	}
	if s := newServer(at, true, Probe{}); s.is() != Proven {
		t.Errorf("without a probe: %v", s.is())
	}
	if s := newServer(at, false, probe); s.sawAnswer(true) || s.is() != Untrusted {
		t.Errorf("not trusted: %v", s.is())
	}
}

func TestOrderOfServers(t *testing.T) {
	now := time.Now()
	ro := &roster{}
	add := func(port uint16, state State, failures int, err error) {
		s := newServer(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), state != Untrusted, Probe{})
		s.state.Store(uint32(state))
		for range failures {
			s.sawFailure(err, now)
		}
		ro.servers = append(ro.servers, s)
	}
	add(1, Untrusted, 0, nil)
	add(2, Suspended, 0, nil)
	add(3, Unknown, 0, nil)
	add(4, Proven, downAfter, ErrTimeout)
	add(5, Proven, 1, ErrServFail)
	add(6, Proven, 0, nil)
	add(7, Untrusted, 1, ErrRefused)
	add(8, Proven, downAfter-1, ErrTimeout)
	order := func(at time.Time) (ports, tiers []int) {
		turns := ro.order(at.UnixNano())
		for i := range turns.n {
			ports = append(ports, int(turns.server[i].addr.Port()))
			tiers = append(tiers, turns.tier[i])
		}
		return ports, tiers
	}
	ports, tiers := order(now)
	if !slices.Equal(ports, []int{6, 5, 8, 3, 1, 2, 7, 4}) || !slices.Equal(tiers, []int{0, 0, 0, 0, 1, 1, 1, 2}) {
		t.Errorf("order %v, tiers %v", ports, tiers)
	}
	later := now.Add(failedFor + time.Millisecond)
	if ports, _ = order(later); !slices.Equal(ports, []int{4, 5, 6, 8, 3, 1, 2, 7}) {
		t.Errorf("when the time is up: %v", ports)
	}
	if ports, _ = order(later); ports[7] != 4 {
		t.Errorf("only one question tries a server that was down: %v", ports)
	}
	ro.servers[3].sawReply()
	if ports, _ = order(later); ports[0] != 4 {
		t.Errorf("it is back: %v", ports)
	}
}

// RFC 5452 §9.2: only sockets that nobody off the host can reach are used twice.
func TestSocketsAreReusedOnLoopbackOnly(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1": true, "127.0.0.53": true, "::1": true, "192.0.2.1": false, "10.0.0.1": false} {
		if s := newServer(netip.AddrPortFrom(netip.MustParseAddr(addr), 53), true, Probe{}); s.sockets.reuse != want {
			t.Errorf("%s: %v", addr, s.sockets.reuse)
		}
	}
}

func TestIdleSocketsAreClosed(t *testing.T) {
	s := newServer(netip.MustParseAddrPort("127.0.0.1:53"), true, Probe{})
	var list []*socket
	for range 3 {
		sock, err := s.sockets.get()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, sock)
	}
	for _, sock := range list {
		s.sockets.put(sock)
	}
	list[0].idle = time.Now().Add(-time.Hour)
	s.sockets.trim(time.Now().Add(-time.Minute))
	if len(s.sockets.idle) != 2 {
		t.Errorf("%d are left", len(s.sockets.idle))
	}
	last, err := s.sockets.get()
	if err != nil || last != list[2] {
		t.Errorf("the socket used last is not taken first, %v", err)
	}
	s.sockets.retire()
	s.sockets.put(last)
	if len(s.sockets.idle) != 0 {
		t.Error("a retired server keeps sockets")
	}
	for i, sock := range list {
		if sock.SetDeadline(longAgo) == nil {
			t.Errorf("socket %d is open", i)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		name, zone string
		want       bool
	}{
		{"a.test", ".", true}, {"a.test", "test", true}, {"a.test", "a.test", true}, {"xa.test", "a.test", false},
		{"test", "a.test", false}, {`a\.test`, "test", false}, {`a\\.test`, "test", true}, {`a\\\.test`, "test", false}, {".", "test", false},
	} {
		if got := within(c.name, c.zone); got != c.want {
			t.Errorf("%s within %s: %v", c.name, c.zone, got)
		}
	}
}
