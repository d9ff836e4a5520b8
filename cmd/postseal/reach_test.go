package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/postfix/conf"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/dane"
)

// TestTLSVersions: protocols= as tls_proto_mask_lims reads it.
func TestTLSVersions(t *testing.T) {
	const v10, v11, v12, v13 = tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13
	for _, c := range []struct {
		list            string
		lowest, highest uint16
		some            bool
	}{
		{"", 0, 0, true},
		{">=TLSv1.2", v12, v13, true},
		{"<=TLSv1.2", v10, v12, true},
		{">=TLSv1.1:<=TLSv1.2", v11, v12, true},
		{">=0303", v12, v13, true},
		{">=0x0304", v13, v13, true},
		{">=none", v10, v13, true},
		{"<=None", v10, v13, true},
		{">=SSLv3", v10, v13, true},
		{"!SSLv2:!SSLv3", v10, v13, true},
		{"!SSLv2, !SSLv3, !TLSv1 !TLSv1.1", v12, v13, true},
		{"!TLSv1.3", v10, v12, true},
		{"!TLSv1.2", v10, v13, true}, // the gap is tried
		{"TLSv1.2", v12, v12, true},
		{"tlsv1.3:TLSv1.1", v11, v13, true},
		{"TLSv1.2:!TLSv1.2", 0, 0, false},
		{"SSLv3", 0, 0, false},
		{"<=SSLv3", 0, 0, false},
	} {
		if lowest, highest, some := tlsVersions(c.list); lowest != c.lowest || highest != c.highest || some != c.some {
			t.Errorf("%q: %x to %x, %t; want %x to %x, %t", c.list, lowest, highest, some, c.lowest, c.highest, c.some)
		}
	}
}

// sink is a mail host on loopback.
type sink struct {
	addr netip.AddrPort
	cert *x509.Certificate

	mu    sync.Mutex
	helos []string
	asked string // the server name, lately
}

// newSink serves a certificate for these names; without names there is no STARTTLS.
func newSink(t *testing.T, names ...string) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	var config *tls.Config
	if len(names) > 0 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if s.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		own := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
		config = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked = hello.ServerName
			return &own, nil
		}}
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { s.serve(c, config) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return s
}

func (s *sink) serve(c net.Conn, config *tls.Config) {
	defer func() { c.Close() }()
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, "220 sink ESMTP\r\n")
	for in := bufio.NewReader(c); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, name, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "EHLO":
			s.mu.Lock()
			s.helos = append(s.helos, name)
			s.mu.Unlock()
			if config != nil {
				io.WriteString(c, "250-sink\r\n250 STARTTLS\r\n")
			} else {
				io.WriteString(c, "250 sink\r\n")
			}
		case "STARTTLS":
			io.WriteString(c, "220 go\r\n")
			secured := tls.Server(c, config)
			c, in = secured, bufio.NewReader(secured)
		case "QUIT":
			io.WriteString(c, "221 bye\r\n")
			return
		}
	}
}

func (s *sink) helo() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.helos, " ")
}

func (s *sink) demand(t *testing.T, line string) policy.Demand {
	t.Helper()
	l, err := tlspolicy.Parse(line, tlspolicy.Version{})
	if err != nil {
		t.Fatal(err)
	}
	return policy.Demand{Host: "mx.ex.test", Port: s.addr.Port(), Addresses: []netip.Addr{s.addr.Addr()}, Nexthop: "ex.test", Line: l}
}

func testReach() *mailReach {
	return newMailReach(ReachConfig{Connections: 3}, slog.New(slog.DiscardHandler))
}

// withRoots is a Postfix that trusts what signed itself.
func withRoots(t *testing.T, cert *x509.Certificate, params map[string]string) *conf.Snapshot {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	sv := &conf.Service{Name: "smtp", Type: "unix", Command: "smtp", Params: map[string]string{"smtp_tls_CAfile": path}}
	for name, value := range params {
		sv.Params[name] = value
	}
	return &conf.Snapshot{Services: []*conf.Service{sv}}
}

