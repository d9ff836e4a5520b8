package tlspolicy

import (
	"regexp"
	"strconv"
	"strings"
)

const policyType = "policy_type"

type repetition uint8

const (
	once     repetition = iota // a second one makes the line invalid
	many                       // all count
	lastWins                   // all but the last are overridden
)

// attribute is one that smtp(8) knows.
type attribute struct {
	name   string
	since  Version
	repeat repetition
	// levels limits where it is valid beyond "may or stronger"; nil: nowhere else.
	levels func(Level) bool
	// needsType: invalid without policy_type.
	needsType bool
	// check judges the value, nil: any.
	check func(a Attr, l Level, v Version) error
}

var (
	always = Version{Known: true}
	v3_4   = Version{Major: 3, Minor: 4, Known: true}
	v3_9   = Version{Major: 3, Minor: 9, Known: true}
	v3_10  = Version{Major: 3, Minor: 10, Known: true}
)

// attributes in the order of tls_policy_lookup_one; match stands at matchIndex.
var attributes = [...]attribute{
	matchIndex: {name: "match", since: always, repeat: many, check: checkMatch,
		levels: func(l Level) bool { return l == Fingerprint || l.mustMatchName() }},
	{name: "ciphers", since: always, check: checkGrade},
	{name: "protocols", since: always, check: checkProtocols},
	{name: "servername", since: v3_4, check: checkServername},
	{name: "exclude", since: always, check: checkExclude},
	{name: "tafile", since: always, repeat: many, levels: Level.mustMatchName, check: checkFile},
	{name: "connection_reuse", since: v3_4, repeat: lastWins, check: checkYesNo},
	{name: "enable_rpk", since: v3_9, repeat: lastWins, check: checkYesNo},
	{name: "policy_ttl", since: v3_10, needsType: true, check: checkSeconds},
	{name: policyType, since: v3_10, check: checkWord("sts", "no-policy-found")},
	{name: "policy_domain", since: v3_10, needsType: true, check: checkHostname},
	{name: "policy_string", since: v3_10, repeat: many, needsType: true},
	{name: "mx_host_pattern", since: v3_10, repeat: many, needsType: true, check: checkPattern},
	{name: "policy_failure", since: v3_10, needsType: true,
		check: checkWord("sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid", "validation-failure")},
}

const matchIndex = 0

func find(name string) int {
	for i := range attributes {
		if attributes[i].name == name {
			return i
		}
	}
	return -1
}

func attributeNames() []string {
	names := make([]string, len(attributes))
	for i := range attributes {
		names[i] = attributes[i].name
	}
	return names
}

func bad(a Attr, what, fix string) error {
	return refuse(a.Name+"="+clip(a.Value), what, fix)
}

// hexDigest is what hex_decode_opt reads with HEX_DECODE_FLAG_ALLOW_COLON:
// pairs of digits, each pair but the last may have a colon behind it.
var hexDigest = regexp.MustCompile(`^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2})*$`)

// checkMatch checks a list of names, or of digests at level fingerprint.
func checkMatch(a Attr, l Level, _ Version) error {
	if a.Value == "" {
		return refuse(a.Name+"=", "has no value", "list what must match, or drop it")
	}
	if l == Fingerprint {
		return checkDigests(a)
	}
	names := strings.Split(a.Value, ":")
	for _, name := range names {
		switch {
		case name == "":
			// argv_split drops it; a list of nothing would match nothing.
			return unsafe(a.Name+"="+clip(a.Value), "has an empty name", "drop the extra \":\"")
		case equalFold(name, "hostname"), equalFold(name, "nexthop"), equalFold(name, "dot-nexthop"):
		case strings.HasPrefix(name, "*"):
			// Passed to the TLS library as it is: it only equals a certificate with a literal wildcard.
			return unsafe(a.Name+"="+clip(a.Value), "has a \"*\", which matches nothing", "write "+clip(strings.TrimPrefix(name, "*")))
		case !validHostname(strings.TrimPrefix(name, ".")):
			return unsafe(a.Name+"="+clip(a.Value), "has a name that is no host name: "+clip(name), "separate names by \":\"")
		}
	}
	return nil
}

