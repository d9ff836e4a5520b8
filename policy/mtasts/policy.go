package mtasts

import (
	"strings"
	"time"
)

// Mode is what a policy asks of senders, RFC 8461 §5.
type Mode uint8

// The modes. The zero value asks for nothing.
const (
	ModeNone    Mode = iota // as if there were no policy
	ModeTesting             // deliver all the same, report what would fail
	ModeEnforce             // do not deliver to hosts that fail
)

// String returns the word used in policies.
func (m Mode) String() string {
	switch m {
	case ModeNone:
		return "none"
	case ModeTesting:
		return "testing"
	case ModeEnforce:
		return "enforce"
	}
	return "unknown"
}

// MaxAge is the longest time that a policy may be remembered: 31557600 seconds,
// about a year. RFC 8461 §3.2.
const MaxAge = 31557600 * time.Second

// Policy is a policy that was found valid, RFC 8461 §3.2.
type Policy struct {
	Mode Mode
	// MX holds the allowed mail hosts as "host" or "*.domain", in the order of
	// the policy, lower case, A-labels, no trailing dot, no duplicates. It is
	// never empty unless Mode is ModeNone. There may be thousands: only the
	// size of the policy bounds them, since dropping one would defer mail.
	MX []string
	// MaxAge is 0 to MaxAge, counted from the fetch.
	MaxAge time.Duration
	// Lines are the lines as published, for TLSRPT's policy-string (RFC 8460
	// §4.4), without terminators and surrounding white space. Only lines that
	// may stand in a Postfix attribute are kept: printable ASCII and spaces,
	// no braces. Blank lines are left out.
	Lines []string
}

// Match tells whether the policy allows the mail host, RFC 8461 §4.1. Without
// MX patterns (ModeNone) nothing matches.
func (p Policy) Match(host string) bool {
	host = bareName(host)
	for _, pattern := range p.MX {
		if matchBare(pattern, host) {
			return true
		}
	}
	return false
}

// matchBare tells whether a pattern allows a mail host, RFC 8461 §4.1: equal names,
// or, for "*.domain", a name with exactly one more label. Both are bare A-labels.
func matchBare(pattern, host string) bool {
	if host == "" || strings.HasPrefix(host, ".") {
		return false
	}
	parent, wild := strings.CutPrefix(pattern, "*.")
	if !wild {
		return pattern == host
	}
	// RFC 8461 §4.1: the wildcard stands for the whole left-most label alone.
	_, rest, ok := strings.Cut(host, ".")
	return ok && rest != "" && rest == parent
}

func bareName(name string) string {
	if !isASCII(name) {
		return "" // ToLower makes ASCII of some other letters
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
