package tlspolicy

import (
	"strconv"
	"strings"
)

// protocolNames of tls/tls_misc.c (protocol_table); SSLv2 is known, and no bound.
var protocolNames = []string{"SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}

// checkProtocols reads a list as tls_proto_mask_lims (3.6 and later) or
// tls_protocol_mask does. smtp(8) itself reads it only when a session starts:
// "Invalid TLS protocol list …: aborting TLS session", and the mail is deferred.
func checkProtocols(a Attr, _ Level, v Version) error {
	tokens := strings.FieldsFunc(a.Value, isListSeparator)
	if len(tokens) == 0 {
		return unsafe(a.Name+"="+clip(a.Value), "lifts every bound, down to SSLv3", "write protocols=>=TLSv1.2, or drop it")
	}
	for _, token := range tokens {
		if err := checkProtocol(a, token, v); err != nil {
			return err
		}
	}
	return nil
}

func checkProtocol(a Attr, token string, v Version) error {
	if bound, ok := cutBound(token); ok {
		if !v.atLeast(3, 6, 0) {
			return tooNew(a.Name+"="+clip(a.Value), "3.6", v, "write protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1")
		}
		return checkBound(a, bound)
	}
	name := strings.TrimPrefix(token, "!")
	for _, p := range protocolNames {
		if equalFold(p, name) {
			return nil
		}
	}
	return unknownProtocol(a, name)
}

// cutBound splits ">=" or "<=" off.
func cutBound(token string) (string, bool) {
	if s, ok := strings.CutPrefix(token, ">="); ok {
		return s, true
	}
	return strings.CutPrefix(token, "<=")
}

// checkBound reads what parse_tls_version reads: a name, None, or the number of
// a protocol in hex (0304).
func checkBound(a Attr, bound string) error {
	if equalFold(bound, "none") {
		return nil
	}
	for _, p := range protocolNames[1:] {
		if equalFold(p, bound) {
			return nil
		}
	}
	if bound == "" || strings.ContainsRune("+-", rune(bound[0])) {
		// strtoul(3) takes nothing for zero, and signs; both lift the bound.
		return unsafe(a.Name+"="+clip(a.Value), "has a bound without a protocol", "write for example >=TLSv1.2")
	}
	digits := strings.TrimPrefix(strings.TrimPrefix(bound, "0x"), "0X")
	n, err := strconv.ParseUint(digits, 16, 31)
	if err != nil {
		return unknownProtocol(a, bound)
	}
	if n < 0x0300 || n > 0x0304 {
		return unsafe(a.Name+"="+clip(a.Value), "bounds by a protocol that does not exist: "+clip(bound), "write for example >=TLSv1.2")
	}
	return nil
}

func unknownProtocol(a Attr, name string) error {
	fix := "use one of " + strings.Join(protocolNames, ", ")
	if guess := nearest(name, protocolNames); guess != "" {
		fix = "did you mean " + guess + "?"
	}
	return refuse(a.Name+":", "unknown protocol "+clip(name), fix)
}

// isListSeparator: CHARS_COMMA_SP ":".
func isListSeparator(r rune) bool { return strings.ContainsRune(", \t\r\n:", r) }
