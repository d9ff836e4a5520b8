package reach

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestVerdicts holds whole probes, over TCP and real TLS.
func TestVerdicts(t *testing.T) {
	p := newPKI(t)
	good := issue(t, p.middle, "mx.ex.test", named("mx.ex.test", "*.wild.ex.test"))
	goodRSA := issue(t, p.middle, "rsa.ex.test", named("mx.ex.test"))
	wrong := issue(t, p.middle, "other.test", named("other.test"))
	expired := issue(t, p.middle, "mx.ex.test", func(c *x509.Certificate) {
		c.DNSNames, c.NotBefore, c.NotAfter = []string{"mx.ex.test"}, time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	})
	early := issue(t, p.middle, "mx.ex.test", func(c *x509.Certificate) {
		c.DNSNames, c.NotBefore = []string{"mx.ex.test"}, time.Now().Add(time.Hour)
	})
	lonely := issue(t, nil, "mx.ex.test", named("mx.ex.test"))
	foreign := issue(t, p.foreign, "mx.ex.test", named("mx.ex.test"))
	client := issue(t, p.middle, "mx.ex.test", func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"mx.ex.test"}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})

	const notVerified = "Server certificate not verified"
	for _, c := range []struct {
		name    string
		host    *host
		edit    func(*host)
		level   Level
		match   string
		verdict Verdict
		text    string // contained in Text
		cause   string // contained in Cause
		trust   string
	}{
		{"encrypt, good", newHost(good), nil, Encrypt, "", Positive, "Trusted TLS connection established to mx.ex.test[127.0.0.1]:", "", trusted},
		{"encrypt, RSA", newHost(goodRSA), nil, Encrypt, "", Positive, "TLSv1.3 with cipher TLS_", "", trusted},
		{"encrypt, self-signed", newHost(lonely), nil, Encrypt, "", Positive, "Untrusted TLS connection", "", untrusted},
		{"encrypt, expired", newHost(expired), nil, Encrypt, "", Positive, "Untrusted TLS connection", "", untrusted},
		{"verify, good", newHost(good), nil, Verify, "", Positive, "Verified TLS connection established", "", verified},
		{"verify, RSA", newHost(goodRSA), nil, Verify, "", Positive, "Verified TLS connection established", "", verified},
		{"verify, wrong name", newHost(wrong), nil, Verify, "", Negative, notVerified, "num=62:hostname mismatch", trusted},
		{"verify, expired", newHost(expired), nil, Verify, "", Negative, notVerified, "certificate has expired", untrusted},
		{"verify, early", newHost(early), nil, Verify, "", Negative, notVerified, "certificate not yet valid", untrusted},
		{"verify, self-signed", newHost(lonely), nil, Verify, "", Negative, notVerified, "self-signed certificate", untrusted},
		{"verify, foreign", newHost(foreign), nil, Verify, "", Negative, notVerified, "untrusted issuer CN=Foreign Root", untrusted},
		{"verify, client's", newHost(client), nil, Verify, "", Negative, notVerified, "not designated for use as a server certificate", untrusted},
		{"secure, default is the next hop and below", newHost(good), nil, Secure, "", Positive, "Verified", "", verified},
		{"secure, other", newHost(wrong), nil, Secure, "", Negative, notVerified, "num=62", trusted},
		{"secure, match", newHost(wrong), nil, Secure, "other.test", Positive, "Verified", "", verified},
		{"secure, strategy", newHost(good), nil, Secure, "nexthop", Negative, notVerified, "num=62", trusted},
		{"fingerprint of the certificate", newHost(expired), nil, Fingerprint, digest(expired.cert.Raw, 32), Positive, "Verified", "", verified},
		{"fingerprint of the key", newHost(lonely), nil, Fingerprint, colons(digest(lonely.cert.RawSubjectPublicKeyInfo, 64)), Positive, "Verified", "", verified},
		{"fingerprint by MD5", newHost(lonely), nil, Fingerprint, strings.ToUpper(digest(lonely.cert.Raw, 16)), Positive, "Verified", "", verified},
		{"fingerprint, other", newHost(good), nil, Fingerprint, digest(wrong.cert.Raw, 32), Negative, notVerified, "num=65", untrusted},
		{"fingerprint, none", newHost(good), nil, Fingerprint, "", Negative, notVerified, "num=65", untrusted},

		{"not offered", newHost(good), func(h *host) { h.ehlo = ehlo250None }, Encrypt, "", Negative, "TLS is required, but was not offered by host mx.ex.test[127.0.0.1]", "", ""},
		{"not offered, one line", newHost(good), func(h *host) { h.ehlo = "250 STARTTLS\r\n" }, Encrypt, "", Negative, "was not offered", "", ""},
		{"not offered, 251", newHost(good), func(h *host) { h.ehlo = "251-a\r\n251 SIZE\r\n" }, Encrypt, "", Unknown, "was not offered", "", ""},
		{"not offered, may", newHost(good), func(h *host) { h.ehlo = ehlo250None }, May, "", Positive, "TLS was not offered by host", "", ""},
		{"answered before it was asked", newHost(good), func(h *host) { h.banner = banner220 + ehlo250None }, Encrypt, "", Unknown, "was not offered", "", ""},
		{"lower case", newHost(good), func(h *host) { h.ehlo = "250-a\n250-starttls=yes\n250 x\n" }, Encrypt, "", Positive, "Trusted", "", trusted},
		{"EHLO refused", newHost(good), func(h *host) { h.ehlo = "500 what?\r\n" }, Encrypt, "", Unknown, "TLS is required, but was not offered", "EHLO was refused: 500 what?", ""},
		{"EHLO and HELO refused", newHost(good), func(h *host) { h.ehlo, h.helo = "500 what?\r\n", "554 no\r\n" }, Encrypt, "", Unknown, "refused to talk to me: 554 no", "", ""},
		{"EHLO 421", newHost(good), func(h *host) { h.ehlo = "421 later\r\n" }, Encrypt, "", Unknown, "host mx.ex.test[127.0.0.1] refused to talk to me: 421 later", "", ""},
		{"banner 421", newHost(good), func(h *host) { h.banner = "421-too busy\r\n421 later\r\n" }, Encrypt, "", Unknown, "refused to talk to me: 421 too busy later", "", ""},
		{"banner 554", newHost(good), func(h *host) { h.banner = "554 go away\r\n" }, Encrypt, "", Unknown, "refused to talk to me: 554 go away", "", ""},
		{"banner of many lines", newHost(good), func(h *host) { h.banner = "220-one\r\nnoise\r\n220-two\r\n220 three\r\n" }, Encrypt, "", Positive, "Trusted", "", trusted},
		{"end before the banner", newHost(good), func(h *host) { h.banner = "2" }, Encrypt, "", Unknown, "lost connection with mx.ex.test[127.0.0.1] while receiving the initial server greeting", "EOF", ""},
		{"end within EHLO", newHost(good), func(h *host) { h.ehlo = "250-mx\r\n250-SIZE 1" }, Encrypt, "", Unknown, "while performing the EHLO handshake", "EOF", ""},
		{"STARTTLS 454", newHost(good), func(h *host) { h.starttls = "454 4.7.0 no entropy\r\n" }, Encrypt, "", Unknown, "TLS is required, but host mx.ex.test[127.0.0.1] refused to start TLS: 454 4.7.0 no entropy", "", ""},
		{"STARTTLS 454, may", newHost(good), func(h *host) { h.starttls = "454 4.7.0 no entropy\r\n" }, May, "", Positive, "refused to start TLS: 454", "", ""},
		{"end after STARTTLS", newHost(nil), func(h *host) { h.starttls = "2" }, Encrypt, "", Unknown, "while receiving the STARTTLS response", "EOF", ""},
		{"end in the handshake", newHost(nil), func(h *host) { h.starttls = ready220 + "bye" }, Encrypt, "", Unknown, "Cannot start TLS: handshake failure", "", ""},
		{"no TLS after 220", newHost(nil), nil, Encrypt, "", Unknown, "Cannot start TLS: handshake failure", "", ""},
		{"CVE-2011-0411", newHost(good), func(h *host) { h.starttls = ready220 + "250-mx\r\n250 AUTH PLAIN\r\n" }, Encrypt, "", Unknown, "Cannot start TLS: handshake failure", "CVE-2011-0411", ""},
		{"TLS 1.0 at encrypt", newHost(good), func(h *host) { h.tls.MaxVersion = tls.VersionTLS10 }, Encrypt, "", Positive, "TLSv1 with", "", trusted},
		{"TLS 1.1 at verify", newHost(good), func(h *host) { h.tls.MaxVersion = tls.VersionTLS11 }, Verify, "", Unknown, "Cannot start TLS: handshake failure", "protocol version", ""},
		{"TLS 1.2 at verify", newHost(goodRSA), func(h *host) { h.tls.MaxVersion = tls.VersionTLS12 }, Verify, "", Positive, "TLSv1.2 with cipher TLS_ECDHE_RSA", "", verified},
		{"RSA key exchange", newHost(goodRSA), func(h *host) {
			h.tls.MaxVersion, h.tls.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}
		}, Encrypt, "", Positive, "TLS_RSA_WITH_AES_128_CBC_SHA", "", trusted},
		{"asks for our certificate", newHost(good), func(h *host) { h.tls.ClientAuth = tls.RequestClientCert }, Encrypt, "", Positive, "Trusted", "", trusted},
		{"masked greeting", newHost(good), func(h *host) { h.banner = "220 ******************2***0*\r\n" }, Encrypt, "", Unknown, "was not offered", "smtp_pix_workarounds", ""},
		{"masked greeting, stripped", newHost(good), func(h *host) {
			h.banner, h.ehlo = "220 **********\r\n", "250-mx\r\n250 XXXXXXXA\r\n"
		}, Encrypt, "", Negative, "was not offered", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.edit != nil {
				c.edit(c.host)
			}
			at := listen(t, "127.0.0.1:0", c.host.serve)
			var match []string
			if c.match != "" {
				match = []string{c.match}
			}
			prober := Prober{Roots: p.roots, HeloName: "client.test"}
			r := prober.Probe(t.Context(), target(at, c.level, match...))
			a := r.Attempts[0]
			if a.Verdict != c.verdict || r.Verdict != c.verdict || !strings.Contains(a.Text, c.text) || !strings.Contains(a.Cause, c.cause) || a.Trust != c.trust {
				t.Errorf("%v %q %q %q, want %v %q %q %q", a.Verdict, a.Text, a.Cause, a.Trust, c.verdict, c.text, c.cause, c.trust)
			}
			if r.Text != a.Text || a.Handshake != (c.trust != "") {
				t.Errorf("%q, handshake %v", r.Text, a.Handshake)
			}
			modest(t, c.host.said())
		})
	}
}

