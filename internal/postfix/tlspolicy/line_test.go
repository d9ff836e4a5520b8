package tlspolicy_test

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/postfix/tlspolicy/tlspolicytest"
)

// The answer of RPT-013: RFC 8461 §3.2's policy.
func TestRPT013_CanonicalLine(t *testing.T) {
	line := tlspolicy.Line{Level: tlspolicy.Secure, Attrs: []tlspolicy.Attr{
		{Name: "match", Value: ".example.net:backupmx.example.com:mail.example.com"},
		{Name: "servername", Value: "hostname"},
		{Name: "policy_type", Value: "sts"},
		{Name: "policy_domain", Value: "example.com"},
		{Name: "mx_host_pattern", Value: "mail.example.com"},
		{Name: "mx_host_pattern", Value: "*.example.net"},
		{Name: "mx_host_pattern", Value: "backupmx.example.com"},
		{Name: "policy_string", Value: "version: STSv1"},
		{Name: "policy_string", Value: "mode: enforce"},
	}}
	const want = "secure match=.example.net:backupmx.example.com:mail.example.com servername=hostname policy_type=sts " +
		"policy_domain=example.com mx_host_pattern=mail.example.com mx_host_pattern=*.example.net mx_host_pattern=backupmx.example.com " +
		"{ policy_string = version: STSv1 } { policy_string = mode: enforce }"
	if got := line.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, v := range []string{"3.10.0", "3.10.13", "3.11.7"} {
		if err := line.Validate(version(t, v)); err != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
	for _, v := range []string{"unknown", "3.7.11", "3.9.9"} {
		if err := line.Validate(version(t, v)); err == nil {
			t.Errorf("PFX-06: %s would refuse the attributes and defer", v)
		}
	}
}

// PFX-09, PFX-06: whatever the values hold, a line that Validate accepts reads
// back in Postfix as the same level and the same attributes.
func TestPFX09_PostfixReadsBackWhatWasMeant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawVersion(t)
		line := drawLine(t)
		if err := line.Validate(v); err != nil {
			return
		}
		text := line.String()
		level, attrs, err := tlspolicytest.Postfix(text, v)
		if err != nil {
			t.Fatalf("%s refuses %q: %v", v, text, err)
		}
		if level != line.Level.String() || len(attrs)+len(line.Attrs) > 0 && !reflect.DeepEqual(attrs, line.Attrs) {
			t.Fatalf("%s reads %q as %s %q", v, text, level, attrs)
		}
		again, err := tlspolicy.Parse(text, v)
		if err != nil || again.String() != text {
			t.Fatalf("Parse reads %q as %q, %v", text, again, err)
		}
	})
}

// drawLine draws lines that are often right and often slightly wrong.
func drawLine(t *rapid.T) tlspolicy.Line {
	line := tlspolicy.Line{Level: tlspolicy.Level(rapid.IntRange(0, 8).Draw(t, "level"))}
	if rapid.Bool().Draw(t, "sts") {
		line.Attrs = append(line.Attrs, tlspolicy.Attr{Name: "policy_type", Value: "sts"})
	}
	line.Attrs = append(line.Attrs, rapid.SliceOfN(rapid.SampledFrom(sound), 0, 3).Draw(t, "sound")...)
	for range rapid.IntRange(0, 2).Draw(t, "n") {
		line.Attrs = append(line.Attrs, tlspolicy.Attr{
			Name:  rapid.SampledFrom(names).Draw(t, "name"),
			Value: rapid.OneOf(rapid.SampledFrom(values), rapid.StringMatching(`[ -~]{0,6}`), rapid.String()).Draw(t, "value"),
		})
	}
	return line
}

// sound are attributes with nothing wrong in themselves.
var sound = []tlspolicy.Attr{
	{Name: "match", Value: ".example.net:mail.example.com"}, {Name: "match", Value: "hostname"}, {Name: "match", Value: "ab:cd|EF"},
	{Name: "servername", Value: "hostname"}, {Name: "protocols", Value: ">=TLSv1.2"}, {Name: "protocols", Value: "!SSLv2, !SSLv3"},
	{Name: "ciphers", Value: "high"}, {Name: "exclude", Value: ""}, {Name: "exclude", Value: "aNULL, MD5"}, {Name: "tafile", Value: "/ta file.pem"},
	{Name: "connection_reuse", Value: "no"}, {Name: "enable_rpk", Value: "Yes"}, {Name: "policy_ttl", Value: "86400"},
	{Name: "policy_domain", Value: "example.com"}, {Name: "policy_string", Value: "version: STSv1"}, {Name: "policy_string", Value: ""},
	{Name: "policy_string", Value: "a=b,c=d policy_type=sts"}, {Name: "mx_host_pattern", Value: "*.example.net"}, {Name: "policy_failure", Value: "sts-webpki-invalid"},
}

var (
	names = []string{"ciphers", "protocols", "servername", "match", "exclude", "tafile", "connection_reuse", "enable_rpk",
		"policy_ttl", "policy_type", "policy_domain", "policy_string", "mx_host_pattern", "policy_failure", "Match", "policystring", ""}
	values = []string{"", "hostname", "nexthop", "mail.example.com", ".example.com", "*.example.com", "a.example:.b.example", "high", "LOW",
		"invalid", ">=TLSv1.2", "<=TLSv1.3", ">=0304", ">=", ">=-0", "!SSLv2:!SSLv3", "TLSv13", "SSLv2", "yes", "No", "sts", "tlsa",
		"no-policy-found", "validation-failure", "version: STSv1", "a, b", "aNULL,MD5", "!aNULL", "12", "99999999999", "/etc/ssl/ta.pem",
		"ab:cd:EF", "abcd|ef", "xyz|ab", "{x}", "x}", "{", " x", "x ", "ſts", "mx\x00", "a\tb", "10.0.0.1", "example.com."}
)

func TestAppendToKeepsWhatIsThere(t *testing.T) {
	line := tlspolicy.Line{Level: tlspolicy.May, Attrs: []tlspolicy.Attr{{Name: "protocols", Value: ">=TLSv1.2"}}}
	if got := string(line.AppendTo([]byte("OK "))); got != "OK may protocols=>=TLSv1.2" {
		t.Error(got)
	}
	if n := testing.AllocsPerRun(100, func() { line.AppendTo(make([]byte, 0, 64)) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// The order is that of CMB-15: dane without TLSA records is may.
func TestCMB15_LevelOrder(t *testing.T) {
	order := []string{"none", "may", "dane", "encrypt", "fingerprint", "dane-only", "verify", "secure"}
	for i, name := range order {
		l, err := tlspolicy.ParseLevel(name)
		if err != nil || int(l) != i || l.String() != name {
			t.Errorf("%s: %v %d, %v", name, l, l, err)
		}
	}
	if got := tlspolicy.Level(99).String(); got != "level(99)" {
		t.Error(got)
	}
}
