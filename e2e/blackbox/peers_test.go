package blackbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The addresses of the peers that the tests share.
const (
	resolverAddress   = "127.0.0.1"  // a validating resolver
	strippingAddress  = "127.0.0.5"  // the same without AD
	offlineAddress    = "127.0.0.6"  // MTA-STS cannot be seen
	deadAddress       = "127.0.0.7"  // SERVFAIL
	silentAddress     = "127.0.0.8"  // never answers
	refusingAddress   = "127.0.0.9"  // REFUSED
	stubAddress       = "127.0.0.11" // Docker's stub
	policyHostAddress = "127.0.0.2"
	lateAddress       = "127.0.0.10" // answers 400 ms late
)

var (
	truth *zone
	sites *policyHost
	// roots is the file with the authority's certificate.
	roots string

	nameServers = map[string]*nameServer{}
)

func openPeers() error {
	truth = newZone()
	truth.sets[". NS"] = &rrset{}
	truth.names["."] = true
	for address, v := range map[string]view{resolverAddress: {}, strippingAddress: {stripAD: true}, offlineAddress: {offline: true},
		deadAddress: {dead: true}, silentAddress: {silent: true}, refusingAddress: {refuse: true}, stubAddress: {}, private: {}, lateAddress: {delay: 400 * time.Millisecond}} {
		s, err := startNameServer(truth, address, v)
		if err != nil {
			return err
		}
		nameServers[address] = s
	}
	authority, err := newAuthority()
	if err != nil {
		return err
	}
	roots = filepath.Join(filepath.Dir(program), "ca.pem")
	if err := os.WriteFile(roots, authority.pem(), 0o644); err != nil {
		return err
	}
	sites, err = startPolicyHost(authority)
	return err
}

func closePeers() {
	sites.server.Close()
	for _, s := range nameServers {
		s.close()
	}
}

// authority issues certificates. All leaves share one key.
type authority struct {
	key, leaf *ecdsa.PrivateKey
	cert      *x509.Certificate
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &authority{key: key, leaf: leaf}
	a.cert, err = issue(&x509.Certificate{Subject: pkix.Name{CommonName: "blackbox"}, IsCA: true}, nil, key, key)
	return a, err
}

func issue(template, parent *x509.Certificate, subject, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-24 * time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if template.IsCA {
		template.BasicConstraintsValid, template.KeyUsage = true, x509.KeyUsageCertSign
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, subject.Public(), signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// site is how the policy host of one domain behaves.
type site struct {
	body    string
	status  int               // default 200
	header  map[string]string // Content-Type is text/plain unless given; "" means none
	names   string            // of the certificate; default mta-sts.DOMAIN
	cert    string            // "expired", "future", "self-signed", "unknown", "cn", "no-intermediate"
	maxTLS  uint16
	delay   time.Duration // before the answer
	handler http.HandlerFunc
}

// policyHost serves every policy host, told apart by SNI.
type policyHost struct {
	authority *authority
	server    *http.Server

	mu       sync.Mutex
	sites    map[string]*site
	requests map[string][]*http.Request
	hellos   map[string]int
}

func startPolicyHost(a *authority) (*policyHost, error) {
	h := &policyHost{authority: a, sites: map[string]*site{}, requests: map[string][]*http.Request{}, hellos: map[string]int{}}
	// What goes wrong in a handshake here is what a case asked for.
	h.server = &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS10, GetConfigForClient: h.configuration}}
	for _, address := range []string{policyHostAddress, private, "[::1]"} {
		l, err := net.Listen("tcp", address+":443")
		if err != nil {
			return nil, err
		}
		go func() { _ = h.server.ServeTLS(l, "", "") }()
	}
	return h, nil
}

// publish sets what a domain's policy host does; nil: the handshake is refused.
func (h *policyHost) publish(domain string, s *site) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sites[domain] = s
}

// gets counts the requests for a domain's policy.
func (h *policyHost) gets(domain string) int { return len(h.received(domain)) }

func (h *policyHost) received(domain string) []*http.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[domain]
}

// connections counts the handshakes for a domain.
func (h *policyHost) connections(domain string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hellos[domain]
}

func domainOf(server string) string { return strings.TrimPrefix(strings.ToLower(server), "mta-sts.") }

func (h *policyHost) configuration(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	domain := domainOf(hello.ServerName)
	h.mu.Lock()
	s := h.sites[domain]
	h.hellos[domain]++
	h.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("no policy host %q", hello.ServerName)
	}
	c, err := h.authority.certificate(s, "mta-sts."+domain)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: s.maxTLS, Certificates: []tls.Certificate{*c}, NextProtos: []string{"http/1.1"}}, nil
}

func (a *authority) certificate(s *site, name string) (*tls.Certificate, error) {
	template := &x509.Certificate{DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if s.names != "" {
		template.DNSNames = strings.Split(s.names, ",")
	}
	parent, signer := a.cert, a.key
	switch s.cert {
	case "expired":
		template.NotBefore, template.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	case "future":
		template.NotBefore, template.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
	case "self-signed":
		parent, signer = nil, a.leaf
	case "cn":
		template.DNSNames, template.Subject = nil, pkix.Name{CommonName: name}
	case "unknown", "no-intermediate":
		other, err := newAuthority()
		if err != nil {
			return nil, err
		}
		if parent, signer = other.cert, other.key; s.cert == "no-intermediate" {
			parent, err = issue(&x509.Certificate{Subject: pkix.Name{CommonName: "between"}, IsCA: true}, a.cert, other.key, a.key)
			if err != nil {
				return nil, err
			}
		}
	}
	cert, err := issue(template, parent, a.leaf, signer)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: a.leaf}, nil
}

// ServeHTTP answers as the domain's site says.
func (h *policyHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	domain := domainOf(r.TLS.ServerName)
	h.mu.Lock()
	s := h.sites[domain]
	h.requests[domain] = append(h.requests[domain], r)
	h.mu.Unlock()
	if s == nil {
		http.NotFound(w, r)
		return
	}
	if s.handler != nil {
		s.handler(w, r)
		return
	}
	if s.delay > 0 {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(s.delay):
		}
	}
	if r.URL.Path != "/.well-known/mta-sts.txt" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	for name, value := range s.header {
		if value == "" {
			w.Header()[name] = nil
			continue
		}
		w.Header().Set(name, value)
	}
	if s.status != 0 {
		w.WriteHeader(s.status)
	}
	_, _ = io.WriteString(w, s.body) // the asker has gone: its own matter
}

// enforce is a policy of mode enforce for some patterns.
func enforce(mx ...string) string { return policyText("enforce", mx...) }

func policyText(mode string, mx ...string) string {
	text := "version: STSv1\nmode: " + mode + "\n"
	for _, m := range mx {
		text += "mx: " + m + "\n"
	}
	return text + "max_age: 604800\n"
}

// publishSTS gives a domain a record with an id and a policy host with a policy.
func publishSTS(t testing.TB, domain, id, body string) {
	t.Helper()
	truth.publish(t, "_mta-sts."+domain+" TXT \"v=STSv1; id="+id+"\"\nmta-sts."+domain+" A "+policyHostAddress)
	sites.publish(domain, &site{body: body})
}

// publishPlain gives a domain one mail host without TLSA records.
func publishPlain(t testing.TB, domain string) {
	t.Helper()
	truth.publish(t, domain+" MX 10 mx."+domain+"\nmx."+domain+" A 192.0.2.25")
}
