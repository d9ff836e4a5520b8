package tlspolicytest_test

import (
	"strings"
	"testing"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/postfix/tlspolicy/tlspolicytest"
)

// What Postfix 3.7.11, 3.10.13 and 3.11.7 were seen to do with a policy; the
// transliteration must do the same.
func TestAsSeenOnPostfix(t *testing.T) {
	v := func(minor, patch int) tlspolicy.Version {
		return tlspolicy.Version{Major: 3, Minor: minor, Patch: patch, Known: true}
	}
	for _, c := range []struct {
		version tlspolicy.Version
		text    string
		want    string // part of the warning, empty: accepted
	}{
		{v(7, 11), "secure match=mx1.example:.example.net servername=hostname", ""},
		{v(11, 7), "secure match=mx1.example:.example.net servername=hostname", ""},
		{v(7, 11), "halfdane", `invalid security level "halfdane"`},
		{v(11, 7), "half-dane", `invalid security level "half-dane"`},
		{v(7, 11), "may match=a.example", `attribute "match" invalid at security level "may"`},
		{v(10, 13), "dane-only match=a.example", `attribute "match" invalid at security level "dane-only"`},
		{v(7, 11), "secure match=a.example policy_type=sts", `invalid attribute name: "policy_type"`},
		{v(10, 13), "secure match=a.example policy_type=sts", ""},
		{v(10, 13), "secure policy_type=tlsa", `attribute "policy_type" has an unexpected value: "tlsa"`},
		{v(11, 7), "secure policy_domain=x.example", "built-in policy has unexpected attribute"},
		{v(11, 7), "dane-only policy_type=sts policy_domain=x.example mx_host_pattern=mx.x.example", ""},
		{v(11, 7), "secure policy_type=sts { policy_string = version: STSv1 }", ""},
		{v(11, 7), "secure policy_type=sts { policy_string = version: STSv1", "missing '}'"},
		{v(7, 11), "none match=a.example nonsense", ""},
		{v(7, 11), "encrypt protocols=>=TLSv1.2", ""},
		{v(7, 11), "encrypt protocols=TLSv12", "Invalid TLS protocol list"},
		{v(7, 11), "", "invalid empty policy"},
	} {
		_, _, err := tlspolicytest.Postfix(c.text, c.version)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v %q: %v, want %q", c.version, c.text, err, c.want)
		}
	}
}