// TestMailReachMainMatch: what main.cf says about certificates counts where the policy
// does not say. Who does not know it takes a good host for a bad one.
func TestMailReachMainMatch(t *testing.T) {
	good := newSink(t, "mx.ex.test")
	digest := sha256.Sum256(good.cert.Raw)
	prints := hex.EncodeToString(digest[:])
	for _, c := range []struct {
		line, param, value string
		want               policy.ReachVerdict
	}{
		{"secure", "smtp_tls_secure_cert_match", "nexthop, dot-nexthop", policy.ReachPositive}, // mx.ex.test is below ex.test
		{"secure", "smtp_tls_secure_cert_match", "nexthop", policy.ReachNegative},
		{"secure", "smtp_tls_secure_cert_match", "nexthop:hostname", policy.ReachPositive},
		{"secure match=nexthop", "smtp_tls_secure_cert_match", "nexthop, hostname", policy.ReachNegative},
		{"verify", "smtp_tls_verify_cert_match", "nexthop", policy.ReachNegative},
		{"verify", "smtp_tls_verify_cert_match", "nexthop, dot-nexthop", policy.ReachPositive},
		{"fingerprint", "smtp_tls_fingerprint_cert_match", "00:11, " + prints, policy.ReachPositive},
	} {
		r := testReach()
		r.configure(ReachConfig{}, withRoots(t, good.cert, map[string]string{c.param: c.value, "smtp_tls_servername": "hostname"}))
		d := policy.Demand{Host: "mx.ex.test", Port: good.addr.Port(), Addresses: []netip.Addr{good.addr.Addr()}, Nexthop: "ex.test"}
		level, attrs, _ := strings.Cut(c.line, " ")
		d.Line.Level, _ = tlspolicy.ParseLevel(level)
		if attrs != "" {
			d = good.demand(t, c.line)
		}
		if s := r.Probe(t.Context(), []policy.Demand{d}, false); s.Verdict != c.want {
			t.Errorf("%s, %s = %s: %+v", c.line, c.param, c.value, s)
		}
		good.mu.Lock()
		if good.asked != "mx.ex.test" {
			t.Errorf("%s: SNI %q", c.line, good.asked)
		}
		good.mu.Unlock()
	}
}

// TestMailReach: a rule's line against real hosts, in Postfix's terms.
func TestMailReach(t *testing.T) {
	good, bare := newSink(t, "mx.ex.test", "ex.test"), newSink(t)
	digest := sha256.Sum256(good.cert.Raw)
	print := hex.EncodeToString(digest[:])
	records := &dane.Host{Status: dane.Usable, Base: "mx.ex.test", Records: []dane.Record{{Usage: 3, Selector: 0, MatchingType: 1, Data: digest[:]}}}
	wrong := &dane.Host{Status: dane.Usable, Base: "mx.ex.test", Records: []dane.Record{{Usage: 3, Selector: 0, MatchingType: 1, Data: make([]byte, 32)}}}
	for _, c := range []struct {
		line  string
		dane  *dane.Host
		good  policy.ReachVerdict
		cause string
	}{
		{"may", nil, policy.ReachPositive, ""},
		{"encrypt", nil, policy.ReachPositive, ""},
		{"encrypt protocols=>=TLSv1.2", nil, policy.ReachPositive, ""},
		{"encrypt protocols=SSLv3", nil, policy.ReachUnknown, "leaves no version"},
		{"verify", nil, policy.ReachPositive, ""},
		{"secure", nil, policy.ReachPositive, ""},
		{"secure match=other.test:.ex.test", nil, policy.ReachPositive, ""},
		{"secure match=other.test", nil, policy.ReachNegative, "hostname mismatch"},
		{"secure tafile=/etc/ca.pem", nil, policy.ReachUnknown, "tafile="},
		{"fingerprint match=00:11|" + print, nil, policy.ReachPositive, ""},
		{"fingerprint match=00:11", nil, policy.ReachNegative, ""},
		{"dane-only", nil, policy.ReachUnknown, "TLSA records are not known"},
		{"dane-only", records, policy.ReachPositive, ""},
		{"dane-only", wrong, policy.ReachNegative, ""},
	} {
		r := testReach()
		r.configure(ReachConfig{}, withRoots(t, good.cert, nil))
		d := good.demand(t, c.line)
		d.DANE, d.SecureMX = c.dane, true
		s := r.Probe(t.Context(), []policy.Demand{d}, false)
		h := s.Hosts[0]
		if s.Verdict != c.good || h.Verdict != c.good || !strings.Contains(h.Cause, c.cause) || h.Level != d.Line.Level.String() {
			t.Errorf("%s: %s, host %+v; want %s, %q", c.line, s.Verdict, h, c.good, c.cause)
		}
		if h.Address != "127.0.0.1" || !h.Offered || h.Version != "TLSv1.3" || len(h.Names) != 2 || h.Trust == "" || h.Expires.IsZero() {
			t.Errorf("%s: %+v", c.line, h)
		}
		if again := r.Standing([]policy.Demand{d}); again.Verdict != s.Verdict {
			t.Errorf("%s: remembered as %s", c.line, again.Verdict)
		}
		d = bare.demand(t, c.line)
		d.DANE = c.dane
		want := policy.ReachNegative
		if c.line == "may" {
			want = policy.ReachPositive
		}
		if s := r.Probe(t.Context(), []policy.Demand{d}, true); s.Verdict != want || s.Hosts[0].Offered || s.FirstNegative.IsZero() == (want == policy.ReachNegative) {
			t.Errorf("%s without STARTTLS: %+v", c.line, s)
		}
	}
}

