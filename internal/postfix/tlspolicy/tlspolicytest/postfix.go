package tlspolicytest

import (
	"fmt"
	"strings"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// Postfix reads the right side of a policy line as smtp(8) of that version
// does: smtp/smtp_tls_policy.c, tls_policy_lookup_one. An unknown version reads
// like 3.7. Names of attributes come back in lower case. The error is Postfix's
// warning; all mail to the destination is then deferred.
func Postfix(text string, v tlspolicy.Version) (level string, attrs []tlspolicy.Attr, err error) {
	policy := cString(text)
	next := mystrtok
	if since(v, 3, 10) {
		next = mystrtokq
	}
	tok, ok := next(&policy)
	if !ok {
		return "", nil, fmt.Errorf("invalid empty policy")
	}
	level = tlsLevelLookup(tok)
	if level == "" {
		return "", nil, fmt.Errorf("invalid security level %q", tok)
	}
	if level == "none" {
		return level, nil, nil // "ignoring attribute … with TLS disabled"
	}
	tls := smtpTLSPolicy{level: level, version: v}
	for {
		tok, ok := next(&policy)
		if !ok {
			break
		}
		if since(v, 3, 10) && tok[0] == '{' {
			if tok, err = extpar(tok); err != nil {
				return "", nil, fmt.Errorf("malformed attribute/value pair %q: %w", tok, err)
			}
		}
		name, val, err := splitNameval(tok)
		if err != nil {
			return "", nil, fmt.Errorf("malformed attribute/value pair %q: %w", tok, err)
		}
		name = asciiLower(name)
		if err := tls.attribute(name, val); err != nil {
			return "", nil, err
		}
		attrs = append(attrs, tlspolicy.Attr{Name: name, Value: val})
	}
	if err := tls.finish(); err != nil {
		return "", nil, err
	}
	return level, attrs, nil
}

// since: what of the grammar a version has.
func since(v tlspolicy.Version, major, minor int) bool {
	if !v.Known {
		v.Major, v.Minor = 3, 7
	}
	candidate := v.Suffix != "" && v.Patch == 0 // a snapshot may lack what X.Y.0 brought
	if v.Major == major && v.Minor == minor && candidate {
		return false
	}
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// smtpTLSPolicy is the part of SMTP_TLS_POLICY that the reader fills.
type smtpTLSPolicy struct {
	level   string
	version tlspolicy.Version

	set                      map[string]string // the attributes of which only one may be there
	matchargv                []string
	matched                  bool
	policyStrings, mxPattern bool
}

func (t *smtpTLSPolicy) once(name, val string) error {
	if _, dup := t.set[name]; dup {
		return fmt.Errorf("attribute %q is specified multiple times", name)
	}
	if t.set == nil {
		t.set = map[string]string{}
	}
	t.set[name] = val
	return nil
}

func (t *smtpTLSPolicy) attribute(name, val string) error {
	switch name {
	case "ciphers":
		if val == "" {
			return fmt.Errorf("attribute %q has empty value", name)
		}
		return t.once(name, val)
	case "protocols", "exclude":
		return t.once(name, val)
	case "servername":
		if !since(t.version, 3, 4) {
			break
		}
		if !validHostname(val) {
			return fmt.Errorf("%q specifies an invalid hostname", name+"="+val)
		}
		return t.once(name, val)
	case "match":
		return t.match(name, val)
	case "tafile":
		if t.level != "verify" && t.level != "secure" {
			return fmt.Errorf("attribute %q invalid at security level %q", name, t.level)
		}
		if val == "" {
			return fmt.Errorf("attribute %q has empty value", name)
		}
		return nil
	case "connection_reuse":
		if since(t.version, 3, 4) {
			return yesNo(name, val)
		}
	case "enable_rpk":
		if since(t.version, 3, 9) {
			return yesNo(name, val)
		}
	}
	if since(t.version, 3, 10) {
		return t.external(name, val)
	}
	return fmt.Errorf("invalid attribute name: %q", name)
}

func (t *smtpTLSPolicy) match(name, val string) error {
	if val == "" {
		return fmt.Errorf("attribute %q has empty value", name)
	}
	switch t.level {
	default:
		return fmt.Errorf("attribute %q invalid at security level %q", name, t.level)
	case "fingerprint":
		t.matchargv = append(t.matchargv, argvSplit(val, "|")...)
	case "verify", "secure":
		t.matchargv = append(t.matchargv, argvSplit(val, ":")...)
	}
	t.matched = true
	return nil
}

// external: the attributes of 3.10.
func (t *smtpTLSPolicy) external(name, val string) error {
	switch name {
	case "policy_ttl":
		if !alldig(val) || !fitsInt(val) {
			return fmt.Errorf("attribute %q has a malformed value: %q", name, val)
		}
		return t.once(name, val)
	case "policy_type":
		if !nameCode(val, "sts", "no-policy-found") {
			return fmt.Errorf("attribute %q has an unexpected value: %q", name, val)
		}
		return t.once(name, val)
	case "policy_domain":
		if !validHostname(val) {
			return fmt.Errorf("attribute %q has a malformed value: %q", name, val)
		}
		return t.once(name, val)
	case "policy_string":
		t.policyStrings = true
		return nil
	case "mx_host_pattern":
		t.mxPattern = true
		return nil
	case "policy_failure":
		if !nameCode(val, "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid", "validation-failure") {
			return fmt.Errorf("attribute %q has an unexpected value: %q", name, val)
		}
		return t.once(name, val)
	}
	return fmt.Errorf("invalid attribute name: %q", name)
}

// finish: the end of tls_policy_lookup_one, the fingerprints of policy_create,
// and what tls_client_start and tls_set_ciphers refuse.
func (t *smtpTLSPolicy) finish() error {
	_, typed := t.set["policy_type"]
	_, ttl := t.set["policy_ttl"]
	_, domain := t.set["policy_domain"]
	_, failure := t.set["policy_failure"]
	if !typed && (ttl || domain || failure || t.policyStrings || t.mxPattern) {
		return fmt.Errorf("built-in policy has unexpected attribute policy_ttl, policy_domain, policy_string, mx_host_pattern or policy_failure")
	}
	if t.level == "fingerprint" && !anyDigest(t.matchargv) {
		return fmt.Errorf("configured at fingerprint security level, but with no fingerprints to match")
	}
	if list, there := t.set["protocols"]; there && !t.tlsProtoMaskLims(list) {
		//lint:ignore ST1005 Postfix says it so
		return fmt.Errorf("Invalid TLS protocol list %q: aborting TLS session", list)
	}
	if grade, there := t.set["ciphers"]; there && !nameCode(grade, "high", "medium", "low", "export", "null") {
		return fmt.Errorf("invalid cipher grade: %q", grade)
	}
	for _, tok := range argvSplit(t.set["exclude"], commaSP+":") {
		if strings.IndexByte("!+-@", tok[0]) >= 0 {
			return fmt.Errorf("invalid unary '!+-@' in cipher exclusion: %s", tok)
		}
	}
	return nil
}
