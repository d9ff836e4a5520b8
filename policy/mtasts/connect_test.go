package mtasts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/resolver/resolvertest"
)

func newDNS(table string) *resolvertest.DNS { return resolvertest.New(table) }

func portOf(l net.Listener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }

// listen serves each connection in its own goroutine, and at the end closes
// them and waits.
func listen(t *testing.T, address string, serve func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			all.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l
}

func swallow(c net.Conn) { io.Copy(io.Discard, c) }

func TestSTS041_Guard(t *testing.T) {
	for _, records := range []string{
		"mta-sts.ex.test 300 A 127.0.0.1\nnodata mta-sts.ex.test 60 AAAA",
		"mta-sts.ex.test 300 A 169.254.169.254\nnodata mta-sts.ex.test 60 AAAA",
		"nodata mta-sts.ex.test 60 A\nmta-sts.ex.test 300 AAAA ::ffff:10.0.0.1",
		"nodata mta-sts.ex.test 60 A\nmta-sts.ex.test 300 AAAA ::1",
		"mta-sts.ex.test 300 A 10.0.0.1\nmta-sts.ex.test 300 A 192.168.0.1\nmta-sts.ex.test 300 AAAA fd00::1",
	} {
		w := newWorld(t, nil, nil)
		w.fetcher.AllowNetworks = nil
		w.fetcher.Resolver = newDNS(records)
		_, failed := w.fails(t, FetchFailed)
		if !errors.Is(failed, ErrRefused) || !strings.Contains(failed.Hint, "allow_networks") {
			t.Errorf("%s: %v", records, failed)
		}
		if n := w.listener.accepted(); n != 0 {
			t.Errorf("%s: %d connections", records, n)
		}
	}
}

