package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

const ruleMapText = `# policy of the old days
.example.com      may
Example.COM       encrypt protocols=>=TLSv1.2
    ciphers=high

a.example.com     secure match=mx.example.net:.example.org
# a comment
	servername=hostname
.a.example.com	none
[relay.example]:submission dane-only
example.com:26    verify
b.example         may
b.example         secure
`

func TestParseRuleMap(t *testing.T) {
	rules, err := ParseRuleMap("/etc/postfix/tls_policy", strings.NewReader(ruleMapText), tlspolicy.Version{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rules {
		if r.Reason != "rule_map /etc/postfix/tls_policy" {
			t.Errorf("%s: reason %q", r.Match, r.Reason)
		}
		got = append(got, fmt.Sprintf("%s %s %s", strings.TrimPrefix(r.Source, "/etc/postfix/tls_policy:"), strings.Join(r.Match, " "), r.Line))
	}
	want := []string{
		"10 [relay.example]:587 dane-only",
		"11 example.com:26 verify",
		"3 example.com encrypt protocols=>=TLSv1.2 ciphers=high",
		"6 a.example.com secure match=mx.example.net:.example.org servername=hostname",
		"12 b.example may",
		"13 b.example secure",
		"9 .a.example.com none",
		"2 .example.com may",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Whatever the order of the file, the answer is the one that Postfix would find:
// the key as it is, then its parents from the nearest on.
func TestParseRuleMap_FindsWhatPostfixFinds(t *testing.T) {
	rules, err := ParseRuleMap("map", strings.NewReader(ruleMapText), tlspolicy.Version{})
	if err != nil {
		t.Fatal(err)
	}
	rs, err := NewRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"example.com": "3", "example.com:26": "11", "a.example.com": "6", "b.example.com": "2", "x.a.example.com": "9",
		"y.x.a.example.com": "9", "[relay.example]:587": "10", "[relay.example]": "", "b.example": "12", "c.example": "",
	} {
		if got := strings.TrimPrefix(number(rs.Find(subject(t, key), now).Rule), "map:"); got != want {
			t.Errorf("%s: line %q, want %q", key, got, want)
		}
	}
	if w := rs.Warnings(); len(w) != 1 || w[0].Source != "map:13" {
		t.Errorf("warnings %v, want one about the second b.example", w)
	}
}

func TestParseRuleMap_Refused(t *testing.T) {
	for _, tt := range []struct{ text, version, want string }{
		{"example.com", "", "map:1: \"example.com\": a key without a value; write KEY LEVEL"},
		{"# c\n\nexample.com: encrypt\n", "", "map:3: \"example.com:\": a key with a colon"},
		{"  example.com encrypt\n", "", "map:1: white space before the first key"},
		{"example.com encrpyt\n", "", "map:1: \"encrpyt\": \"encrpyt\" is no TLS security level; did you mean encrypt?"},
		{"a.example may\nb.example encrypt match=x.example\n", "", "map:2: \"encrypt match=x.example\": match= is not allowed at level encrypt"},
		{"a.example encrypt\n enable_rpk=yes\n", "3.7.11", "map:1: \"encrypt enable_rpk=yes\": enable_rpk= needs Postfix 3.9"},
		{"a.example exempt\n", "", "map:1: exempt is no level of Postfix"},
		{"mx:*.example encrypt\n", "", "map:1: \"mx:*.example\": Postfix does not know mx: patterns"},
		{"*.example encrypt\n", "", "map:1: \"*.example\": no wildcards here; write \".example\""},
		{"user@example.com encrypt\n", "", "map:1: \"user@example.com\": an e-mail address never matches"},
		{"192.0.2.1 encrypt\n", "", "write \"[192.0.2.1]\""},
		{strings.Repeat("a encrpyt\n", 25), "", "map: and 5 more"},
		{strings.Repeat("#", maxRuleMap+1), "", "map: more than 16777216 octets"},
	} {
		_, err := ParseRuleMap("map", strings.NewReader(tt.text), version(t, tt.version))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60q: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

// What is accepted compiles, and Postfix would accept every line of it.
func FuzzParseRuleMap(f *testing.F) {
	f.Add(ruleMapText)
	f.Add("a\tb\n\xff\x00\n x")
	f.Add("a may\r\n b=c\r\n[x]:26 none")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := ParseRuleMap("map", strings.NewReader(text), tlspolicy.Version{})
		if err != nil {
			return
		}
		if _, err := NewRules(rules); err != nil {
			t.Errorf("does not compile: %v", err)
		}
		for _, r := range rules {
			if _, err := tlspolicy.Parse(r.Level(), tlspolicy.Version{}); r.Exempt == 0 && err != nil {
				t.Errorf("would be rejected: %v", err)
			}
		}
	})
}