// TestMailReachTogether: every host must be negative, and another must be good.
func TestMailReachTogether(t *testing.T) {
	good, bare := newSink(t, "mx.ex.test"), newSink(t)
	r := testReach()
	a, b := good.demand(t, "encrypt"), bare.demand(t, "encrypt")
	a.Host, b.Host = "mx1.ex.test", "mx2.ex.test"
	a.Addresses, b.Addresses = nil, []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	if s := r.Probe(t.Context(), []policy.Demand{a, b}, false); s.Verdict != policy.ReachUnknown || len(s.Hosts) != 2 || s.Hosts[1].Verdict != policy.ReachNegative {
		t.Errorf("a host without addresses: %+v", s)
	}
	a.Addresses = b.Addresses
	if s := r.Probe(t.Context(), []policy.Demand{a, b}, false); s.Verdict != policy.ReachPositive || s.LastSecured.IsZero() {
		t.Errorf("%+v", s)
	}
	b.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
	r.configure(ReachConfig{}, withRoots(t, good.cert, map[string]string{"inet_protocols": "ipv4"}))
	if s := r.Probe(t.Context(), []policy.Demand{b}, false); s.Verdict != policy.ReachNegative {
		t.Errorf("inet_protocols = ipv4: %+v", s)
	}
}

// TestMailReachClient: name, addresses and trust are Postfix's, or those of [reach].
func TestMailReachClient(t *testing.T) {
	good, other := newSink(t, "mx.ex.test", "ex.test"), newSink(t, "x.test")
	trusted := withRoots(t, good.cert, map[string]string{"smtp_helo_name": "out.site.test", "smtp_bind_address": "127.0.0.9", "smtp_bind_address6": "::1"})
	foreign := withRoots(t, other.cert, nil)
	none := &conf.Snapshot{Services: []*conf.Service{{Command: "smtp", Params: map[string]string{}}}}
	lost := &conf.Snapshot{Services: []*conf.Service{{Command: "smtp", Params: map[string]string{"smtp_tls_CAfile": "/nowhere/ca.pem"}}}}
	anchors := withRoots(t, good.cert, map[string]string{"smtp_tls_trust_anchor_file": "/etc/anchors.pem"})
	for _, c := range []struct {
		what    string
		config  ReachConfig
		postfix *conf.Snapshot
		want    policy.ReachVerdict
		helo    string
	}{
		{"trusted", ReachConfig{}, trusted, policy.ReachPositive, "out.site.test"},
		{"[reach] before Postfix", ReachConfig{HeloName: "probe.site.test", Source: []netip.Addr{netip.MustParseAddr("127.0.0.8")}}, trusted, policy.ReachPositive, "probe.site.test"},
		{"other roots", ReachConfig{}, foreign, policy.ReachNegative, ""},
		{"no roots", ReachConfig{}, none, policy.ReachUnknown, ""},
		{"roots that cannot be read", ReachConfig{}, lost, policy.ReachUnknown, ""},
		{"trust anchors", ReachConfig{}, anchors, policy.ReachUnknown, ""},
		{"no Postfix", ReachConfig{}, nil, policy.ReachNegative, ""}, // the system's
	} {
		r := testReach()
		r.configure(c.config, c.postfix)
		s := r.Probe(t.Context(), []policy.Demand{good.demand(t, "secure")}, false)
		if s.Verdict != c.want {
			t.Errorf("%s: %+v", c.what, s)
		}
		if !strings.HasSuffix(good.helo(), c.helo) {
			t.Errorf("%s: said %s", c.what, good.helo())
		}
	}
}

// TestRootsBelow: smtp_tls_CApath holds names as c_rehash(1) makes them.
func TestRootsBelow(t *testing.T) {
	good := newSink(t, "mx.ex.test", "ex.test")
	dir := t.TempDir()
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.cert.Raw})
	for name, content := range map[string][]byte{"0123abcd.1": []byte("no certificate"), "README": block} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	postfix := &conf.Snapshot{Services: []*conf.Service{{Command: "smtp", Params: map[string]string{"smtp_tls_CApath": dir}}}}
	r := testReach()
	r.configure(ReachConfig{}, postfix)
	if s := r.Probe(t.Context(), []policy.Demand{good.demand(t, "secure")}, true); s.Verdict != policy.ReachUnknown {
		t.Errorf("no name of a digest: %+v", s)
	}
	if err := os.WriteFile(filepath.Join(dir, "0123abcd.0"), block, 0o644); err != nil {
		t.Fatal(err)
	}
	r.configure(ReachConfig{}, postfix)
	if s := r.Probe(t.Context(), []policy.Demand{good.demand(t, "secure")}, true); s.Verdict != policy.ReachPositive {
		t.Errorf("%+v", s)
	}
}
