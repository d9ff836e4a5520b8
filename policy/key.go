package policy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Key is a next-hop destination as Postfix asks for it, in one canonical form.
// The zero Key is no destination. Source: postfix/src/smtp/smtp_tls_policy.c,
// smtp_connect.c.
type Key struct {
	// Name is a domain or host name in lower-case A-labels without the trailing
	// dot, or the text of an address (Literal).
	Name string
	// Port is the TCP port, 25 unless the key names another.
	Port uint16
	// HasPort tells "example.com:25" from "example.com": Postfix asks for what
	// the transport table holds.
	HasPort bool
	// Brackets: "[host]", one host and no MX look-up.
	Brackets bool
	// Literal: an IP address, with or without brackets.
	Literal bool
}

// Limits of a key. DNS: RFC 1035 §2.3.4.
const (
	maxName  = 253
	maxLabel = 63
)

// ErrNoDestination is wrapped by every error of ParseKey: the text is no
// destination that could have a policy. The caller answers NOTFOUND.
var ErrNoDestination = errors.New("no destination")

// ParseKey reads a key as Postfix sends it: "Example.COM", "example.com:25",
// "[mx.example.com]:submission", "[192.0.2.1]", "[IPv6:2001:db8::1]:25".
// Postfix neither folds case nor encodes U-labels for a socketmap, so both are
// done here (STS-006). Parent keys (".example.com") are refused: what answered
// them would be answered for every subdomain (STS-003).
//
// The error says what is wrong with the text, but does not repeat it.
func ParseKey(text string) (Key, error) {
	k := Key{Port: 25}
	name := text
	if rest, ok := strings.CutPrefix(text, "["); ok {
		host, port, ok := strings.Cut(rest, "]")
		if !ok {
			return Key{}, fmt.Errorf("%w: a bracket without end", ErrNoDestination)
		}
		k.Brackets = true
		name = host
		if port != "" {
			p, ok := strings.CutPrefix(port, ":")
			if !ok {
				return Key{}, fmt.Errorf("%w: text after the bracket", ErrNoDestination)
			}
			if err := k.setPort(p); err != nil {
				return Key{}, err
			}
		}
	} else if host, port, ok := strings.Cut(text, ":"); ok {
		if _, err := netip.ParseAddr(text); err != nil { // an IPv6 address has colons of its own
			name = host
			if err := k.setPort(port); err != nil {
				return Key{}, err
			}
		}
	}
	if a, ok := literal(strings.TrimSuffix(name, ".")); ok {
		k.Name, k.Literal = a.String(), true
		return k, nil
	}
	var err error
	if k.Name, err = canonicalName(name); err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrNoDestination, err)
	}
	if _, ok := literal(k.Name); ok {
		// Digits of another script: to Postfix it is a name, and one that cannot be.
		return Key{}, fmt.Errorf("%w: a name that stands for an address", ErrNoDestination)
	}
	return k, nil
}

// services reads /etc/services itself, without a thread for each question.
var services = net.Resolver{PreferGo: true}

func (k *Key) setPort(text string) error {
	k.HasPort = true
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil && text != "" && len(text) < 64 {
		// A service name: Postfix asks getservbyname(3).
		var p int
		if p, err = services.LookupPort(context.Background(), "tcp", strings.ToLower(text)); err == nil {
			n = uint64(p)
		}
	}
	if err != nil || n == 0 {
		return fmt.Errorf("%w: port %.100q: neither a number nor a service of /etc/services", ErrNoDestination, text)
	}
	k.Port = uint16(n)
	return nil
}

// literal reads an address as Postfix writes one. RFC 5321 §4.1.3.
func literal(name string) (netip.Addr, bool) {
	if len(name) > 5 && strings.EqualFold(name[:5], "IPv6:") {
		name = name[5:]
	}
	a, err := netip.ParseAddr(name)
	return a, err == nil && a.Zone() == ""
}

// idnaLookup converts U-labels: UTS #46 non-transitional, IDNA2008 look-up.
var idnaLookup = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(false))

// canonicalName folds case, strips one trailing dot, converts U-labels and
// refuses what the DNS could not hold. The error says what is wrong with the name,
// but does not repeat it.
func canonicalName(name string) (string, error) {
	name, dot := strings.CutSuffix(name, ".")
	if !isASCII(name) {
		if !utf8.ValidString(name) {
			return "", errors.New("not UTF-8")
		}
		a, err := idnaLookup.ToASCII(name)
		if err != nil {
			return "", err
		}
		if name = a; !dot {
			name = strings.TrimSuffix(a, ".") // UTS #46 maps U+3002 and its like to it
		}
	}
	name = strings.ToLower(name)
	switch {
	case name == "":
		return "", errors.New("an empty name")
	case len(name) > maxName:
		return "", fmt.Errorf("a name of %d octets, at most %d", len(name), maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return "", err
		}
	}
	return name, nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("an empty label")
	case len(label) > maxLabel:
		return fmt.Errorf("a label of %d octets, at most %d", len(label), maxLabel)
	case strings.Trim(label, "-") == "":
		return fmt.Errorf("a label of hyphens alone: %q", label)
	}
	for i := range len(label) {
		if c := label[i]; !isNameByte(c) {
			return fmt.Errorf("character %q in a name", c)
		}
	}
	return nil
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// String gives the key in Postfix's notation; ParseKey of it gives the same Key.
func (k Key) String() string {
	name := k.Name
	if k.Brackets {
		if k.Literal && strings.Contains(name, ":") {
			name = "IPv6:" + name
		}
		name = "[" + name + "]"
	}
	if k.HasPort {
		name += ":" + strconv.Itoa(int(k.Port))
	}
	return name
}