func colons(s string) string {
	b, _ := hex.DecodeString(s)
	var parts []string
	for _, c := range b {
		parts = append(parts, hex.EncodeToString([]byte{c}))
	}
	return strings.Join(parts, ":")
}

// modest: a probe says nothing but these commands.
func modest(t interface{ Errorf(string, ...any) }, lines []string) {
	for _, l := range lines {
		verb, _, _ := strings.Cut(l, " ")
		if !slices.Contains([]string{"EHLO", "HELO", "STARTTLS", "QUIT"}, verb) {
			t.Errorf("the probe said %q", l)
		}
	}
}

// TestNeverMail: whatever a host answers, no transaction begins.
func TestNeverMail(t *testing.T) {
	p := newPKI(t)
	id := issue(t, p.middle, "mx.ex.test", named("mx.ex.test"))
	replies := rapid.SampledFrom([]string{
		banner220, ehlo250, ehlo250None, ready220, "250 ok\r\n", "354 go ahead\r\n", "220", "421 no\r\n", "454 no\r\n", "500 MAIL FROM:<>\r\n",
		"MAIL FROM:<>\r\n250 ok\r\n", "250-STARTTLS\r\n250-STARTTLS\r\n250 STARTTLS\r\n", "220 ***\r\n", "\x16\x03\x01\r\n220 x\r\n", "235 ok\r\n",
	})
	levels := rapid.SampledFrom([]Level{May, Encrypt, Verify, Secure, Fingerprint, DANE, DANEOnly})
	rapid.Check(t, func(r *rapid.T) {
		h := newHost(id)
		h.banner, h.ehlo, h.helo = replies.Draw(r, "banner"), replies.Draw(r, "ehlo"), replies.Draw(r, "helo")
		h.starttls, h.quit = replies.Draw(r, "starttls"), replies.Draw(r, "quit")
		var running sync.WaitGroup
		prober := Prober{Roots: p.roots, HeloName: "client.test", Timeouts: Timeouts{Quit: time.Second}}
		prober.Dial = func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			running.Go(func() { h.serve(there) })
			return here, nil
		}
		got := prober.Probe(t.Context(), target(netip.MustParseAddrPort("192.0.2.1:25"), levels.Draw(r, "level")))
		running.Wait()
		modest(r, h.said())
		a := got.Attempts[0]
		if a.Verdict == Negative && !a.Handshake && (a.Offered || !strings.Contains(h.ehlo, "250 ")) {
			r.Errorf("negative without evidence: %+v", a)
		}
	})
}

