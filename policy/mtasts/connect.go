package mtasts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
)

// route carries the one request of a fetch.
type route struct {
	http.RoundTripper
	address   netip.AddrPort
	canonical string // the end of the policy host's CNAME chain, if known
	close     func()
}

// get sends the request. When the time is up, http.Transport closes the
// connection, and a server that notices ends its response properly while that
// can still be read: what came so late is half a policy and does not count.
func (r route) get(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTrip(req)
	if err == nil && req.Context().Err() != nil {
		resp.Body.Close()
		return nil, req.Context().Err()
	}
	return resp, err
}

// errProxy keeps the proxy's failures, its certificate above all, apart from
// those of the policy host.
var errProxy = errors.New("connecting to the proxy")

// connect makes the connection before HTTP comes in. http.Transport would dial
// in a goroutine that outlives the request; this way all that a fetch starts
// ends with it, and a failure is known for what it is.
//
// Beside an error the route holds what is known of address and canonical.
func (f *Fetcher) connect(ctx context.Context, host string) (route, error) {
	if f.Transport != nil {
		return route{RoundTripper: f.Transport, close: func() {}}, nil
	}
	if f.Proxy != nil {
		conn, err := f.dialProxy(ctx)
		if err != nil {
			return route{}, fmt.Errorf("%w: %w", errProxy, err)
		}
		return f.route(conn, http.ProxyURL(f.Proxy)), nil
	}
	found, canonical, err := f.dialHost(ctx, host)
	if err != nil {
		return route{address: found.address, canonical: canonical}, err
	}
	r := f.route(found.conn, nil)
	r.address, r.canonical = found.address, canonical
	r.close = func() {
		found.conn.Close()
		// A goroutine of http.Transport may be closing it just now. Closed it is,
		// and its place given back, when the one below TLS is.
		found.conn.NetConn().Close()
	}
	return r, nil
}

// route puts a transport around an established connection.
func (f *Fetcher) route(conn net.Conn, proxy func(*http.Request) (*url.URL, error)) route {
	var given atomic.Bool
	give := func(context.Context, string, string) (net.Conn, error) {
		if given.Swap(true) {
			return nil, errors.New("a fetch has a single connection")
		}
		return conn, nil
	}
	t := &http.Transport{
		Proxy:                  proxy, // nil: the environment's is not used
		DialContext:            give,
		DialTLSContext:         give,
		TLSClientConfig:        f.tlsConfig(), // behind a proxy; it fills in the name
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	return route{RoundTripper: t, close: func() { conn.Close() }}
}

// dialProxy connects to the proxy, by name with the system's resolver as the
// operator would expect of a line in a configuration.
func (f *Fetcher) dialProxy(ctx context.Context) (net.Conn, error) {
	port := f.Proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[f.Proxy.Scheme]
	}
	address := net.JoinHostPort(f.Proxy.Hostname(), port)
	if f.Proxy.Scheme == "https" {
		d := tls.Dialer{Config: f.tlsConfig()}
		return d.DialContext(ctx, "tcp", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}
