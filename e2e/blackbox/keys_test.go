package blackbox

import (
	"strings"
	"testing"
)

// keys are cases of STS-003 to STS-007 and PFX-05: what a key is answered for the three floors. "floor" stands for the
// floor's reply, "none" for NOTFOUND whatever the floor.
var keys = []struct {
	name, key, want string
	asks            bool // DNS is asked
}{
	{"STS003_leading_dot", ".keys.test", "none", false},
	{"STS003_leading_dot_top", ".test", "none", false},
	{"STS003_dot", ".", "none", false},
	{"STS005_ipv4", "[192.0.2.1]", "none", false},
	{"STS005_ipv4_port", "[192.0.2.1]:25", "none", false},
	{"STS005_ipv6", "[IPv6:2001:db8::1]:25", "none", false},
	{"STS005_ipv6_lower", "[ipv6:2001:db8::1]", "none", false},
	{"STS005_ipv6_bare", "[2001:db8::1]", "none", false},
	{"STS005_unbracketed", "192.0.2.1", "none", false},
	{"STS006_empty_label", "a..b", "none", false},
	{"STS006_hyphen", "-", "none", false},
	{"STS006_300", strings.Repeat("a", 300), "none", false},
	{"STS006_300_labels", strings.Repeat("a.", 150) + "test", "none", false},
	{"STS006_long_label", strings.Repeat("a", 64) + ".test", "none", false},
	{"STS006_slash", "a/b.test", "none", false},
	{"STS006_space", "a b.test", "none", false},
	{"STS006_control", "a\x01.test", "none", false},
	{"STS006_nul", "a\x00.test", "none", false},
	{"STS006_newline", "a.test\n", "none", false},
	{"STS006_two_trailing_dots", "keys.test..", "none", false},
	{"STS006_bad_utf8", "b\xfccher.test", "none", false},
	{"STS006_not_idn", "a\u2028b.test", "none", false},
	{"STS006_empty", "", "none", false},
	{"STS006_bracket_open", "[keys.test", "none", false},
	{"STS006_brackets_empty", "[]", "none", false},
	{"STS006_bad_xn", "xn--\xff.test", "none", false},
	{"STS006_email", "user@keys.test", "none", false},
	{"STS006_plain", "keys.test", "floor", true},
	{"STS006_upper", "KEYS.TEST", "floor", true},
	{"STS006_trailing_dot", "keys.test.", "floor", true},
	{"PFX005_port", "keys.test:587", "floor", true},
	{"PFX005_service", "keys.test:submission", "floor", true},
	{"PFX005_brackets", "[mx.keys.test]", "floor", true},
	{"PFX005_brackets_port", "[mx.keys.test]:587", "floor", true},
	{"PFX005_brackets_service", "[mx.keys.test]:smtp", "floor", true},
	{"STS006_underscore", "a_b.keys.test", "floor", true},
	{"STS007_single_label", "keys", "floor", false},
}

func TestSTS_Keys(t *testing.T) {
	t.Parallel()
	truth.publish(t, "keys.test MX 10 mx.keys.test\nmx.keys.test A 192.0.2.1\na_b.keys.test A 192.0.2.2\nkeys A 192.0.2.3")
	for floor, reply := range map[string]string{"inherit": notFound, "dane": "OK dane", "encrypt": "OK encrypt"} {
		d := startDaemon(t, config{"tls_policy": "postfix_version = \"3.11\"\nfloor = \"" + floor + "\""})
		for _, c := range keys {
			t.Run(floor+"/"+c.name, func(t *testing.T) {
				want := notFound
				if c.want == "floor" {
					want = reply
				}
				for _, name := range []string{"QUERY", "postseal"} {
					if got := d.ask(name, c.key); got != want {
						t.Errorf("%s %q: got %q, want %q", name, c.key, got, want)
					}
				}
			})
		}
	}
	for _, name := range []string{"a..b", "a/b.test", "192.0.2.1", "[192.0.2.1]", ".keys.test"} {
		if n := truth.asked(name, "MX") + truth.asked("_mta-sts."+strings.TrimPrefix(name, "."), "TXT"); n > 0 && name != ".keys.test" {
			t.Errorf("%q: DNS was asked", name)
		}
	}
}

// TestSTS004_SmartHost: the smart host's domain is the policy domain, its port that of the TLSA records.
func TestSTS004_SmartHost(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	truth.publish(t, "smart.test A 192.0.2.1\nsmart.test MX 10 other.smart.test\n_587._tcp.smart.test TLSA 3 1 1 1111111111111111111111111111111111111111111111111111111111111111")
	d.wants("[smart.test]:587", "OK dane")
	if truth.asked("smart.test", "MX") > 0 || truth.asked("_25._tcp.smart.test", "TLSA") > 0 || truth.asked("_587._tcp.smart.test", "TLSA") != 1 {
		t.Errorf("asked: %v", truth.questions("smart.test"))
	}
	d.wants("[smart.test]", notFound)
	d.wants("[smart.test]:submission", "OK dane")
	truth.publish(t, "smart2.test A 192.0.2.1")
	publishSTS(t, "smart2.test", "1", enforce("smart2.test"))
	d.wants("[smart2.test]:587", "OK secure match=smart2.test servername=hostname")
	// The port of a key without brackets is that of its hosts.
	truth.publish(t, "ported.test MX 10 mx.ported.test\nmx.ported.test A 192.0.2.1\n_2525._tcp.mx.ported.test TLSA 3 1 1 1111111111111111111111111111111111111111111111111111111111111111")
	d.wants("ported.test:2525", "OK dane")
	d.wants("ported.test", notFound)
}

// TestPFX002_MapNames: an unknown map name is answered NOTFOUND, at whatever floor, and logged.
func TestPFX002_MapNames(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": `floor = "encrypt"`})
	publishPlain(t, "mapname.test")
	for _, name := range []string{"nosuchmap", "Postseal", "query", "Postseal-enforced", "querywithtlsrpt", strings.Repeat("m", 900)} {
		if got := d.ask(name, "mapname.test"); got != notFound {
			t.Errorf("map %q: %q", name, got)
		}
	}
	d.await("log line", func() bool { return strings.Contains(d.log.String(), "nosuchmap") })
	for _, name := range mapNames {
		if got := d.ask(name, "mapname.test"); got != "OK encrypt" {
			t.Errorf("map %q: %q", name, got)
		}
	}
}
