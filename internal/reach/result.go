package reach

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"crypto/sha256"
)

// Verdict says whether Postfix would deliver; see the package's documentation
// for what each needs.
type Verdict uint8

// Verdicts. The zero value is Unknown: whatever was not found out is no evidence.
const (
	Unknown Verdict = iota
	Positive
	Negative
)

// String returns the verdict in lower case.
func (v Verdict) String() string {
	switch v {
	case Positive:
		return "positive"
	case Negative:
		return "negative"
	default:
		return "unknown"
	}
}

// Result is what was found at the addresses of a host.
type Result struct {
	Host string
	Port uint16
	// Level is what was demanded.
	Level Level
	// Verdict is Positive when one address is, Negative when all are, each of the
	// host's addresses having been tried, and Unknown otherwise.
	Verdict Verdict
	// Text is one sentence about the address that decided, in Postfix's words.
	Text string
	// Stripped names what seems to take STARTTLS out of the conversation on its
	// way; empty when nothing points to it.
	Stripped string
	// Attempts are one for each address, in the order of the Target.
	Attempts []Attempt
}

// Attempt is what was found at one address. Texts of the host are printable
// ASCII and bounded.
type Attempt struct {
	Address netip.AddrPort
	// When is the time at which the attempt began, Took how long it lasted,
	// waiting for a turn included in neither.
	When time.Time
	Took time.Duration

	// Banner is the greeting with its code, Greeting the name in the reply to
	// EHLO, empty when that was not answered with 2xx, and Keywords its extensions
	// with their parameters.
	Banner, Greeting string
	Keywords         []string
	// Offered says that STARTTLS was among the keywords.
	Offered bool
	// NoRoute: this machine has no way to the address at all, as to every IPv6 address
	// where there is no IPv6.
	NoRoute bool

	// Handshake says that TLS was established; the fields down to Chain are those
	// of the session.
	Handshake bool
	// Version is "TLSv1.3" and the like, Cipher the name of RFC 8446 or IANA.
	Version, Cipher string
	// SNI is the server name that was sent.
	SNI string
	// Trust is Anonymous, Untrusted, Trusted or Verified, as smtp(8) logs it.
	Trust string
	// Chain are the certificates as sent, the host's own first; at most ten.
	Chain []Certificate

	Verdict Verdict
	// Text is one sentence in Postfix's words, Cause what there is to add:
	// what tls_verify.c logs beside it, or the error.
	Text, Cause string
	// Stripped is as in Result.
	Stripped string
}

// Certificate describes a certificate for people.
type Certificate struct {
	Subject, Issuer     string
	Names               []string // DNS names and addresses, at most a hundred
	NotBefore, NotAfter time.Time
	// SHA256 and KeySHA256 are digests of the certificate and of its key, in
	// lower-case hexadecimal, which are also what TLSA records "3 0 1" and
	// "3 1 1" hold.
	SHA256, KeySHA256 string
	// Key is the key's algorithm.
	Key string
}

// Expires returns when the host's own certificate ends; the zero time if there
// was none.
func (a *Attempt) Expires() time.Time {
	if len(a.Chain) == 0 {
		return time.Time{}
	}
	return a.Chain[0].NotAfter
}

// fold sums up what was found at all addresses; complete says that none is
// missing.
func fold(t *Target, attempts []Attempt, complete bool) Result {
	r := Result{Host: t.Host, Port: t.port(), Level: t.Level, Attempts: attempts}
	// Postfix cannot deliver where there is no route either: such an address takes no
	// part as long as another was really tried.
	if routed := slices.DeleteFunc(slices.Clone(attempts), func(a Attempt) bool { return a.NoRoute }); len(routed) > 0 {
		attempts = routed
	}
	if len(attempts) == 0 {
		r.Text = "no address of " + printable(t.Host) + " is known"
		return r
	}
	// Postfix goes on to the next address (smtp_connect.c), so a good one is
	// enough, and one that nobody knows about may be good.
	r.Verdict = Negative
	if !complete {
		r.Verdict = Unknown
	}
	for i := range attempts {
		switch attempts[i].Verdict {
		case Positive:
			r.Verdict = Positive
		case Unknown:
			if r.Verdict == Negative {
				r.Verdict = Unknown
			}
		}
	}
	r.Text = attempts[0].Text
	for i := range attempts {
		if attempts[i].Verdict == r.Verdict {
			r.Text = attempts[i].Text
			break
		}
	}
	for i := range attempts {
		if r.Stripped == "" {
			r.Stripped = attempts[i].Stripped
		}
	}
	return r
}

// session copies what is worth keeping of a connection.
func (a *Attempt) session(s *tls.ConnectionState) {
	a.Handshake = true
	a.Version = strings.Replace(tls.VersionName(s.Version), "TLS ", "TLSv", 1)
	if s.Version == tls.VersionTLS10 {
		a.Version = "TLSv1" // SSL_get_version(3)
	}
	a.Cipher = tls.CipherSuiteName(s.CipherSuite)
	for _, c := range s.PeerCertificates[:min(len(s.PeerCertificates), maxChain)] {
		a.Chain = append(a.Chain, describe(c))
	}
}

func describe(c *x509.Certificate) Certificate {
	sum, key := sha256.Sum256(c.Raw), sha256.Sum256(c.RawSubjectPublicKeyInfo)
	d := Certificate{
		Subject: clip(printable(c.Subject.String()), maxName), Issuer: clip(printable(c.Issuer.String()), maxName),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		SHA256: hex.EncodeToString(sum[:]), KeySHA256: hex.EncodeToString(key[:]),
		Key: c.PublicKeyAlgorithm.String(),
	}
	for _, n := range c.DNSNames[:min(len(c.DNSNames), maxNames)] {
		d.Names = append(d.Names, clip(printable(n), maxName))
	}
	for _, ip := range c.IPAddresses[:min(len(c.IPAddresses), maxNames-len(d.Names))] {
		d.Names = append(d.Names, ip.String())
	}
	return d
}