// No name is sent but where Postfix sends one.
func TestSTS074_DANE038_SNI(t *testing.T) {
	p := newPKI(t)
	id := issue(t, p.middle, "mx.ex.test", named("mx.ex.test"))
	record := TLSA{daneEE, spki, sha2256, mustHex(digest(id.cert.RawSubjectPublicKeyInfo, 32))}
	for _, c := range []struct {
		name string
		edit func(*Target)
		want string
	}{
		{"encrypt", func(*Target) {}, ""},
		{"secure", func(t *Target) { t.Level = Secure }, ""},
		{"servername=hostname", func(t *Target) { t.Level, t.ServerName = Secure, "hostname" }, "mx.ex.test"},
		{"servername=nexthop", func(t *Target) { t.Level, t.ServerName = Verify, "nexthop" }, "ex.test"},
		{"servername at encrypt", func(t *Target) { t.ServerName = "Sni.test" }, "sni.test"},
		{"U-labels", func(t *Target) { t.ServerName = "bücher.test" }, "xn--bcher-kva.test"},
		{"trailing dot", func(t *Target) { t.Host, t.ServerName = "MX.ex.test.", "hostname" }, "mx.ex.test"},
		{"address", func(t *Target) { t.Host, t.ServerName = "127.0.0.1", "hostname" }, ""},
		{"dane", func(t *Target) { t.Level, t.TLSA, t.ServerName = DANE, []TLSA{record}, "other.test" }, "mx.ex.test"},
		{"dane, base", func(t *Target) { t.Level, t.TLSA, t.TLSABase = DANEOnly, []TLSA{record}, "base.test" }, "base.test"},
		{"dane, unusable", func(t *Target) { t.Level, t.TLSA = DANE, []TLSA{{Usage: 1}} }, "mx.ex.test"},
		{"dane, none", func(t *Target) { t.Level = DANE }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(id)
			var mu sync.Mutex
			got := "no hello"
			h.tls.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				mu.Lock()
				defer mu.Unlock()
				got = hello.ServerName
				return nil, nil
			}
			at := listen(t, "127.0.0.1:0", h.serve)
			goal := target(at, Encrypt)
			c.edit(&goal)
			r := (&Prober{Roots: p.roots}).Probe(t.Context(), goal)
			mu.Lock()
			defer mu.Unlock()
			if got != c.want || r.Attempts[0].SNI != c.want {
				t.Errorf("%q, said %q, want %q", got, r.Attempts[0].SNI, c.want)
			}
		})
	}
}

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestDetails(t *testing.T) {
	p := newPKI(t)
	id := issue(t, p.middle, "mx.ex.test", func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = []string{"mx.ex.test", "mail.ex.test"}, []net.IP{net.IPv4(192, 0, 2, 1)}
	})
	h := newHost(id)
	h.ehlo = "250-mx.ex.test at\tyour \x07service\r\n250-SIZE 1000\r\n250-AUTH=PLAIN\r\n250 STARTTLS\r\n"
	at := listen(t, "127.0.0.1:0", h.serve)
	a := (&Prober{Roots: p.roots, HeloName: "client.test"}).Probe(t.Context(), target(at, Encrypt)).Attempts[0]
	if a.Banner != "220 mx.ex.test ESMTP" || a.Greeting != "mx.ex.test" || !slices.Equal(a.Keywords, []string{"SIZE 1000", "AUTH=PLAIN", "STARTTLS"}) || !a.Offered {
		t.Errorf("%+v", a)
	}
	if len(a.Chain) != 2 || !slices.Equal(a.Chain[0].Names, []string{"mx.ex.test", "mail.ex.test", "192.0.2.1"}) || a.Chain[0].Issuer != "CN=Middle" ||
		!a.Expires().Equal(id.cert.NotAfter) || a.Chain[0].SHA256 != digest(id.cert.Raw, 32) || a.Chain[0].Key != "ECDSA" {
		t.Errorf("%+v", a.Chain)
	}
	if a.Address != at || a.When.IsZero() || a.Version != "TLSv1.3" || !strings.HasPrefix(a.Cipher, "TLS_") {
		t.Errorf("%+v", a)
	}
	if got := h.said(); !slices.Equal(got, []string{"EHLO client.test", "STARTTLS", "QUIT"}) {
		t.Error(got)
	}
}

