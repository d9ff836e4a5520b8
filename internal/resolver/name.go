package resolver

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// appendName appends the wire form of a name in presentation form, in lower
// case (RFC 4343: comparison ignores the case of ASCII letters only). The
// trailing dot may be missing; \. and \DDD mean that octet (RFC 1035 §5.1).
func appendName(b []byte, name string) ([]byte, error) {
	if name == "" {
		return b, fmt.Errorf("%w: it is empty", ErrBadName)
	}
	if name == "." {
		return append(b, 0), nil
	}
	if len(name) > 4*maxNameWire {
		return b, fmt.Errorf("%w: %d characters", ErrBadName, len(name))
	}
	start, label := len(b), len(b)
	b = append(b, 0)
	for i := 0; i < len(name); {
		if name[i] == '.' {
			if err := closeLabel(b, label); err != nil {
				return b[:start], err
			}
			label = len(b)
			b = append(b, 0)
			i++
			continue
		}
		c, n, err := octet(name[i:])
		if err != nil {
			return b[:start], err
		}
		b = append(b, lower(c))
		i += n
	}
	if len(b)-label > 1 { // without a trailing dot the last label is open
		if err := closeLabel(b, label); err != nil {
			return b[:start], err
		}
		b = append(b, 0)
	}
	if len(b)-start > maxNameWire {
		return b[:start], fmt.Errorf("%w: %d octets, more than 253", ErrBadName, len(b)-start-2)
	}
	return b, nil
}

// closeLabel writes the length of the label that began at start and is complete.
func closeLabel(b []byte, start int) error {
	n := len(b) - start - 1
	if n == 0 {
		return fmt.Errorf("%w: empty label", ErrBadName)
	}
	if n > maxLabel {
		return fmt.Errorf("%w: a label of %d octets, more than %d", ErrBadName, n, maxLabel)
	}
	b[start] = byte(n)
	return nil
}

// octet reads one octet of a label and how long its spelling is.
func octet(s string) (c byte, n int, err error) {
	switch c := s[0]; {
	case c >= 0x80:
		return 0, 0, fmt.Errorf("%w: not ASCII, A-labels are needed", ErrBadName)
	case c <= ' ' || c == 0x7f:
		return 0, 0, fmt.Errorf("%w: character %q", ErrBadName, c)
	case c != '\\':
		return c, 1, nil
	}
	if len(s) < 2 || s[1] < ' ' || s[1] > '~' {
		return 0, 0, fmt.Errorf("%w: backslash without a character", ErrBadName)
	}
	if !digit(s[1]) {
		return s[1], 2, nil
	}
	if len(s) < 4 || !digit(s[2]) || !digit(s[3]) {
		return 0, 0, fmt.Errorf("%w: backslash needs three digits", ErrBadName)
	}
	v := int(s[1]-'0')*100 + int(s[2]-'0')*10 + int(s[3]-'0')
	if v > 255 {
		return 0, 0, fmt.Errorf("%w: \\%d is no octet", ErrBadName, v)
	}
	return byte(v), 4, nil
}

// readName reads the name at off and gives it as Answers have it: lower case, no
// trailing dot, "." for the root. Octets that are special or not printable stay
// escaped, so that no name can pass for two, or for a line of a log; there is no
// white space.
func readName(msg []byte, off int) (name string, next int, err error) {
	name, next, err = dns.UnpackDomainName(msg, off)
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if name != "." {
		name = name[:len(name)-1] // the last dot is never an escaped one
	}
	if strings.IndexByte(name, ' ') >= 0 {
		name = strings.ReplaceAll(name, `\ `, `\032`) // each space comes with its backslash
	}
	return strings.ToLower(name), next, nil
}

// skipName gives the offset behind the name at off, without following pointers.
func skipName(msg []byte, off int) (next int, ok bool) {
	for off < len(msg) {
		c := int(msg[off])
		switch {
		case c == 0:
			return off + 1, true
		case c >= 0xc0:
			return off + 2, off+2 <= len(msg)
		case c > maxLabel:
			return 0, false
		}
		off += 1 + c
	}
	return 0, false
}

// plain says that the presentation form is that of readName already.
func plain(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || digit(c) || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return len(name) == 1 || name[len(name)-1] != '.'
}

// within says that name is zone or lies below it; both as readName gives them.
func within(name, zone string) bool {
	if zone == "." || name == zone {
		return true
	}
	head, ok := strings.CutSuffix(name, "."+zone)
	// A dot that is escaped belongs to the label: count the backslashes.
	return ok && (len(head)-len(strings.TrimRight(head, `\`)))%2 == 0
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
