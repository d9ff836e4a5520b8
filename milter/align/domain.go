package align

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

const (
	maxName  = 253 // octets of a name without the trailing dot, RFC 1035 §2.3.4
	maxLabel = 63
)

// toASCII is UTS 46 non-transitional. Labels that STD3 refuses stay, since
// underscores are in use; badDomain looks at the characters.
var toASCII = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// Domain returns a domain as all domains here are compared: lower case, A-labels,
// no trailing dot (DM-005). Empty when it has none.
func Domain(domain string) string {
	name, err := aLabels(domain)
	if err != nil || !isASCII(name) {
		return ""
	}
	return name
}

// aLabels returns a domain as DNS and signatures have it: lower case, A-labels,
// no trailing dot. ASCII names stay as they are but for their case.
func aLabels(domain string) (string, error) {
	domain = strings.TrimSuffix(domain, ".")
	if isASCII(domain) {
		return strings.ToLower(domain), nil
	}
	return toASCII.ToASCII(strings.ToLower(domain))
}

// badDomain says why a name, lower case and in A-labels, can be no author's
// domain, empty when it can: a fully qualified name that the DNS may have.
func badDomain(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxName:
		return fmt.Sprintf("is longer than %d octets", maxName)
	case name[0] == '[':
		return "is an address, not a name"
	}
	labels, last := 0, ""
	for last = range strings.SplitSeq(name, ".") {
		if why := badLabel(last); why != "" {
			return why
		}
		labels++
	}
	switch {
	case strings.Trim(last, "0123456789") == "":
		return "ends in a number" // an address without its brackets
	case labels < 2:
		return "has a single label"
	case notServed(last) || strings.HasSuffix(name, ".home.arpa"):
		return fmt.Sprintf("is below %q, which the public DNS does not serve", last)
	}
	return ""
}

// notServed lists top-level names that mean something else than the global DNS:
// RFC 6761 (localhost, invalid), RFC 6762 (local), RFC 7686 (onion), RFC 9476
// (alt), and the name that installers of Unix systems fill in.
func notServed(top string) bool {
	return slices.Contains([]string{"localhost", "localdomain", "invalid", "local", "onion", "alt"}, top)
}

func badLabel(label string) string {
	switch {
	case label == "":
		return "has an empty label"
	case len(label) > maxLabel:
		return fmt.Sprintf("has a label longer than %d octets", maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return "has a label that begins or ends with a hyphen"
	}
	for i := range len(label) {
		if c := label[i]; !isAlnum(c) && c != '-' && c != '_' {
			return fmt.Sprintf("has the character %q", c)
		}
	}
	return ""
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z'
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
