package dmarc

import (
	"strings"

	"golang.org/x/net/idna"
)

const (
	prefix = "_dmarc." // RFC 9989 §4.7

	maxName  = 253 // octets of a name without the trailing dot, RFC 1035 §2.3.4
	maxLabel = 63
)

var toASCII = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// name returns a domain in lower case and A-labels without a trailing dot; empty
// when it can be no name in the DNS.
func name(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	for i := range len(domain) {
		if domain[i] < 0x80 {
			continue
		}
		// RFC 9989 §4.10: A-labels before any look-up.
		var err error
		if domain, err = toASCII.ToASCII(domain); err != nil {
			return ""
		}
		break
	}
	if len(domain) > maxName {
		return ""
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > maxLabel {
			return ""
		}
		for i := range len(label) {
			if c := label[i]; c <= ' ' || c >= 0x7F || c == '\\' {
				return ""
			}
		}
	}
	return domain
}

// parent drops the leftmost label; empty at the end.
func parent(domain string) string {
	_, rest, _ := strings.Cut(domain, ".")
	return rest
}

// last returns the last n labels.
func last(domain string, n int) string {
	i := len(domain)
	for ; n > 0 && i >= 0; n-- {
		i = strings.LastIndexByte(domain[:i], '.')
	}
	return domain[i+1:]
}

// below returns the ancestor of domain, or domain itself, that is one label below
// the name above; domain must be below it.
func below(domain, above string) string {
	return last(domain, strings.Count(above, ".")+2)
}