// TestLog: one line for each address, without line ends of strangers.
func TestLog(t *testing.T) {
	h := newHost(nil)
	h.banner = "554 go\raway\x1b[31m\r\n"
	at := listen(t, "127.0.0.1:0", h.serve)
	var b strings.Builder
	logger := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	(&Prober{HeloName: "client.test", Logger: logger}).Probe(t.Context(), target(at, Encrypt))
	for _, want := range []string{"level=DEBUG msg=probed host=mx.ex.test address=127.0.0.1:", "level=encrypt verdict=unknown", "refused to talk to me: 554 go?away?[31m"} {
		if strings.Count(b.String(), "\n") != 1 || !strings.Contains(b.String(), want) {
			t.Errorf("%q lacks %q", b.String(), want)
		}
	}
}

func TestHeloName(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	for name, want := range map[string]string{"a.test": "a.test", "a\r\nMAIL FROM:<>": "localhost", "a b": "localhost", strings.Repeat("a", 256): "localhost"} {
		if got := (&Prober{HeloName: name}).helo(here); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestIPv6AndLocalAddress(t *testing.T) {
	p := newPKI(t)
	h := newHost(issue(t, p.middle, "mx.ex.test", named("mx.ex.test")))
	var mu sync.Mutex
	var from []string
	serve := func(c net.Conn) {
		mu.Lock()
		from = append(from, c.RemoteAddr().(*net.TCPAddr).IP.String())
		mu.Unlock()
		h.serve(c)
	}
	at := listen(t, "127.0.0.1:0", serve)
	prober := Prober{Roots: p.roots, LocalAddr4: netip.MustParseAddr("127.0.0.7"), LocalAddr6: netip.MustParseAddr("::1"), HeloName: "\n"}
	goal := target(at, Verify)
	goal.Addresses = []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1")}
	if r := prober.Probe(t.Context(), goal); r.Verdict != Positive || h.said()[0] != "EHLO [127.0.0.7]" {
		t.Errorf("%+v %q", r, h.said())
	}
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no IPv6 on loopback, this test must not be missing in CI: ", err)
		}
		t.Skip("no IPv6 here: ", err)
	}
	l.Close()
	at = listen(t, "[::1]:0", serve)
	if r := prober.Probe(t.Context(), target(at, Verify)); r.Verdict != Positive || !strings.Contains(r.Text, "mx.ex.test[::1]:") {
		t.Errorf("%+v", r)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(from, []string{"127.0.0.7", "::1"}) || !slices.Contains(h.said(), "EHLO [IPv6:::1]") {
		t.Errorf("%q %q", from, h.said())
	}
}

func TestRefusedConnection(t *testing.T) {
	r := new(Prober).Probe(t.Context(), target(netip.MustParseAddrPort("127.0.0.1:1"), Encrypt))
	if r.Verdict != Unknown || r.Text != "connect to mx.ex.test[127.0.0.1]:1: Connection refused" {
		t.Errorf("%+v", r)
	}
}

// TestNoRoots: that Postfix trusts nobody says nothing about the host.
func TestNoRoots(t *testing.T) {
	p := newPKI(t)
	at := listen(t, "127.0.0.1:0", newHost(issue(t, p.middle, "mx.ex.test", named("mx.ex.test"))).serve)
	r := (&Prober{Roots: x509.NewCertPool()}).Probe(t.Context(), target(at, Verify))
	if r.Verdict != Unknown || !r.Attempts[0].Handshake || r.Attempts[0].Cause != "no trust roots are configured" {
		t.Errorf("%+v", r)
	}
}

func TestLevelsAreChecked(t *testing.T) {
	for _, level := range []Level{"", "none", "half-dane", "Encrypt ", "5"} {
		r := new(Prober).Probe(t.Context(), target(netip.MustParseAddrPort("192.0.2.1:25"), level))
		if r.Verdict != Unknown || !strings.Contains(r.Attempts[0].Cause, ErrLevel.Error()) {
			t.Errorf("%q: %+v", level, r)
		}
	}
	if l, err := ParseLevel("DANE-Only"); err != nil || l != DANEOnly {
		t.Error(l, err)
	}
}
