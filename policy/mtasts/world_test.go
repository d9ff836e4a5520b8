package mtasts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/resolver/resolvertest"
)

// authority is a CA in memory.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes a CA, below another one unless parent is nil.
func newAuthority(t *testing.T, name string, parent *authority) *authority {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, key := sign(t, template, parent)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func sign(t *testing.T, template *x509.Certificate, by *authority) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	issuer, with := template, key
	if by != nil {
		issuer, with = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), with)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// issue makes a server certificate from a template; by nil means self-signed.
func issue(t *testing.T, template x509.Certificate, by *authority, chain ...*authority) tls.Certificate {
	t.Helper()
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, key := sign(t, &template, by)
	c := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	for _, a := range chain {
		c.Certificate = append(c.Certificate, a.cert.Raw)
	}
	return c
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// world is a policy host on a loopback address, a DNS that knows it as
// mta-sts.ex.test, and a fetcher that may go there.
type world struct {
	ca       *authority
	server   *httptest.Server
	listener *countingListener
	dns      *resolvertest.DNS
	fetcher  *Fetcher

	mu       sync.Mutex
	requests []*http.Request
}

const zone = "mta-sts.ex.test 300 A 127.0.0.1\nnodata mta-sts.ex.test 60 AAAA"

// newWorld starts a host that serves handler, nil meaning the good policy.
// change may alter the server's TLS before it starts, nil meaning a certificate
// for the host by the fetcher's CA.
func newWorld(t *testing.T, handler http.HandlerFunc, change func(*tls.Config, *authority)) *world {
	t.Helper()
	w := &world{ca: newAuthority(t, "Root", nil), dns: resolvertest.New(zone)}
	if handler == nil {
		handler = serve("text/plain", good)
	}
	w.server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.requests = append(w.requests, r)
		w.mu.Unlock()
		handler(rw, r)
	}))
	w.listener = &countingListener{Listener: w.server.Listener}
	w.server.Listener = w.listener
	w.server.Config.ErrorLog = quiet()
	w.server.TLS = &tls.Config{}
	if change == nil {
		change = func(c *tls.Config, ca *authority) {
			c.Certificates = []tls.Certificate{issue(t, x509.Certificate{DNSNames: []string{"mta-sts.ex.test"}}, ca)}
		}
	}
	change(w.server.TLS, w.ca)
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	w.fetcher = &Fetcher{
		Resolver:      w.dns,
		RootCAs:       w.ca.pool(),
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Timeout:       10 * time.Second,
		port:          w.listener.Addr().(*net.TCPAddr).AddrPort().Port(),
	}
	return w
}

func serve(mediaType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		if mediaType != "" {
			w.Header().Set("Content-Type", mediaType)
		}
		w.Write([]byte(body))
	}
}

// fails fetches and expects a failure of the given kind.
func (w *world) fails(t *testing.T, kind Failure) (Fetched, *FetchError) {
	t.Helper()
	got, err := w.fetcher.Fetch(t.Context(), "ex.test")
	var failed *FetchError
	if !errors.As(err, &failed) {
		t.Fatalf("got %+v, %v; want a failure", got.Policy, err)
	}
	if failed.Kind != kind {
		t.Fatalf("%v: %v, want %v", failed.Kind, failed, kind)
	}
	return got, failed
}

// succeeds fetches and expects the good policy, perhaps with more fields.
func (w *world) succeeds(t *testing.T) Fetched {
	t.Helper()
	got, err := w.fetcher.Fetch(t.Context(), "ex.test")
	if err != nil {
		t.Fatal(err)
	}
	if !got.Policy.Match("mail.ex.test") || got.Policy.Mode != ModeEnforce {
		t.Fatalf("%+v", got.Policy)
	}
	return got
}

func (w *world) seen() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests
}

// countingListener counts the connections that came in.
type countingListener struct {
	net.Listener
	mu    sync.Mutex
	count int
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.count++
		l.mu.Unlock()
	}
	return c, err
}

func (l *countingListener) accepted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}
