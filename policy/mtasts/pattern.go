package mtasts

import (
	"errors"
	"net/netip"
	"strings"
)

// parsePattern reads the value of an mx field, RFC 8461 §3.2: ["*."] Domain. The
// pattern comes back lower case and without a trailing dot, with a note when
// the value is not by the book but clear.
func parsePattern(value string) (pattern, note string, err error) {
	// Before lower-casing, which makes ASCII of some other letters.
	if !isASCII(value) {
		return "", "", errors.New("not ASCII: the A-label form (xn--…) is needed")
	}
	pattern = strings.ToLower(value)
	// A trailing dot would never match in Postfix.
	if bare, ok := strings.CutSuffix(pattern, "."); ok && bare != "" && bare != "*" {
		pattern, note = bare, "trailing dot ignored"
	}
	name := strings.TrimPrefix(pattern, "*.")
	if err := foreignForm(name); err != nil {
		return "", "", err
	}
	if why := badName(name); why != "" {
		return "", "", errors.New(why)
	}
	if strings.Contains(name, "_") && note == "" {
		note = "underscore in a host name"
	}
	return pattern, note, nil
}

// foreignForm names the usual misunderstandings of what an mx field holds, for
// which badName's words would not help anybody.
func foreignForm(name string) error {
	literal := strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if _, err := netip.ParseAddr(strings.TrimPrefix(literal, "ipv6:")); err == nil {
		return errors.New("an address, not a name")
	}
	switch {
	case strings.Contains(name, "://"):
		return errors.New("a URL, not a name")
	case strings.ContainsAny(name, " \t,;"):
		return errors.New("more than one name: each needs an mx line of its own")
	case strings.Contains(name, "*"):
		return errors.New("a wildcard is allowed only as the whole first label")
	}
	return nil
}
