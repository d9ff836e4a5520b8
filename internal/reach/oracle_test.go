package reach

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// oracle returns the path of a program that judges beside us.
func oracle(t *testing.T, program, install string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if path = "/usr/sbin/" + program; fileExists(path) {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no %s here: install %s, this test must not be missing in CI", program, install)
	}
	t.Skipf("no %s here: install %s", program, install)
	return ""
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func writePEM(t *testing.T, certs ...*x509.Certificate) string {
	t.Helper()
	var b strings.Builder
	for _, c := range certs {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

var summary = regexp.MustCompile(`(Anonymous|Untrusted|Trusted|Verified) TLS connection established to .*: (TLSv[0-9.]+) with cipher`)

// TestPostfixAgrees puts the same hosts and levels to posttls-finger(1), which
// is smtp(8)'s TLS client. It does not say so when a level is missed; the word
// for the session does: nothing but Verified is good where the level
// authenticates. The host is localhost for both, since Postfix must look it up.
func TestPostfixAgrees(t *testing.T) {
	finger := oracle(t, "posttls-finger", "postfix")
	config := t.TempDir()
	if err := os.WriteFile(filepath.Join(config, "main.cf"), []byte("compatibility_level = 3.6\nmyhostname = client.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := newPKI(t)
	odd := issue(t, nil, "Root for clients", func(c *x509.Certificate) {
		authority(c)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	p.roots.AddCert(odd.cert)
	roots := writePEM(t, p.root.cert, odd.cert)
	leaf := func(issuer *identity, name string, edit func(*x509.Certificate)) *identity {
		return issue(t, issuer, name, edit)
	}
	past := func(c *x509.Certificate) {
		c.DNSNames, c.NotBefore, c.NotAfter = []string{"localhost"}, time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	}
	usage := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames, c.ExtKeyUsage = []string{"localhost"}, u }
	}
	below := func(edit func(*x509.Certificate)) *identity { // an authority that is not quite one
		return leaf(leaf(p.root, "Odd", func(c *x509.Certificate) { authority(c); edit(c) }), "localhost", named("localhost"))
	}
	long := leaf(p.root, "Short", func(c *x509.Certificate) { authority(c); c.MaxPathLenZero = true })
	long = leaf(leaf(long, "One too many", authority), "localhost", named("localhost"))
	good := leaf(p.middle, "localhost", named("localhost"))
	lonely := leaf(nil, "localhost", named("localhost"))
	for _, c := range []struct {
		name  string
		id    *identity
		edit  func(*host)
		level Level
		match []string
	}{
		{"good", good, nil, Encrypt, nil},
		{"good", good, nil, Verify, []string{"hostname"}},
		{"good", good, nil, Secure, []string{"localhost"}},
		{"good, other match", good, nil, Secure, []string{"other.test"}},
		{"good, one of two", good, nil, Secure, []string{"other.test", "localhost"}},
		{"RSA", leaf(p.middle, "rsa.test", named("localhost")), nil, Verify, []string{"hostname"}},
		{"below the root", leaf(p.root, "localhost", named("localhost")), nil, Verify, []string{"hostname"}},
		{"common name", leaf(p.root, "localhost", nil), nil, Verify, []string{"hostname"}},
		{"common name beside another", leaf(p.root, "localhost", named("other.test")), nil, Verify, []string{"hostname"}},
		{"wildcard", leaf(p.root, "x", named("*.ex.test")), nil, Secure, []string{"mx.ex.test"}},
		{"wildcard, deep", leaf(p.root, "x", named("*.ex.test")), nil, Secure, []string{"a.mx.ex.test"}},
		{"wildcard, parent", leaf(p.root, "x", named("*.ex.test")), nil, Secure, []string{".ex.test"}},
		{"wildcard, literal", leaf(p.root, "x", named("*.ex.test")), nil, Secure, []string{"*.ex.test"}},
		{"wildcard, short", leaf(p.root, "x", named("*.test")), nil, Secure, []string{"ex.test"}},
		{"wildcard, partial", leaf(p.root, "x", named("m*.ex.test")), nil, Secure, []string{"mx.ex.test"}},
		{"wildcard, underscore", leaf(p.root, "x", named("*.ex.test")), nil, Secure, []string{"a_b.ex.test"}},
		{"wildcard, A-label", leaf(p.root, "x", named("*.ex.test")), nil, Secure, []string{"xn--bcher-kva.ex.test"}},
		{"parent, deep", leaf(p.root, "x", named("a.b.ex.test")), nil, Secure, []string{".ex.test"}},
		{"parent itself", leaf(p.root, "x", named("ex.test")), nil, Secure, []string{".ex.test"}},
		{"expired", leaf(p.middle, "localhost", past), nil, Verify, []string{"hostname"}},
		{"expired", leaf(p.middle, "localhost", past), nil, Encrypt, nil},
		{"self-signed", lonely, nil, Verify, []string{"hostname"}},
		{"self-signed", lonely, nil, Encrypt, nil},
		{"foreign", leaf(p.foreign, "localhost", named("localhost")), nil, Secure, []string{"localhost"}},
		{"chain not sent", &identity{cert: good.cert, key: good.key}, nil, Verify, []string{"hostname"}},
		{"early", leaf(p.root, "localhost", func(c *x509.Certificate) {
			c.DNSNames, c.NotBefore = []string{"localhost"}, time.Now().Add(time.Hour)
		}), nil, Verify, []string{"hostname"}},
		{"issuer is no authority", below(func(c *x509.Certificate) { c.IsCA = false }), nil, Verify, []string{"hostname"}},
		{"issuer may not sign", below(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), nil, Verify, []string{"hostname"}},
		{"issuer for clients", below(usage(x509.ExtKeyUsageClientAuth)), nil, Verify, []string{"hostname"}},
		{"issuer expired", below(past), nil, Verify, []string{"hostname"}},
		{"issuer for other names", below(func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"ex.test"}
		}), nil, Verify, []string{"hostname"}},
		{"issuer for these names", below(func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"localhost"}
		}), nil, Verify, []string{"hostname"}},
		{"path too long", long, nil, Verify, []string{"hostname"}},
		{"for clients", leaf(p.root, "localhost", usage(x509.ExtKeyUsageClientAuth)), nil, Verify, []string{"hostname"}},
		{"for clients and servers", leaf(p.root, "localhost", usage(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)), nil, Verify, []string{"hostname"}},
		{"for anything, said so", leaf(p.root, "localhost", usage(x509.ExtKeyUsageAny)), nil, Verify, []string{"hostname"}},
		{"for server gated cryptography", leaf(p.root, "localhost", usage(x509.ExtKeyUsageNetscapeServerGatedCrypto)), nil, Verify, []string{"hostname"}},
		{"issuer for anything, said so", below(usage(x509.ExtKeyUsageAny)), nil, Verify, []string{"hostname"}},
		{"issuer for servers", below(usage(x509.ExtKeyUsageServerAuth)), nil, Verify, []string{"hostname"}},
		{"root for clients", leaf(odd, "localhost", named("localhost")), nil, Verify, []string{"hostname"}},
		{"for anything", leaf(p.root, "localhost", usage()), nil, Verify, []string{"hostname"}},
		{"fingerprint", lonely, nil, Fingerprint, []string{strings.ToUpper(colons(digest(lonely.cert.Raw, 32)))}},
		{"fingerprint of the key", lonely, nil, Fingerprint, []string{colons(digest(lonely.cert.RawSubjectPublicKeyInfo, 32))}},
		{"other fingerprint", lonely, nil, Fingerprint, []string{colons(digest(good.cert.Raw, 32))}},
		{"TLS 1.2", good, func(h *host) { h.tls.MaxVersion = tls.VersionTLS12 }, Verify, []string{"hostname"}},
		{"TLS 1.1", good, func(h *host) { h.tls.MaxVersion = tls.VersionTLS11 }, Verify, []string{"hostname"}},
		{"TLS 1.0", good, func(h *host) { h.tls.MaxVersion = tls.VersionTLS10 }, Fingerprint, []string{colons(digest(good.cert.Raw, 32))}},
		{"TLS 1.1", good, func(h *host) { h.tls.MaxVersion = tls.VersionTLS11 }, Encrypt, nil},
		{"not offered", good, func(h *host) { h.ehlo = ehlo250None }, Encrypt, nil},
		{"454", good, func(h *host) { h.starttls = "454 no\r\n" }, Encrypt, nil},
		{"421", good, func(h *host) { h.banner = "421 no\r\n" }, Encrypt, nil},
		{"LF and equals", good, func(h *host) { h.ehlo = "250-a\n250-starttls=1\n250 b\n" }, Encrypt, nil},
	} {
		t.Run(fmt.Sprintf("%s, %s", c.name, c.level), func(t *testing.T) {
			h := newHost(c.id)
			if c.edit != nil {
				c.edit(h)
			}
			at := listen(t, "127.0.0.1:0", h.serve)
			args := append([]string{"-a", "ipv4", "-h", "native", "-l", string(c.level), "-L", "summary", "-F", roots, "-d", "sha256", fmt.Sprintf("[localhost]:%d", at.Port())}, c.match...)
			command := exec.CommandContext(t.Context(), finger, args...)
			command.Env = append(os.Environ(), "MAIL_CONFIG="+config)
			said, _ := command.CombinedOutput()
			session := summary.FindStringSubmatch(string(said))

			goal := target(at, c.level, c.match...)
			goal.Host, goal.Nexthop = "localhost", "localhost"
			a := (&Prober{Roots: p.roots, HeloName: "client.test"}).Probe(t.Context(), goal).Attempts[0]
			if a.Handshake != (session != nil) {
				t.Fatalf("handshake %v (%s %s), Postfix:\n%s", a.Handshake, a.Text, a.Cause, said)
			}
			if session == nil {
				return
			}
			wants := !c.level.authenticates() || session[1] == verified
			if (a.Verdict == Positive) != wants || a.Verdict == Unknown || a.Version != session[2] {
				t.Errorf("%v %s %s, %s, Postfix:\n%s", a.Verdict, a.Text, a.Cause, a.Version, said)
			}
		})
	}
}

// TestOpenSSLAgrees puts the cases of DANE to openssl s_client(1), which is given
// the records that posttls-finger would look up.
func TestOpenSSLAgrees(t *testing.T) {
	openssl := oracle(t, "openssl", "openssl")
	for _, c := range daneCases(t) {
		if len(c.names) > 0 {
			continue // it takes no second name
		}
		t.Run(c.name, func(t *testing.T) {
			id := tls.Certificate{PrivateKey: c.host.key}
			for _, x := range c.host.chain() {
				id.Certificate = append(id.Certificate, x.Raw)
			}
			h := newHost(nil)
			h.tls = &tls.Config{Certificates: []tls.Certificate{id}}
			at := listen(t, "127.0.0.1:0", h.serve)
			args := []string{"s_client", "-starttls", "smtp", "-connect", at.String(), "-dane_tlsa_domain", "mx.ex.test", "-dane_ee_no_namechecks"}
			for _, r := range c.records {
				args = append(args, "-dane_tlsa_rrdata", fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.MatchingType, r.Data))
			}
			command := exec.CommandContext(t.Context(), openssl, args...)
			command.Stdin = strings.NewReader("QUIT\r\n")
			said, _ := command.CombinedOutput()
			if !strings.Contains(string(said), "Verify return code: ") {
				t.Fatalf("no session:\n%s", said)
			}
			if ok := strings.Contains(string(said), "Verify return code: 0 (ok)"); ok != c.meets {
				t.Errorf("OpenSSL says %v:\n%s", ok, said)
			}

			goal := target(netip.AddrPortFrom(at.Addr(), at.Port()), DANEOnly)
			goal.TLSA = c.records
			if r := new(Prober).Probe(t.Context(), goal); (r.Verdict == Positive) != c.meets || r.Verdict == Unknown {
				t.Errorf("%+v", r)
			}
		})
	}
}
