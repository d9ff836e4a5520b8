package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func hostCertificate(t *testing.T, names ...string) func(*tls.Config, *authority) {
	return func(c *tls.Config, ca *authority) {
		c.Certificates = []tls.Certificate{issue(t, x509.Certificate{DNSNames: names}, ca)}
	}
}

func TestSTS033_Certificate(t *testing.T) {
	const host = "mta-sts.ex.test"
	named := x509.Certificate{DNSNames: []string{host}}
	alone := func(template x509.Certificate) func(*tls.Config, *authority) {
		return func(c *tls.Config, ca *authority) { c.Certificates = []tls.Certificate{issue(t, template, ca)} }
	}
	for _, c := range []struct {
		name   string
		change func(*tls.Config, *authority)
		want   string // in the failure's text; empty means success
	}{
		{"exact", hostCertificate(t, host), ""},
		{"wildcard", hostCertificate(t, "*.ex.test"), ""},
		{"case", hostCertificate(t, "MTA-STS.Ex.Test"), ""},
		{"one of several", hostCertificate(t, "www.ex.test", host), ""},
		{"intermediate sent", func(c *tls.Config, ca *authority) {
			middle := newAuthority(t, "Middle", ca)
			c.Certificates = []tls.Certificate{issue(t, named, middle, middle)}
		}, ""},

		{"self-signed", func(c *tls.Config, _ *authority) {
			template := named
			template.Subject.CommonName = host
			c.Certificates = []tls.Certificate{issue(t, template, nil)}
		}, "self-signed"},
		{"expired", alone(x509.Certificate{
			DNSNames: []string{host}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
		}), "it expired on "},
		{"not yet valid", alone(x509.Certificate{
			DNSNames: []string{host}, NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
		}), "it is not valid before "},
		{"common name only", alone(x509.Certificate{Subject: pkix.Name{CommonName: host}}), "a common name does not count"},
		{"address instead of a name", alone(x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}), "a common name does not count"},
		{"partial wildcard", hostCertificate(t, "m*.ex.test"), `valid for m*.ex.test, not mta-sts.ex.test (it has to name mta-sts.ex.test)`},
		{"wildcard inside", hostCertificate(t, "mta-sts.*.test"), `valid for mta-sts.*.test, not mta-sts.ex.test (it has to name mta-sts.ex.test)`},
		{"wildcard two labels away", hostCertificate(t, "*.test"), `valid for *.test, not mta-sts.ex.test (it has to name mta-sts.ex.test)`},
		{"parent only", hostCertificate(t, "ex.test"), `valid for ex.test, not mta-sts.ex.test (it has to name mta-sts.ex.test)`},
		{"hostile name", hostCertificate(t, "a.test\x1b[2J\n", "b.test"), `valid for a.test?[2J?, b.test, not`},
		{"many long names", hostCertificate(t, slices.Repeat([]string{strings.Repeat("a", 60) + ".test"}, 99)...), `… (it has to name mta-sts.ex.test)`},
		{"missing intermediate", func(c *tls.Config, ca *authority) {
			c.Certificates = []tls.Certificate{issue(t, named, newAuthority(t, "Middle", ca))}
		}, "intermediate certificates are probably missing"},
		{"another root", func(c *tls.Config, _ *authority) {
			other := newAuthority(t, "Other", nil)
			c.Certificates = []tls.Certificate{issue(t, named, other, other)}
		}, `issuer "CN=Other"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil, c.change)
			if c.want == "" {
				w.succeeds(t)
				return
			}
			got, failed := w.fails(t, WebPKIInvalid)
			if !strings.Contains(failed.Error(), c.want) {
				t.Errorf("%v; want %q", failed, c.want)
			}
			if n := len(w.seen()); n != 0 {
				t.Errorf("%d requests", n)
			}
			if !failed.Address.IsValid() || got.Address != failed.Address {
				t.Errorf("address %v", failed.Address)
			}
		})
	}
}

func TestSTS040_AliasKeepsTheName(t *testing.T) {
	const alias = "mta-sts.ex.test 300 CNAME mta-sts.hoster.test.\nmta-sts.hoster.test 300 A 127.0.0.1\nnodata mta-sts.hoster.test 60 AAAA"
	w := newWorld(t, nil, nil)
	w.fetcher.Resolver = newDNS(alias)
	w.succeeds(t)
	if r := w.seen()[0]; r.Host != "mta-sts.ex.test" || r.TLS.ServerName != "mta-sts.ex.test" {
		t.Errorf("host %s, SNI %s", r.Host, r.TLS.ServerName)
	}

	w = newWorld(t, nil, hostCertificate(t, "mta-sts.hoster.test"))
	w.fetcher.Resolver = newDNS(alias)
	_, failed := w.fails(t, WebPKIInvalid)
	if !strings.Contains(failed.Hint, "alias of mta-sts.hoster.test, which must have a certificate for mta-sts.ex.test") {
		t.Error(failed)
	}
}

func TestSTS034_SNI(t *testing.T) {
	w := newWorld(t, nil, func(c *tls.Config, ca *authority) {
		wrong := issue(t, x509.Certificate{DNSNames: []string{"default.test"}}, ca)
		right := issue(t, x509.Certificate{DNSNames: []string{"mta-sts.ex.test"}}, ca)
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName == "mta-sts.ex.test" {
				return &right, nil
			}
			return &wrong, nil
		}
	})
	w.succeeds(t)
}

func TestSTS035_TLSVersion(t *testing.T) {
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		w := newWorld(t, nil, func(c *tls.Config, ca *authority) {
			hostCertificate(t, "mta-sts.ex.test")(c, ca)
			c.MinVersion, c.MaxVersion = version, version
		})
		if ok {
			w.succeeds(t)
			continue
		}
		if _, failed := w.fails(t, FetchFailed); !strings.Contains(failed.Hint, "TLS 1.2") {
			t.Error(failed)
		}
	}
}

// What comes before the final response is bounded like a header.
func TestSTS038_EndlessInformationalResponses(t *testing.T) {
	w := newWorld(t, nil, nil)
	config := &tls.Config{Certificates: []tls.Certificate{issue(t, x509.Certificate{DNSNames: []string{"mta-sts.ex.test"}}, w.ca)}}
	w.fetcher.port = portOf(listen(t, "127.0.0.1:0", func(raw net.Conn) {
		c := tls.Server(raw, config)
		for {
			if _, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"); err != nil {
				return
			}
		}
	}))
	if _, failed := w.fails(t, FetchFailed); errors.Is(failed, context.DeadlineExceeded) {
		t.Error(failed)
	}
}

func TestPlainHTTPOnThePort(t *testing.T) {
	w := newWorld(t, nil, nil)
	l := listen(t, "127.0.0.1:0", func(c net.Conn) {
		c.Read(make([]byte, 1))
		c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	})
	w.fetcher.port = portOf(l)
	if _, failed := w.fails(t, FetchFailed); !strings.Contains(failed.Hint, "does not speak TLS") {
		t.Error(failed)
	}
}

// An empty trust store is our own trouble, and not reported as the host's.
func TestRPT003_NoRootsHere(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.fetcher.RootCAs = x509.NewCertPool()
	if _, failed := w.fails(t, FetchFailed); !strings.Contains(failed.Hint, "no CA roots") {
		t.Error(failed)
	}
}
