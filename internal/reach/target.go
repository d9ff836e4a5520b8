package reach

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

// Level is a TLS security level, spelled as in Postfix (tls_level.c).
type Level string

// The levels that can be demanded of a host.
const (
	May         Level = "may"
	Encrypt     Level = "encrypt"
	Fingerprint Level = "fingerprint"
	DANE        Level = "dane"
	DANEOnly    Level = "dane-only"
	Verify      Level = "verify"
	Secure      Level = "secure"
)

// ErrLevel says that a level is not one of the above.
var ErrLevel = errors.New("no TLS level that can be probed")

// ParseLevel reads a level in Postfix's spelling, in either case. An error is
// ErrLevel.
func ParseLevel(s string) (Level, error) {
	l := Level(strings.ToLower(s))
	if !slices.Contains([]Level{May, Encrypt, Fingerprint, DANE, DANEOnly, Verify, Secure}, l) {
		return "", fmt.Errorf("%w: %q", ErrLevel, s)
	}
	return l, nil
}

// authenticates says whether the level looks at the certificate (TLS_MUST_MATCH).
func (l Level) authenticates() bool { return l != May && l != Encrypt }

// TLSA is a record of RFC 6698 §2.1 in wire form.
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// Target is a mail host and what is demanded of it.
type Target struct {
	// Host is the name of the MX host as the MX record has it, before CNAMEs are
	// followed, or its address where the destination is a literal.
	Host string
	// Port is that of the policy's key; 0 is 25.
	Port uint16
	// Addresses are tried in this order, at most MaxAddresses.
	Addresses []netip.Addr
	// Nexthop is the destination without brackets and port.
	Nexthop string

	// Level is what is demanded.
	Level Level
	// Match is match= of the policy, one element each. At verify and secure these
	// are names, .parents, "hostname", "nexthop" and "dot-nexthop"; none means
	// smtp_tls_verify_cert_match's "hostname", or "nexthop" and "dot-nexthop" of
	// smtp_tls_secure_cert_match. At fingerprint they are digests in hexadecimal
	// of the certificate or its key, whose algorithm their length tells. At
	// DANE's levels they are names beside the TLSA base that a certificate under
	// DANE-TA(2) may have (RFC 7672 §3.2.2); none means "nexthop", which is right
	// where the MX records were secure: give "hostname" where they were not.
	Match []string
	// ServerName is servername= of the policy: a name, "hostname" or "nexthop".
	// Without it no SNI is sent, as in Postfix. Hosts with TLSA records always get
	// their base name (RFC 7672 §8.1).
	ServerName string
	// TLSA are the host's records, if they are secure; read at DANE's levels.
	TLSA []TLSA
	// TLSABase is the name that the records were found at; none means Host.
	TLSABase string
	// MinVersion and MaxVersion are what the policy's protocols= comes to, in
	// crypto/tls's numbers; 0 is Postfix's default, TLS 1.0 and no limit. Levels
	// that look at certificates begin with TLS 1.2 whatever is said here: OpenSSL 3
	// does not do less at the security level that Postfix then sets.
	MinVersion, MaxVersion uint16
}

// port is the port with its default.
func (t *Target) port() uint16 {
	if t.Port == 0 {
		return 25
	}
	return t.Port
}

// name resolves one of Postfix's strategies, or returns the name itself, in
// A-labels and without its trailing dot.
func (t *Target) name(s string) string {
	parent := ""
	switch strings.ToLower(s) {
	case "hostname":
		s = t.Host
	case "nexthop":
		s = t.Nexthop
	case "dot-nexthop":
		parent, s = ".", t.Nexthop
	default:
		if rest, dot := strings.CutPrefix(s, "."); dot {
			parent, s = ".", rest
		}
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" {
		return ""
	}
	// tls_client.c: names beyond ASCII become A-labels, others stay as they are.
	if !isASCII(s) {
		if a, err := idna.Lookup.ToASCII(s); err == nil {
			s = a
		}
	}
	return parent + strings.ToLower(s)
}

func (t *Target) names(match []string) []string {
	var all []string
	for _, m := range match {
		if n := t.name(m); n != "" && !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e })
}