// 127.0.0.1 stands for a public address, 127.0.0.2 for a private one.
func TestSTS041_Rebinding(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.fetcher.AllowNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	w.succeeds(t)
	w.dns.Set("mta-sts.ex.test 300 A 127.0.0.2")
	if _, failed := w.fails(t, FetchFailed); !errors.Is(failed, ErrRefused) {
		t.Error(failed)
	}
	// What counts is the address at the very moment of dialling.
	if err := w.fetcher.guard(t.Context(), "tcp4", fmt.Sprintf("127.0.0.2:%d", w.fetcher.port), nil); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

func TestSTS041_Port(t *testing.T) {
	f := Fetcher{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for address, want := range map[string]error{"127.0.0.1:443": nil, "127.0.0.1:25": ErrRefused, "127.0.0.1": ErrRefused, "host:443": ErrRefused} {
		if err := f.guard(t.Context(), "tcp4", address, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// In one family the connection is taken and nothing ever said: what a black
// hole looks like to whoever waits for a handshake.
func TestSTS046_BrokenFamily(t *testing.T) {
	for _, c := range []struct{ name, zone string }{
		{"AAAA", "mta-sts.ex.test 300 AAAA ::ffff:127.0.0.2\nmta-sts.ex.test 300 A 127.0.0.1"},
		{"A", "mta-sts.ex.test 300 AAAA ::ffff:127.0.0.1\nmta-sts.ex.test 300 A 127.0.0.2"},
	} {
		w := newWorld(t, nil, nil)
		listen(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), w.fetcher.port).String(), swallow)
		w.fetcher.Resolver = newDNS(c.zone)
		if got := w.succeeds(t); got.Address.Addr().Unmap().String() != "127.0.0.1" {
			t.Errorf("%s: %v", c.name, got.Address)
		}
	}
}

func TestSTS046_NextAddress(t *testing.T) {
	for _, c := range []struct{ name, zone string }{
		{"refused", "mta-sts.ex.test 300 A 127.0.0.2\nmta-sts.ex.test 300 A 127.0.0.1\nnodata mta-sts.ex.test 60 AAAA"},
		{"guarded", "mta-sts.ex.test 300 A 127.0.0.1\nmta-sts.ex.test 300 AAAA fd00::1"},
		{"SERVFAIL", "mta-sts.ex.test 300 A 127.0.0.1\nservfail mta-sts.ex.test AAAA"},
		{"silent DNS", "mta-sts.ex.test 300 A 127.0.0.1\nhang mta-sts.ex.test AAAA"},
		{"late DNS", "delay=400ms mta-sts.ex.test 300 A 127.0.0.1\nmta-sts.ex.test 300 AAAA ::ffff:127.0.0.2"},
	} {
		w := newWorld(t, nil, nil)
		w.fetcher.Resolver = newDNS(c.zone)
		if got := w.succeeds(t); got.Address.Addr().String() != "127.0.0.1" {
			t.Errorf("%s: %v", c.name, got.Address)
		}
	}
}

// A valid certificate elsewhere beats an invalid one here; without any, the
// certificate is what gets reported.
func TestSTS046_CertificateCounts(t *testing.T) {
	bad := newWorld(t, nil, hostCertificate(t, "other.test"))
	w := newWorld(t, nil, nil)
	listen(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), w.fetcher.port).String(), pipeTo(bad.listener.Addr().String()))
	w.fetcher.Resolver = newDNS("mta-sts.ex.test 300 A 127.0.0.2\nmta-sts.ex.test 300 A 127.0.0.1\nnodata mta-sts.ex.test 60 AAAA")
	w.succeeds(t)
	w.fetcher.Resolver = newDNS("mta-sts.ex.test 300 A 127.0.0.3\nmta-sts.ex.test 300 A 127.0.0.2\nnodata mta-sts.ex.test 60 AAAA")
	_, failed := w.fails(t, WebPKIInvalid)
	if failed.Address.Addr().String() != "127.0.0.2" || !strings.Contains(failed.Error(), "127.0.0.3") || strings.Contains(failed.Error(), "\n") {
		t.Error(failed)
	}
}

func pipeTo(address string) func(net.Conn) {
	return func(c net.Conn) {
		up, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		var both sync.WaitGroup
		both.Go(func() { io.Copy(up, c); up.Close() })
		io.Copy(c, up)
		c.Close()
		both.Wait()
	}
}

func TestSTS046_AddressesAreCapped(t *testing.T) {
	var zone strings.Builder
	for i := range 200 {
		fmt.Fprintf(&zone, "mta-sts.ex.test 300 A 10.0.0.%d\n", i)
	}
	zone.WriteString("nodata mta-sts.ex.test 60 AAAA\n")
	w := newWorld(t, nil, nil)
	w.fetcher.Resolver = newDNS(zone.String())
	_, failed := w.fails(t, FetchFailed)
	if n := strings.Count(failed.Error(), "refused"); n != maxPerFamily {
		t.Errorf("%d addresses tried: %v", n, failed)
	}
}

func TestRPT003_NoAddresses(t *testing.T) {
	for _, c := range []struct {
		zone string
		is   error
		text string
	}{
		{"nx mta-sts.ex.test 60 A\nnx mta-sts.ex.test 60 AAAA", ErrNoAddress, "no address: mta-sts.ex.test does not exist in the DNS"},
		{"nodata mta-sts.ex.test 60 A\nnodata mta-sts.ex.test 60 AAAA", ErrNoAddress, "no address: mta-sts.ex.test has neither A nor AAAA records"},
		{"servfail mta-sts.ex.test A\nnodata mta-sts.ex.test 60 AAAA", ErrUnanswered, "no DNS answer: A mta-sts.ex.test: A mta-sts.ex.test: SERVFAIL"},
		{"hang mta-sts.ex.test A\nhang mta-sts.ex.test AAAA", context.DeadlineExceeded, "context deadline exceeded"},
	} {
		f := Fetcher{Resolver: newDNS(c.zone), Timeout: 200 * time.Millisecond}
		_, err := f.Fetch(t.Context(), "ex.test")
		var failed *FetchError
		if !errors.As(err, &failed) || failed.Kind != FetchFailed || !errors.Is(err, c.is) || !strings.HasSuffix(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", c.zone, err, c.text)
		}
	}
}

// proxy is an HTTP proxy that knows one way for every host.
func proxy(t *testing.T, to string, asked chan<- string, status string) *url.URL {
	l := listen(t, "127.0.0.1:0", func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		asked <- r.Method + " " + r.RequestURI
		io.WriteString(c, "HTTP/1.1 "+status+"\r\n\r\n")
		if strings.HasPrefix(status, "200") {
			pipeTo(to)(c)
		}
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

func TestProxy(t *testing.T) {
	w := newWorld(t, nil, nil)
	asked := make(chan string, 10)
	w.fetcher.Proxy = proxy(t, w.listener.Addr().String(), asked, "200 OK")
	w.fetcher.Resolver = newDNS("") // not asked
	w.fetcher.AllowNetworks = nil   // nor is the guard: the proxy is on loopback
	if got := w.succeeds(t); got.Address.IsValid() {
		t.Errorf("address %v", got.Address)
	}
	if got := <-asked; got != "CONNECT mta-sts.ex.test:443" {
		t.Error(got)
	}
	if r := w.seen()[0]; r.Host != "mta-sts.ex.test" || r.TLS.ServerName != "mta-sts.ex.test" {
		t.Errorf("host %s, SNI %s", r.Host, r.TLS.ServerName)
	}

	w = newWorld(t, nil, hostCertificate(t, "other.test"))
	w.fetcher.Proxy = proxy(t, w.listener.Addr().String(), asked, "200 OK")
	w.fails(t, WebPKIInvalid)

	w.fetcher.Proxy = proxy(t, w.listener.Addr().String(), asked, "403 Forbidden")
	w.fails(t, FetchFailed)

	silent := listen(t, "127.0.0.1:0", swallow)
	w.fetcher.Proxy = &url.URL{Scheme: "http", Host: silent.Addr().String()}
	w.fetcher.Timeout = 200 * time.Millisecond
	if _, failed := w.fails(t, FetchFailed); !errors.Is(failed, context.DeadlineExceeded) {
		t.Error(failed)
	}

	w.fetcher.Proxy = &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	if _, failed := w.fails(t, FetchFailed); !strings.Contains(failed.Error(), "connecting to the proxy") {
		t.Error(failed)
	}
}

// The proxy's own certificate is not the policy host's.
func TestRPT003_ProxyCertificate(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.fetcher.Proxy = &url.URL{Scheme: "https", Host: w.listener.Addr().String()} // its certificate is not for 127.0.0.1
	w.fails(t, FetchFailed)
}
