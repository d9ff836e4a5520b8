package blackbox

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// policies are the cases of STS-050 to STS-063. The mail host is mx.DOMAIN, the policy must name it; want is "enforce",
// "plain" (no policy, or one that does not enforce). D stands for the domain.
var policies = []struct {
	name, body, want string
}{
	{"STS050_lf", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS050_crlf", "version: STSv1\r\nmode: enforce\r\nmx: mx.D\r\nmax_age: 604800\r\n", "enforce"},
	{"STS050_mixed", "version: STSv1\r\nmode: enforce\nmx: mx.D\r\nmax_age: 604800\n", "enforce"},
	{"STS050_no_last_terminator", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 604800", "enforce"},
	{"STS050_cr_only", "version: STSv1\rmode: enforce\rmx: mx.D\rmax_age: 604800\r", "plain"},
	{"STS051_no_space", "version:STSv1\nmode:enforce\nmx:mx.D\nmax_age:604800\n", "enforce"},
	{"STS051_tab", "version:\tSTSv1\nmode:\tenforce\nmx:\tmx.D\nmax_age: 604800\n", "enforce"},
	{"STS051_trailing_space", "version: STSv1  \nmode: enforce \t\nmx: mx.D \nmax_age: 604800 \n", "enforce"},
	{"STS051_space_before_colon", "version: STSv1\nmode : enforce\nmx : mx.D\nmax_age: 604800\n", "enforce"},
	{"STS051_leading_space", "version: STSv1\n mode: enforce\n mx: mx.D\n max_age: 604800\n", "enforce"},
	{"STS052_trailing_blank_lines", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 604800\n\n\n", "enforce"},
	{"STS052_blank_line_inside", "version: STSv1\n\nmode: enforce\n\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS053_any_order", "max_age: 86400\nmx: mx.D\nmode: enforce\nversion: STSv1\n", "enforce"},
	{"STS053_no_version", "mode: enforce\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS053_no_mode", "version: STSv1\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS053_no_mx", "version: STSv1\nmode: enforce\nmax_age: 604800\n", "plain"},
	{"STS053_no_max_age", "version: STSv1\nmode: enforce\nmx: mx.D\n", "plain"},
	{"STS053_none_without_mx", "version: STSv1\nmode: none\nmax_age: 604800\n", "plain"},
	{"STS054_lower", "version: stsv1\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS054_v2", "version: STSv2\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS054_v10", "version: STSv10\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS054_more", "version: STSv1 x\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS055_field_case", "Version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS055_mode_case", "version: STSv1\nMode: enforce\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS056_first_mode", "version: STSv1\nmode: testing\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS056_first_mode_enforce", "version: STSv1\nmode: enforce\nmode: bad\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS056_first_version", "version: STSv1\nversion: STSv2\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS056_unknown", "version: STSv1\nfoo: bar baz\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS056_unknown_empty", "version: STSv1\nfoo:\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS056_unknown_duplicate", "version: STSv1\nfoo: a\nfoo: b\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS057_mode_value_case", "version: STSv1\nmode: Enforce\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS057_report", "version: STSv1\nmode: report\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS057_empty", "version: STSv1\nmode:\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS058_zero", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 0\n", "enforce"},
	{"STS058_most", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 31557600\n", "enforce"},
	{"STS058_clamped", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 31557601\n", "enforce"},
	{"STS058_clamped_10_digits", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 9999999999\n", "enforce"},
	{"STS058_leading_zeros", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 0000604800\n", "enforce"},
	{"STS058_11_digits", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 00000604800\n", "plain"},
	{"STS058_negative", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: -1\n", "plain"},
	{"STS058_fraction", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 1.5\n", "plain"},
	{"STS058_unit", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 1w\n", "plain"},
	{"STS058_plus", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age: +5\n", "plain"},
	{"STS058_empty", "version: STSv1\nmode: enforce\nmx: mx.D\nmax_age:\n", "plain"},
	{"STS059_wildcard", "version: STSv1\nmode: enforce\nmx: *.D\nmax_age: 604800\n", "enforce"},
	{"STS059_upper_case", "version: STSv1\nmode: enforce\nmx: MX.D\nmax_age: 604800\n", "enforce"},
	{"STS059_trailing_dot", "version: STSv1\nmode: enforce\nmx: mx.D.\nmax_age: 604800\n", "enforce"},
	{"STS060_one_bad", "version: STSv1\nmode: enforce\nmx: 212.114.86.56\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS062_bom", "\ufeffversion: STSv1\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS062_utf16", "v\x00e\x00r\x00s\x00i\x00o\x00n\x00:\x00", "plain"},
	{"STS063_utf8_extension", "version: STSv1\nnote: bücher\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS063_bad_utf8", "version: STSv1\nnote: b\xfccher\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS063_nul_in_extension", "version: STSv1\nnote: a\x00b\nmode: enforce\nmx: mx.D\nmax_age: 604800\n", "enforce"},
	{"STS063_nul_in_mode", "version: STSv1\nmode: enforce\x00\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"W01_nmx", "version: STSv1\nmode: enforce\nnmx: mx.D\nmax_age: 604800\n", "plain"},
	{"W11_html", "<!doctype html><html><body>not found</body></html>", "plain"},
	{"STS081_testing", "version: STSv1\nmode: testing\nmx: mx.D\nmax_age: 604800\n", "plain"},
	{"STS082_none", "version: STSv1\nmode: none\nmx: mx.D\nmax_age: 604800\n", "plain"},
}

// badPatterns are values of mx that are none; a policy with nothing else is invalid.
var badPatterns = []string{"*", "*.", "*.*.D", "**.D", "mail.*.D", "m*.D", ".D", "møx.D", "192.0.2.1", "[192.0.2.1]", "mx D", "mx.D, mx2.D", "http://mx.D"}

func TestSTS_PolicyText(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": `postfix_version = "3.11"`})
	cases := slices.Clone(policies)
	for i, mx := range badPatterns {
		bad := cases[0]
		bad.name, bad.body, bad.want = fmt.Sprintf("STS059_bad_%d", i), enforce(mx), "plain"
		cases = append(cases, bad)
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := d.in(t)
			domain := fmt.Sprintf("pol%d.test", i)
			publishPlain(t, domain)
			publishSTS(t, domain, "1", replaceD(c.body, domain))
			want := notFound
			if c.want == "enforce" {
				want = secureFor(domain)
			}
			if got := d.ask("QUERY", domain); got != want {
				t.Errorf("policy %q: got %q, want %q", c.body, got, want)
			}
			full := d.ask("postseal", domain)
			for _, b := range []byte(full) {
				if b < ' ' || b > '~' {
					t.Fatalf("PFX-07: byte %#x in %q", b, full)
				}
			}
		})
	}
}

var letterD = regexp.MustCompile(`\bD\b`)

func replaceD(text, domain string) string { return letterD.ReplaceAllString(text, domain) }

// replies are exact answers with attributes, of a Postfix that narrows.
var replies = []struct {
	name   string
	domain string
	zone   string
	body   string
	want   string
}{
	{"RPT013_rfc_example", "example.com",
		"example.com MX 10 mail.example.com\nmail.example.com A 192.0.2.1",
		"version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmx: backupmx.example.com\nmax_age: 604800\n",
		"OK secure match=.example.net:backupmx.example.com:mail.example.com servername=hostname policy_type=sts policy_domain=example.com mx_host_pattern=mail.example.com mx_host_pattern=*.example.net mx_host_pattern=backupmx.example.com { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mail.example.com } { policy_string = mx: *.example.net } { policy_string = mx: backupmx.example.com } { policy_string = max_age: 604800 }"},
	{"PFX009_injection", "inject.test",
		"inject.test MX 10 mx.inject.test\nmx.inject.test A 192.0.2.1",
		"version: STSv1\nfoo: } { policy_failure=validation-failure\nmode: enforce\nmx: mx.inject.test\nmax_age: 604800\n",
		"OK secure match=mx.inject.test servername=hostname policy_type=sts policy_domain=inject.test mx_host_pattern=mx.inject.test { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mx.inject.test } { policy_string = max_age: 604800 }"},
	{"PFX016_duplicates", "dup.test",
		"dup.test MX 10 mx.dup.test\nmx.dup.test A 192.0.2.1",
		"version: STSv1\nmode: enforce\nmx: mx.dup.test\nmx: MX.dup.test\nmax_age: 604800\n", ""},
	{"PFX011_idn", "xn--mnchen-3ya.test",
		"xn--mnchen-3ya.test MX 10 mx.xn--mnchen-3ya.test\nmx.xn--mnchen-3ya.test A 192.0.2.1",
		enforce("*.xn--mnchen-3ya.test"),
		"OK secure match=.xn--mnchen-3ya.test servername=hostname policy_type=sts policy_domain=xn--mnchen-3ya.test mx_host_pattern=*.xn--mnchen-3ya.test" + policyStrings(enforce("*.xn--mnchen-3ya.test"))},
}

func TestPFX_Replies(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": `postfix_version = "3.11"`})
	for _, c := range replies {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := d.in(t)
			truth.publish(t, c.zone)
			publishSTS(t, c.domain, "1", c.body)
			got := d.ask("postseal", c.domain)
			if c.want != "" && got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if again := d.ask("postseal", c.domain); again != got {
				t.Errorf("PFX-16: then %s", again)
			}
			if strings.Count(got, "match=mx.dup.test:mx.dup.test") > 0 {
				t.Errorf("PFX-16: not deduplicated: %s", got)
			}
		})
	}
	t.Run("STS061_2000_patterns", func(t *testing.T) {
		t.Parallel()
		d := d.in(t)
		publishPlain(t, "wide.test")
		var body strings.Builder
		body.WriteString("version: STSv1\nmode: enforce\nmax_age: 604800\nmx: mx.wide.test\n")
		for i := range 2000 {
			fmt.Fprintf(&body, "mx: host-%04d.wide.test\n", i)
		}
		publishSTS(t, "wide.test", "1", body.String())
		for _, name := range mapNames {
			got := d.ask(name, "wide.test")
			if len(got) > 100000 || !strings.HasPrefix(got, "OK secure match=") || !strings.Contains(got, "mx.wide.test") {
				t.Errorf("%s: %d bytes: %.200s", name, len(got), got)
			}
		}
	})
	t.Run("STS061_300_long_patterns", func(t *testing.T) {
		t.Parallel()
		d := d.in(t)
		publishPlain(t, "long.test")
		var body strings.Builder
		body.WriteString("version: STSv1\nmode: enforce\nmax_age: 604800\nmx: mx.long.test\n")
		for i := range 255 {
			fmt.Fprintf(&body, "mx: h%03d.%s.%s.%s.long.test\n", i, strings.Repeat("a", 63), strings.Repeat("b", 63), strings.Repeat("c", 63))
		}
		publishSTS(t, "long.test", "1", body.String())
		for _, name := range mapNames {
			got := d.ask(name, "long.test")
			if len(got) > 100000 || !strings.HasPrefix(got, "OK secure match=") || !strings.Contains(got, "mx.long.test") {
				t.Errorf("%s: %d bytes: %.200s", name, len(got), got)
			}
		}
	})
}
