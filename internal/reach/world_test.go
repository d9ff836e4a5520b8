package reach

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// identity is a certificate with its key and those above it.
type identity struct {
	cert  *x509.Certificate
	key   crypto.Signer
	above []*x509.Certificate // sent with it; the root is not
}

func (i *identity) tls() tls.Certificate {
	c := tls.Certificate{PrivateKey: i.key, Certificate: [][]byte{i.cert.Raw}}
	for _, a := range i.above {
		c.Certificate = append(c.Certificate, a.Raw)
	}
	return c
}

func (i *identity) chain() []*x509.Certificate {
	return append([]*x509.Certificate{i.cert}, i.above...)
}

func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	if kind == "rsa" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate; edit may change the template. A nil issuer makes it
// self-signed.
func issue(t testing.TB, issuer *identity, name string, edit func(*x509.Certificate)) *identity {
	t.Helper()
	kind := "ec"
	if strings.HasPrefix(name, "rsa.") {
		kind = "rsa"
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if edit != nil {
		edit(template)
	}
	i := &identity{key: newKey(t, kind)}
	parent, signer := template, i.key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, i.key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if i.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if issuer != nil && !selfSigned(issuer.cert) {
		i.above = issuer.chain()
	}
	return i
}

func authority(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
}

func named(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

// pki is a root, an authority below it, and another root that nobody trusts.
type pki struct {
	root, middle, foreign *identity
	roots                 *x509.CertPool
}

func newPKI(t testing.TB) *pki {
	p := &pki{root: issue(t, nil, "Root", authority), foreign: issue(t, nil, "Foreign Root", authority)}
	p.middle = issue(t, p.root, "Middle", authority)
	p.roots = x509.NewCertPool()
	p.roots.AddCert(p.root.cert)
	return p
}

// host is a mail host that says what it is told to. Replies without a line end
// are followed by the end of the connection; empty ones by silence.
type host struct {
	banner, ehlo, helo, starttls, quit string
	tls                                *tls.Config

	mu    sync.Mutex
	lines []string // what clients said, in clear and in TLS
	conns int      // at the same time
	most  int
}

const (
	banner220   = "220 mx.ex.test ESMTP\r\n"
	ehlo250     = "250-mx.ex.test\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
	ehlo250None = "250-mx.ex.test\r\n250-SIZE 1000\r\n250 8BITMIME\r\n"
	ready220    = "220 2.0.0 go ahead\r\n"
)

func newHost(id *identity) *host {
	h := &host{banner: banner220, ehlo: ehlo250, helo: "250 mx.ex.test\r\n", starttls: ready220, quit: "221 bye\r\n"}
	if id != nil {
		h.tls = &tls.Config{Certificates: []tls.Certificate{id.tls()}, MinVersion: tls.VersionTLS10}
	}
	return h
}

func (h *host) serve(c net.Conn) {
	h.mu.Lock()
	h.conns++
	h.most = max(h.most, h.conns)
	h.mu.Unlock()
	defer func() {
		c.Close()
		h.mu.Lock()
		h.conns--
		h.mu.Unlock()
	}()
	if !say(c, h.banner) {
		return
	}
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		h.mu.Lock()
		h.lines = append(h.lines, line)
		h.mu.Unlock()
		verb, _, _ := strings.Cut(line, " ")
		switch verb {
		case "EHLO":
			if !say(c, h.ehlo) {
				return
			}
		case "HELO":
			if !say(c, h.helo) {
				return
			}
		case "STARTTLS":
			if !say(c, h.starttls) {
				return
			}
			if hello, err := in.Peek(1); err != nil || hello[0] != 0x16 {
				continue
			}
			if h.tls == nil {
				say(c, "502 what\r\n")
				return
			}
			secured := tls.Server(peeked{c, in}, h.tls)
			if secured.Handshake() != nil {
				return
			}
			c, in = secured, bufio.NewReader(secured)
		case "QUIT":
			say(c, h.quit)
			return
		default:
			say(c, "502 what\r\n")
		}
	}
}

// peeked is a connection of which a reader has taken something.
type peeked struct {
	net.Conn
	in *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.in.Read(b) }

// say returns false when the connection is to end.
func say(c net.Conn, text string) bool {
	if text == "" {
		io.Copy(io.Discard, c) // silent until the client has gone
		return false
	}
	_, err := io.WriteString(c, text)
	return err == nil && strings.HasSuffix(text, "\n")
}

func (h *host) said() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

// listen serves a host on an address until the end of the test.
func listen(t testing.TB, address string, serve func(net.Conn)) netip.AddrPort {
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
			all.Go(func() { serve(c) })
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
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// pipes is a Dial without a network: every connection is a net.Pipe to serve.
func pipes(serve func(net.Conn)) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		go serve(there)
		return here, nil
	}
}

func target(at netip.AddrPort, level Level, match ...string) Target {
	return Target{
		Host: "mx.ex.test", Port: at.Port(), Addresses: []netip.Addr{at.Addr()}, Nexthop: "ex.test", Level: level, Match: match,
	}
}
