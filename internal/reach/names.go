package reach

import (
	"crypto/x509"
	"encoding/asn1"
	"net/netip"
	"strings"
)

// commonName is the object identifier of RFC 5280 appendix A.1.
var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// presented are the names that a certificate may be known by: its DNS names, or
// its common names when it has none (RFC 6125 §6.4.4; X509_check_host).
func presented(cert *x509.Certificate) []string {
	if len(cert.DNSNames) > 0 {
		return cert.DNSNames
	}
	var all []string
	for _, a := range cert.Subject.Names {
		if cn, ok := a.Value.(string); ok && a.Type.Equal(commonName) {
			all = append(all, cn)
		}
	}
	return all
}

// matchNames says whether a certificate carries one of the wanted names. It
// follows OpenSSL, since the names go to SSL_add1_host there: of addresses only
// the first counts, and where names and an address are wanted, both must be in
// the certificate.
func matchNames(cert *x509.Certificate, wanted []string) bool {
	var address netip.Addr
	var hosts []string
	for _, w := range wanted {
		if a, err := netip.ParseAddr(strings.Trim(w, "[]")); err != nil {
			hosts = append(hosts, w)
		} else if !address.IsValid() {
			address = a.Unmap()
		}
	}
	if len(hosts) == 0 && !address.IsValid() {
		return false // tls_client.c: "could not configure peer name checks" must fail
	}
	return (len(hosts) == 0 || matchHosts(presented(cert), hosts)) &&
		(!address.IsValid() || hasAddress(cert, address))
}

func hasAddress(cert *x509.Certificate, want netip.Addr) bool {
	for _, ip := range cert.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok && a.Unmap() == want {
			return true
		}
	}
	return false
}

func matchHosts(presented, wanted []string) bool {
	for _, p := range presented {
		for _, w := range wanted {
			if matchHost(p, w) {
				return true
			}
		}
	}
	return false
}

// matchHost compares a certificate's name with a wanted name, or with a wanted
// ".parent", which stands for names below it at any depth and also accepts a
// certificate for "*.parent" (X509_check_host with a leading dot).
func matchHost(presented, wanted string) bool {
	if len(wanted) > 1 && wanted[0] == '.' {
		cut := len(presented) - len(wanted)
		return cut >= 0 && strings.EqualFold(presented[cut:], wanted) && !strings.Contains(presented, "\x00")
	}
	if strings.EqualFold(presented, wanted) {
		return true
	}
	parent, wildcard := strings.CutPrefix(presented, "*.")
	label, rest, ok := strings.Cut(wanted, ".")
	return wildcard && ok && validWildcard(parent) && strings.EqualFold(rest, parent) && isLabel(label)
}

// validWildcard: OpenSSL wants two labels beside the asterisk (valid_star), so
// that "*.com" is just a name, and takes a wildcard for a whole label only
// (RFC 6125 §6.4.3, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS).
func validWildcard(parent string) bool {
	labels := strings.Split(parent, ".")
	for _, l := range labels {
		if !isLabel(l) || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
	}
	return len(labels) >= 2
}

// isLabel: letters, digits and hyphens, which is what a wildcard may stand for.
func isLabel(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' {
			return false
		}
	}
	return s != ""
}
