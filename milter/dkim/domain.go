package dkim

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	maxName  = 253 // octets of a name without the trailing dot, RFC 1035 §2.3.4
	maxLabel = 63
)

// aLabels converts a domain or selector to the form of the DNS: lower case,
// A-labels (RFC 8616 §4). Names of ASCII stay as they are but for their case:
// idna would refuse some that are in use.
func aLabels(name string) (string, error) {
	if len(name) > 4*maxName {
		return "", fmt.Errorf("it has %d octets", len(name))
	}
	if isASCII(name) {
		return strings.ToLower(name), nil
	}
	return idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false)).ToASCII(strings.ToLower(name))
}

// badName says what is wrong with a lower-case name in A-label form, empty when
// it is a sequence of sub-domains of RFC 5321 §4.1.2. An underscore passes: such
// selectors exist, and no verifier refuses them.
func badName(name string) string {
	if len(name) > maxName {
		return fmt.Sprintf("it has %d octets, more than %d", len(name), maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return "it has an empty label"
		case len(label) > maxLabel:
			return fmt.Sprintf("it has a label of %d octets, more than %d", len(label), maxLabel)
		case label[0] == '-' || label[len(label)-1] == '-':
			return "it has a label with a hyphen at its edge"
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return fmt.Sprintf("%q may not be in it", c)
			}
		}
	}
	return ""
}

// within tells whether a name is the domain or below it.
func within(name, domain string) bool {
	rest, ok := strings.CutSuffix(name, domain)
	return ok && (rest == "" || strings.HasSuffix(rest, "."))
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// isInternational tells whether a message is internationalized (RFC 6532): a field
// other than its signatures has UTF-8 in it.
func isInternational(fields [][]byte) bool {
	for _, field := range fields {
		if !isASCII(field) && utf8.Valid(field) && !hasName(field, "dkim-signature") {
			return true
		}
	}
	return false
}

// lowered is the text in lower case, ASCII letters only, as RFC 5322 compares
// the names of fields.
func lowered[T string | []byte](s T) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(string(s)) // a copy: s may be a field of the message
			for i, c := range b {
				if 'A' <= c && c <= 'Z' {
					b[i] = c | 0x20
				}
			}
			return string(b)
		}
	}
	return string(s)
}

// join lists foreign names for a detail: in one line, and not too long.
func join(names ...string) string {
	list := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.Join(names, ", "))
	if len(list) > maxListed {
		return list[:maxListed] + "…"
	}
	return list
}

// quote makes foreign text fit for a log line.
func quote[T string | []byte](s T) string {
	if len(s) > maxQuoted {
		return strconv.Quote(string(s[:maxQuoted])) + "…"
	}
	return strconv.Quote(string(s))
}