func checkDigests(a Attr) error {
	for d := range strings.SplitSeq(a.Value, "|") {
		if !hexDigest.MatchString(d) {
			// A malformed digest is skipped with a warning; without another the mail is deferred.
			return unsafe(a.Name+"="+clip(a.Value), "has a malformed digest "+clip(d), "write pairs of hex digits, separated by \":\", and \"|\" between digests")
		}
	}
	return nil
}

func checkGrade(a Attr, _ Level, _ Version) error {
	grades := []string{"high", "medium", "low", "export", "null"}
	for _, g := range grades {
		if equalFold(g, a.Value) {
			return nil
		}
	}
	return bad(a, "is no cipher grade", "use high or medium")
}

func checkServername(a Attr, l Level, v Version) error {
	if equalFold(a.Value, "hostname") || equalFold(a.Value, "nexthop") {
		return nil
	}
	return checkHostname(a, l, v)
}

// checkExclude reads the list as tls_set_ciphers does.
func checkExclude(a Attr, _ Level, _ Version) error {
	for _, c := range strings.FieldsFunc(a.Value, isListSeparator) {
		if strings.ContainsRune("!+-@", rune(c[0])) {
			return bad(a, "has a modifier before "+clip(c), "write cipher names alone, separated by \":\"")
		}
	}
	return nil
}

// checkFile: the file itself is for smtp(8) to read, from inside its chroot.
func checkFile(a Attr, _ Level, _ Version) error {
	if a.Value == "" {
		return refuse(a.Name+"=", "has no value", "name a file, or drop it")
	}
	if !strings.HasPrefix(a.Value, "/") {
		return unsafe(a.Name+"="+clip(a.Value), "is no absolute path", "write the whole path, as smtp(8) sees it")
	}
	return nil
}

func checkYesNo(a Attr, _ Level, _ Version) error {
	if equalFold(a.Value, "yes") || equalFold(a.Value, "no") {
		return nil
	}
	return bad(a, "is neither yes nor no", "")
}

func checkSeconds(a Attr, _ Level, _ Version) error {
	if a.Value == "" || strings.Trim(a.Value, "0123456789") != "" {
		return bad(a, "is no number of seconds", "leave it out, Postfix does not use it")
	}
	if _, err := strconv.ParseInt(a.Value, 10, 32); err != nil {
		return bad(a, "is too large a number of seconds", "leave it out, Postfix does not use it")
	}
	return nil
}

func checkHostname(a Attr, _ Level, _ Version) error {
	if !validHostname(a.Value) {
		return bad(a, "is no host name", "write a host name in A-labels, without a dot at the end")
	}
	return nil
}

func checkPattern(a Attr, _ Level, _ Version) error {
	if validHostname(strings.TrimPrefix(a.Value, "*.")) {
		return nil
	}
	fix := "write a host name or \"*.\" and a host name"
	if strings.HasPrefix(a.Value, ".") {
		fix = "write " + clip("*"+a.Value)
	}
	return unsafe(a.Name+"="+clip(a.Value), "matches no host", fix)
}

func checkWord(words ...string) func(Attr, Level, Version) error {
	return func(a Attr, _ Level, _ Version) error {
		for _, w := range words {
			if equalFold(w, a.Value) {
				return nil
			}
		}
		return bad(a, "is not a value of it", "use one of "+strings.Join(words, ", "))
	}
}

// validHostname obeys util/valid_hostname.c: letters, digits, "_", "-" inside
// labels of at most 63 bytes, 255 in all, not only digits.
func validHostname(name string) bool {
	if name == "" || len(name) > 255 {
		return false
	}
	numeric := true
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			switch {
			case c >= '0' && c <= '9':
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
				numeric = false
			case c == '-':
			default:
				return false
			}
		}
	}
	return !numeric
}
