package tlspolicytest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const commaSP = ", \t\r\n" // CHARS_COMMA_SP

// cString ends a text where C does.
func cString(s string) string {
	if i := strings.IndexByte(s, 0); i >= 0 {
		return s[:i]
	}
	return s
}

// isspace: ISSPACE of util/sys_defs.h, only ASCII.
func isspace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// mystrtok: util/mystrtok.c.
func mystrtok(src *string) (string, bool) {
	start := strings.TrimLeft(*src, commaSP)
	if start == "" {
		*src = ""
		return "", false
	}
	if end := strings.IndexAny(start, commaSP); end >= 0 {
		*src = start[end+1:]
		return start[:end], true
	}
	*src = ""
	return start, true
}

// mystrtokq: util/mystrtok.c, with CHARS_BRACE.
func mystrtokq(src *string) (string, bool) {
	start := strings.TrimLeft(*src, commaSP)
	if start == "" {
		*src = ""
		return "", false
	}
	level := 0
	for cp := 0; cp < len(start); cp++ {
		ch := start[cp]
		if ch == '{' {
			level++
		} else if level > 0 && ch == '}' {
			level--
		} else if level == 0 && strings.IndexByte(commaSP, ch) >= 0 {
			*src = start[cp+1:]
			return start[:cp], true
		}
	}
	*src = ""
	return start, true
}

// balpar: util/balpar.c.
func balpar(s string) int {
	level := 1
	for cp := 1; cp < len(s); cp++ {
		if s[cp] == '}' {
			if level--; level == 0 {
				return cp + 1
			}
		} else if s[cp] == '{' {
			level++
		}
	}
	return 0
}

// extpar: util/extpar.c, with EXTPAR_FLAG_STRIP and EXTPAR_FLAG_NORMAL_WS. The
// caller has seen the opening brace.
func extpar(cp string) (string, error) {
	n := balpar(cp)
	if n == 0 {
		return cp, fmt.Errorf("missing '}' in %q", cp)
	}
	if n != len(cp) {
		return cp, fmt.Errorf("syntax error after '}' in %q", cp)
	}
	cp = cp[1 : n-1]
	for cp != "" && isspace(cp[len(cp)-1]) {
		cp = cp[:len(cp)-1]
	}
	for cp != "" && isspace(cp[0]) {
		cp = cp[1:]
	}
	normal := []byte(cp)
	for i := range normal {
		if isspace(normal[i]) {
			normal[i] = ' '
		}
	}
	return string(normal), nil
}

// splitNameval: util/split_nameval.c.
func splitNameval(buf string) (name, value string, err error) {
	np := 0
	for np < len(buf) && isspace(buf[np]) {
		np++
	}
	if np == len(buf) || buf[np] == '=' {
		return "", "", errors.New("missing attribute name")
	}
	ep := np
	for ep < len(buf) && !isspace(buf[ep]) && buf[ep] != '=' {
		ep++
	}
	cp := ep
	for cp < len(buf) && isspace(buf[cp]) {
		cp++
	}
	if cp == len(buf) || buf[cp] != '=' {
		return "", "", errors.New("missing '=' after attribute name")
	}
	vp, end := cp+1, len(buf)
	for vp < len(buf) && isspace(buf[vp]) {
		vp++
	}
	for end > vp && isspace(buf[end-1]) {
		end--
	}
	return buf[np:ep], buf[vp:end], nil
}

// argvSplit: util/argv_split.c.
func argvSplit(s, delim string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(delim, r) })
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// nameCode: util/name_code.c with NAME_CODE_FLAG_NONE: strcasecmp.
func nameCode(s string, table ...string) bool {
	for _, name := range table {
		if asciiLower(name) == asciiLower(s) {
			return true
		}
	}
	return false
}

// tlsLevelLookup: tls/tls_level.c; empty for TLS_LEV_INVALID.
func tlsLevelLookup(name string) string {
	for _, level := range []string{"none", "may", "encrypt", "fingerprint", "dane", "dane-only", "verify", "secure"} {
		if nameCode(name, level) {
			return level
		}
	}
	return ""
}

func yesNo(name, val string) error {
	if nameCode(val, "yes", "no") {
		return nil
	}
	return fmt.Errorf("attribute %q has bad value: %q", name, val)
}

// alldig: util/alldig.c.
func alldig(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// fitsInt: sane_strtol and the assignment to an int.
func fitsInt(digits string) bool {
	_, err := strconv.ParseInt(digits, 10, 32)
	return err == nil
}

// validHostname: util/valid_hostname.c.
func validHostname(name string) bool {
	if name == "" {
		return false
	}
	labelLength, nonNumeric := 0, false
	at := func(i int) byte {
		if i < len(name) {
			return name[i]
		}
		return 0
	}
	for cp := range len(name) {
		ch := name[cp]
		switch {
		case ch >= '0' && ch <= '9', ch >= 'a' && ch <= 'z', ch >= 'A' && ch <= 'Z', ch == '_':
			if labelLength++; labelLength > 63 {
				return false
			}
			if ch < '0' || ch > '9' {
				nonNumeric = true
			}
		case ch == '.':
			if labelLength == 0 || at(cp+1) == 0 {
				return false
			}
			labelLength = 0
		case ch == '-':
			labelLength++
			if labelLength == 1 || at(cp+1) == 0 || at(cp+1) == '.' {
				return false
			}
		default:
			return false
		}
	}
	return nonNumeric && len(name) <= 255
}

// anyDigest: tls_dane_add_fpt_digests, with util/hex_code.c (colons allowed
// between pairs); what is malformed is skipped with a warning.
func anyDigest(values []string) bool {
	for _, s := range values {
		if hexDecode(s) {
			return true
		}
	}
	return false
}

func hexDecode(s string) bool {
	isHex := func(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }
	pairs := 0
	for i := 0; i < len(s); i += 2 {
		if pairs > 0 && s[i] == ':' {
			i++
		}
		if i+1 >= len(s) || !isHex(s[i]) || !isHex(s[i+1]) {
			return false
		}
		pairs++
	}
	return pairs > 0
}

// tlsProtoMaskLims: tls/tls_misc.c; before 3.6 tls_protocol_mask.
func (t *smtpTLSPolicy) tlsProtoMaskLims(plist string) bool {
	protocols := []string{"SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}
	for _, tok := range argvSplit(plist, commaSP+":") {
		ok := false
		switch {
		case since(t.version, 3, 6) && (strings.HasPrefix(tok, ">=") || strings.HasPrefix(tok, "<=")):
			ok = parseTLSVersion(tok[2:])
		default:
			ok = nameCode(strings.TrimPrefix(tok, "!"), protocols...)
		}
		if !ok {
			return false
		}
	}
	return true
}

// parseTLSVersion: tls/tls_misc.c, parse_tls_version.
func parseTLSVersion(tok string) bool {
	if nameCode(tok, "None", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3") {
		return true
	}
	// strtoul(tok, &end, 16) with *end == 0 and at most INT_MAX.
	digits, negative := tok, false
	if digits != "" && (digits[0] == '+' || digits[0] == '-') {
		negative, digits = digits[0] == '-', digits[1:]
		if digits == "" {
			return false // nothing converted: end stays at the sign
		}
	}
	if len(digits) > 2 && (digits[:2] == "0x" || digits[:2] == "0X") {
		digits = digits[2:]
	}
	if digits == "" {
		return true
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return err == nil && n <= 1<<31-1 && (!negative || n == 0)
}
