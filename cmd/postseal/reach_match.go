package main

import (
	"crypto/tls"
	"slices"
	"strconv"
	"strings"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// matches splits the value of match= as Postfix does: names at ":", digests at "|".
func matches(l tlspolicy.Level, value string) []string {
	separator := ":"
	if l == tlspolicy.Fingerprint {
		separator = "|"
	}
	return slices.DeleteFunc(strings.Split(value, separator), func(s string) bool { return s == "" })
}

// versionNames are those of tls/tls_misc.c that there still is something to try with.
var versionNames = []struct {
	name    string
	version uint16
}{{"SSLv3", tls.VersionTLS10 - 1}, {"TLSv1", tls.VersionTLS10}, {"TLSv1.1", tls.VersionTLS11}, {"TLSv1.2", tls.VersionTLS12}, {"TLSv1.3", tls.VersionTLS13}}

// tlsVersions reads a list of protocols as tls_proto_mask_lims does: the lowest and
// the highest version that it allows, zero where it does not say. Versions left out in
// between are tried all the same. False: it allows none.
func tlsVersions(list string) (lowest, highest uint16, some bool) {
	floor, ceiling := uint16(0), uint16(0xffff)
	var only, not []uint16
	tokens := strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n:", r) })
	for _, token := range tokens {
		switch {
		case strings.HasPrefix(token, ">="):
			floor = versionBound(token[2:], 0)
		case strings.HasPrefix(token, "<="):
			ceiling = versionBound(token[2:], 0xffff)
		case strings.HasPrefix(token, "!"):
			not = append(not, versionBound(token[1:], 0))
		default:
			only = append(only, versionBound(token, 0))
		}
	}
	if len(tokens) == 0 {
		return 0, 0, true
	}
	for _, v := range versionNames[1:] {
		if v.version < floor || v.version > ceiling || slices.Contains(not, v.version) || len(only) > 0 && !slices.Contains(only, v.version) {
			continue
		}
		if !some {
			lowest, some = v.version, true
		}
		highest = v.version
	}
	return lowest, highest, some
}

// versionBound is a version by name or, as OpenSSL numbers it, in hexadecimal.
func versionBound(text string, otherwise uint16) uint16 {
	for _, v := range versionNames {
		if strings.EqualFold(v.name, text) {
			return v.version
		}
	}
	if n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(text), "0x"), 16, 16); err == nil && n > 0 {
		return uint16(n)
	}
	return otherwise // "none", and SSLv2
}
