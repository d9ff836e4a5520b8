package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var hoster = netip.MustParseAddr("192.0.2.1")

// filled has all places of the hoster taken.
func filled(t *testing.T) *places {
	p := &places{}
	for range maxPerAddress {
		if !p.take(hoster) {
			t.Fatal("no place at an idle address")
		}
	}
	return p
}

func TestSTS042_PlacesPerAddress(t *testing.T) {
	p := filled(t)
	// One address, however it is written, and no other one.
	for _, text := range []string{"192.0.2.1", "::ffff:192.0.2.1"} {
		if p.take(netip.MustParseAddr(text)) {
			t.Errorf("%s: a fifth place", text)
		}
	}
	for _, text := range []string{"192.0.2.2", "2001:db8::1"} {
		if !p.take(netip.MustParseAddr(text)) {
			t.Errorf("%s is another address", text)
		}
		p.leave(netip.MustParseAddr(text))
	}
	p.leave(netip.MustParseAddr("::ffff:192.0.2.1"))
	if !p.take(hoster) {
		t.Error("a place that was left is not free")
	}
	for range maxPerAddress {
		p.leave(hoster)
	}
	if len(p.lines) != 0 {
		t.Errorf("remembered after all have left: %v", p.lines)
	}
}

// Who comes first gets the next place, and nobody overtakes.
func TestSTS042_InOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := filled(t)
		const waiting = 6
		var order []int
		var all sync.WaitGroup
		for i := range waiting {
			all.Go(func() {
				if err := p.wait(t.Context(), hoster); err != nil {
					t.Errorf("%d: %v", i, err)
				}
				order = append(order, i) // one at a time: each leaves for the next
			})
			synctest.Wait()
		}
		for range waiting {
			p.leave(hoster)
			if p.take(hoster) {
				t.Error("overtaken")
			}
			synctest.Wait()
		}
		all.Wait()
		if fmt.Sprint(order) != "[0 1 2 3 4 5]" {
			t.Errorf("turns were %v", order)
		}
	})
}

// A host that keeps its connections makes nobody wait any longer: all fetches
// together hold 32 places in the engine.
func TestSTS096_StuckAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := filled(t)
		start := time.Now()
		if err := p.wait(t.Context(), hoster); !errors.Is(err, ErrBusy) || time.Since(start) != patience {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		start = time.Now()
		if err := p.wait(t.Context(), hoster); !errors.Is(err, ErrBusy) || time.Since(start) != 0 {
			t.Errorf("stuck: %v after %v", err, time.Since(start))
		}
		p.leave(hoster)
		if err := p.wait(t.Context(), hoster); err != nil {
			t.Errorf("a place has become free: %v", err)
		}
	})
}

func TestSTS096_WaitEndsWithTheFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := filled(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := p.wait(ctx, hoster); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		for range maxPerAddress {
			p.leave(hoster)
		}
		if len(p.lines) != 0 {
			t.Errorf("remembered: %v", p.lines)
		}
	})
}

// Whatever comes together — turns, patience and cancellation at the same
// instants too — no address has more than its places, none is lost, and nothing
// is remembered.
func TestSTS096_NoPlaceIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p places
		var open [3]atomic.Int32
		var all sync.WaitGroup
		for range 2000 {
			n := rand.IntN(len(open))
			addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
			pause := func(most int) { time.Sleep(time.Duration(rand.IntN(most)) * 500 * time.Millisecond) }
			all.Go(func() {
				pause(200)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rand.IntN(8))*500*time.Millisecond)
				defer cancel()
				if p.wait(ctx, addr) != nil {
					return
				}
				if most := open[n].Add(1); most > maxPerAddress {
					t.Errorf("%d connections", most)
				}
				pause(10)
				open[n].Add(-1)
				p.leave(addr)
			})
		}
		all.Wait()
		if len(p.lines) != 0 {
			t.Errorf("remembered: %v", p.lines)
		}
	})
}

// hosterWorld is a policy host for the domains d0.test to d<n-1>.test at
// 127.0.0.1.
func hosterWorld(t *testing.T, n int, handler http.HandlerFunc) *world {
	var names []string
	var zone strings.Builder
	for i := range n {
		name := fmt.Sprintf("mta-sts.d%d.test", i)
		names = append(names, name)
		fmt.Fprintf(&zone, "%s 300 A 127.0.0.1\nnodata %s 60 AAAA\n", name, name)
	}
	w := newWorld(t, handler, func(c *tls.Config, ca *authority) {
		c.Certificates = []tls.Certificate{issue(t, x509.Certificate{DNSNames: names}, ca)}
	})
	w.fetcher.Resolver = newDNS(zone.String())
	return w
}

