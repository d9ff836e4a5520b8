package mtasts

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

const (
	recordPrefix = "_mta-sts." // RFC 8461 §3.1
	hostPrefix   = "mta-sts."  // RFC 8461 §3.2

	maxName  = 253 // octets of a name without the trailing dot, RFC 1035 §2.3.4
	maxLabel = 63
)

// ErrCannotHavePolicy: the name has no place for a policy, so nobody was asked
// and nothing need be tried again.
var ErrCannotHavePolicy = errors.New("no MTA-STS policy is possible")

// CanHavePolicy tells whether a policy can exist for the domain at all: a valid
// name of at least two labels, short enough for the _mta-sts label in front of
// it, and not below a top-level name that the DNS does not serve. For others
// no question need be asked. U-labels and a trailing dot are allowed.
func CanHavePolicy(domain string) bool {
	_, err := policyDomain(domain)
	return err == nil
}

// policyDomain returns the domain in the form used in DNS and HTTPS (lower case,
// A-labels, no trailing dot), or an error that wraps ErrCannotHavePolicy.
func policyDomain(domain string) (string, error) {
	name, err := ascii(strings.TrimSuffix(domain, "."))
	if err != nil {
		return "", fmt.Errorf("%w: %s is not a domain name: %w", ErrCannotHavePolicy, quote(domain), err)
	}
	if why := badName(name); why != "" {
		return "", fmt.Errorf("%w: %s is not a domain name: %s", ErrCannotHavePolicy, quote(domain), why)
	}
	// The TXT record's name is the longer one of the two.
	if len(recordPrefix)+len(name) > maxName {
		return "", fmt.Errorf("%w: %s leaves no room for a label in front of it", ErrCannotHavePolicy, quote(domain))
	}
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return "", fmt.Errorf("%w: %s has a single label", ErrCannotHavePolicy, quote(domain))
	}
	if notServed(name[dot+1:]) {
		return "", fmt.Errorf("%w: the DNS does not serve names below %q", ErrCannotHavePolicy, name[dot+1:])
	}
	return name, nil
}

// notServed lists the top-level names that are reserved for something else than
// the global DNS: RFC 6761 (localhost, invalid), RFC 6762 (local), RFC 7686
// (onion), RFC 9476 (alt). "test" and "internal" are left out: people run DNS
// for them, with a CA of their own.
func notServed(top string) bool {
	return slices.Contains([]string{"localhost", "invalid", "local", "onion", "alt"}, top)
}

// ascii converts to A-labels, UTS 46 non-transitional. ASCII names stay as they
// are but for their case: idna would refuse some that are in use.
func ascii(name string) (string, error) {
	if isASCII(name) {
		return strings.ToLower(name), nil
	}
	return idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false)).ToASCII(strings.ToLower(name))
}

// badName says what is wrong with a lower-case name in A-label form, empty when
// it is the Domain of RFC 5321 §4.1.2. An underscore passes: such host names
// exist, and Postfix accepts them (util/valid_hostname.c).
func badName(name string) string {
	if name == "" {
		return "it is empty"
	}
	if len(name) > maxName {
		return fmt.Sprintf("it is longer than %d octets", maxName)
	}
	label := ""
	for label = range strings.SplitSeq(name, ".") {
		if why := badLabel(label); why != "" {
			return why
		}
	}
	if strings.Trim(label, "0123456789") == "" {
		return "its last label is a number"
	}
	return ""
}

func badLabel(label string) string {
	switch {
	case label == "":
		return "it has an empty label"
	case len(label) > maxLabel:
		return fmt.Sprintf("it has a label longer than %d octets", maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return "it has a label that begins or ends with a hyphen"
	}
	for i := range len(label) {
		if c := label[i]; !isLowerAlnum(c) && c != '-' && c != '_' {
			return fmt.Sprintf("it has the character %q", c)
		}
	}
	return ""
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func isAlnum(c byte) bool { return isLowerAlnum(c) || 'A' <= c && c <= 'Z' }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
