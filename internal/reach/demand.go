package reach

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// demand is what a Target comes to for smtp(8): the level in effect and all
// that the certificate will be held against.
type demand struct {
	level    Level
	sni      string
	names    []string // at verify and secure, and for DANE-TA(2)
	prints   []string // at fingerprint: lower-case hexadecimal
	records  []TLSA   // usable ones
	hopeless string   // why no certificate can do, in Postfix's words
	min, max uint16
}

// demandOf works the demand out; the error is ErrLevel.
func demandOf(t *Target) (demand, error) {
	level, err := ParseLevel(string(t.Level))
	if err != nil {
		return demand{}, err
	}
	d := demand{level: level, min: t.MinVersion, max: t.MaxVersion}
	if t.ServerName != "" {
		d.sni = t.name(t.ServerName)
	}
	switch level {
	case Verify:
		d.names = t.names(orElse(t.Match, "hostname"))
	case Secure:
		d.names = t.names(orElse(t.Match, "nexthop", "dot-nexthop"))
	case Fingerprint:
		for _, m := range t.Match {
			d.prints = append(d.prints, strings.ToLower(strings.ReplaceAll(m, ":", "")))
		}
	case DANE, DANEOnly:
		d.dane(t)
	}
	if d.min == 0 {
		d.min = tls.VersionTLS10 // smtp_tls_mandatory_protocols: >=TLSv1
	}
	if d.level.authenticates() {
		d.min = max(d.min, tls.VersionTLS12) // see Target.MinVersion
	}
	return d, nil
}

// dane sets what smtp_tls_policy.c and tls_client.c make of DANE's levels.
func (d *demand) dane(t *Target) {
	if len(t.TLSA) == 0 {
		if d.level == DANE {
			d.level = May // RFC 7672 §2.2: opportunistic
			return
		}
		d.hopeless = "no TLSA records found"
		return
	}
	base := t.TLSABase
	if base == "" {
		base = t.Host
	}
	d.sni = t.name(base) // RFC 7672 §8.1
	d.names = t.names(append([]string{base}, orElse(t.Match, "nexthop")...))
	if d.records = usable(t.TLSA); len(d.records) > 0 {
		return
	}
	if d.level == DANE {
		d.level = Encrypt // RFC 7672 §2.2: TLS is mandatory, authentication impossible
		return
	}
	d.hopeless = "TLSA records unusable"
}

func orElse(list []string, instead ...string) []string {
	if len(list) > 0 {
		return list
	}
	return instead
}

// key tells demands apart: what two probes at one address must agree on to have
// the same result. Name lists are ordered, so that their order does not count.
func (d demand) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %x %x %q %q", d.level, d.min, d.max, d.sni, d.hopeless)
	for _, list := range [][]string{d.names, d.prints} {
		fmt.Fprintf(&b, " %q", slices.Sorted(slices.Values(list)))
	}
	var records []string
	for _, r := range d.records {
		records = append(records, fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.MatchingType, r.Data))
	}
	slices.Sort(records)
	fmt.Fprintf(&b, " %q", records)
	return b.String()
}