// idle tells whether the fetcher has forgotten all addresses.
func idle(t *testing.T, f *Fetcher) {
	t.Helper()
	f.places.mu.Lock()
	defer f.places.mu.Unlock()
	if len(f.places.lines) != 0 {
		t.Errorf("remembered: %v", f.places.lines)
	}
}

// Many domains at one hoster: all get their policies, four at a time; whose turn
// does not come in time is told so before anything was asked.
func TestSTS042_ManyDomainsOneHoster(t *testing.T) {
	const domains = 24
	var open atomic.Int32
	w := hosterWorld(t, domains, func(rw http.ResponseWriter, r *http.Request) {
		if n := open.Add(1); n > maxPerAddress {
			t.Errorf("%d requests at once", n)
		}
		time.Sleep(20 * time.Millisecond)
		open.Add(-1) // before the client can have the policy and leave
		serve("text/plain", good)(rw, r)
	})
	w.fetcher.Timeout = 2 * time.Minute
	var all sync.WaitGroup
	for i := range domains {
		all.Go(func() {
			for {
				_, err := w.fetcher.Fetch(t.Context(), fmt.Sprintf("d%d.test", i))
				if errors.Is(err, ErrBusy) {
					continue // a slow machine
				}
				if err != nil {
					t.Error(err)
				}
				return
			}
		})
	}
	all.Wait()
	if w.listener.accepted() != domains {
		t.Errorf("%d connections for %d policies", w.listener.accepted(), domains)
	}
	idle(t, w.fetcher)
}

// hold starts as many fetches as one address takes, of hosts at 127.0.0.2 where
// nothing is ever answered, and returns when all are connected. end stops them.
func hold(t *testing.T, w *world) (end func()) {
	t.Helper()
	connected := make(chan struct{}, 2*maxPerAddress)
	listen(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), w.fetcher.port).String(), func(c net.Conn) {
		connected <- struct{}{}
		io.Copy(io.Discard, c)
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range maxPerAddress {
		all.Go(func() { w.fetcher.Fetch(ctx, fmt.Sprintf("tar%d.test", i)) })
	}
	for range maxPerAddress {
		<-connected
	}
	return func() { cancel(); all.Wait() }
}

// tarpits are the names of hold.
func tarpits() string {
	var zone strings.Builder
	for i := range maxPerAddress + 1 {
		fmt.Fprintf(&zone, "mta-sts.tar%d.test 300 A 127.0.0.2\nnodata mta-sts.tar%d.test 60 AAAA\n", i, i)
	}
	return zone.String()
}

// A tarpit at one address: the other address of a host is tried at once, other
// hosts are not held up, and who has nothing else is told so.
func TestSTS096_Tarpit(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.fetcher.Resolver = newDNS(tarpits() + "mta-sts.ex.test 300 A 127.0.0.2\nmta-sts.ex.test 300 A 127.0.0.1\nnodata mta-sts.ex.test 60 AAAA")
	end := hold(t, w)
	if got := w.succeeds(t); got.Address.Addr().String() != "127.0.0.1" {
		t.Errorf("from %v", got.Address)
	}

	w.fetcher.places.mu.Lock()
	l := w.fetcher.places.lines[netip.MustParseAddr("127.0.0.2")]
	if l == nil || l.taken != maxPerAddress || len(l.waiting) != 0 {
		t.Fatalf("%+v", l)
	}
	l.moved = l.moved.Add(-patience)
	w.fetcher.places.mu.Unlock()
	_, err := w.fetcher.Fetch(t.Context(), fmt.Sprintf("tar%d.test", maxPerAddress))
	var failed *FetchError
	if !errors.As(err, &failed) || failed.Kind != FetchFailed || !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "127.0.0.2") {
		t.Error(err)
	}
	end()
	idle(t, w.fetcher)
}

// Every way out of a fetch gives the place back.
func TestSTS042_PlacesAreGivenBack(t *testing.T) {
	for name, w := range map[string]*world{
		"policy":      newWorld(t, nil, nil),
		"404":         newWorld(t, http.NotFound, nil),
		"no policy":   newWorld(t, serve("text/plain", "hello"), nil),
		"certificate": newWorld(t, nil, hostCertificate(t, "other.test")),
		"closed":      newWorld(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil),
	} {
		w.fetcher.Fetch(t.Context(), "ex.test")
		t.Run(name, func(t *testing.T) { idle(t, w.fetcher) })
		w.server.Close() // from now on the connection is refused
		w.fetcher.Fetch(t.Context(), "ex.test")
		t.Run(name+", then nobody", func(t *testing.T) { idle(t, w.fetcher) })
	}
	w := newWorld(t, nil, nil)
	w.fetcher.AllowNetworks = nil
	w.fails(t, FetchFailed)
	idle(t, w.fetcher)
}
