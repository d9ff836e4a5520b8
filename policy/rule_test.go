package policy

import (
	"errors"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones below, wherever the tests run

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// version reads a Postfix version; "" is an unknown one.
func version(t testing.TB, text string) tlspolicy.Version {
	t.Helper()
	if text == "" {
		return tlspolicy.Version{}
	}
	v, err := tlspolicy.ParseVersion(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCMB00_WhatLowersNeedsAReason(t *testing.T) {
	for _, tt := range []struct {
		level  string
		lowers bool
	}{
		{"none", true}, {"may", true}, {"MAY", true}, {"may protocols=>=TLSv1.2", true}, {"dane", true}, {"exempt", true},
		{"encrypt", false}, {"dane-only", false}, {"verify", false}, {"secure", false},
		{"fingerprint match=3D:95:34:51:24:66:33:B9:D2:40:99:C0:C1:17:0B:D1", false},
	} {
		t.Run(tt.level, func(t *testing.T) {
			text := RuleText{Match: []string{"example.com"}, Level: tt.level, Source: "postseal.toml:3"}
			_, err := ParseRule(text, tlspolicy.Version{})
			if refused := err != nil; refused != tt.lowers {
				t.Errorf("without a reason: %v", err)
			}
			text.Reason = " \t"
			if _, err = ParseRule(text, tlspolicy.Version{}); (err != nil) != tt.lowers {
				t.Errorf("with a blank reason: %v", err)
			}
			text.Reason = "contract 4711"
			r, err := ParseRule(text, tlspolicy.Version{})
			if err != nil {
				t.Fatalf("with a reason: %v", err)
			}
			if r.Lowers() != tt.lowers {
				t.Errorf("Lowers() = %t", r.Lowers())
			}
		})
	}
}

func TestRule_Refused(t *testing.T) {
	const good, reason = "encrypt", "ticket 1"
	domain := []string{"example.com"}
	for _, tt := range []struct {
		name    string
		rule    RuleText
		version string
		field   string
		say     []string
	}{
		{"no match", RuleText{Level: good}, "", "match", []string{"missing", "example.com"}},
		{"no level", RuleText{Match: domain}, "", "level", []string{"missing", "encrypt"}},
		{"unknown level", RuleText{Match: domain, Level: "encrpyt"}, "", "level", []string{"encrpyt", "did you mean encrypt?"}},
		{"half-dane", RuleText{Match: domain, Level: "half-dane", Reason: reason}, "", "level", []string{"half-dane", "use dane"}},
		{"match at encrypt", RuleText{Match: domain, Level: "encrypt match=mx.example.com"}, "", "level", []string{"match=", "encrypt", "use secure"}},
		{"match at may", RuleText{Match: domain, Level: "may match=mx.example.com", Reason: reason}, "", "level", []string{"match="}},
		{"match at dane-only", RuleText{Match: domain, Level: "dane-only match=mx.example.com"}, "", "level", []string{"match="}},
		{"tafile at encrypt", RuleText{Match: domain, Level: "encrypt tafile=/etc/ta.pem"}, "", "level", []string{"tafile="}},
		{"literal wildcard", RuleText{Match: domain, Level: "secure match=*.example.com"}, "", "level", []string{`".example.com"`}},
		{"empty match", RuleText{Match: domain, Level: "secure match="}, "", "level", []string{"match=", "no value"}},
		{"attributes at none", RuleText{Match: domain, Level: "none ciphers=high", Reason: reason}, "", "level", []string{"ciphers=", "none"}},
		{"fingerprint of nothing", RuleText{Match: domain, Level: "fingerprint"}, "", "level", []string{"match="}},
		{"unknown attribute", RuleText{Match: domain, Level: "secure cipher=high"}, "", "level", []string{"cipher", "ciphers="}},
		{"given twice", RuleText{Match: domain, Level: "encrypt ciphers=high ciphers=high"}, "", "level", []string{"twice"}},
		{"too new for 3.7", RuleText{Match: domain, Level: "encrypt enable_rpk=yes"}, "3.7.11", "level", []string{"enable_rpk=", "3.9"}},
		{"too new for the unknown", RuleText{Match: domain, Level: "encrypt enable_rpk=yes"}, "", "level", []string{"enable_rpk=", "3.9", "postfix_version"}},
		{"braces before 3.10", RuleText{Match: domain, Level: "encrypt { ciphers = high }"}, "3.9.1", "level", []string{"3.10"}},
		{"exempt with attributes", RuleText{Match: domain, Level: "exempt ciphers=high", Reason: reason}, "", "level", []string{`level = "exempt"`}},
		{"exempt from what, beside encrypt", RuleText{Match: domain, Level: good, Exempt: []string{"all"}}, "", "exempt", []string{`"all"`}},
		{"exempt from nothing", RuleText{Match: domain, Level: "exempt", Exempt: []string{}, Reason: reason}, "", "exempt", []string{`"dane", "sts"`}},
		{"exempt from what", RuleText{Match: domain, Level: "exempt", Exempt: []string{"mta-sts"}, Reason: reason}, "", "exempt", []string{"mta-sts", `"sts"`}},
		{"exempt without reason", RuleText{Match: domain, Level: "exempt"}, "", "reason", []string{"exempt"}},
		{"mode off", RuleText{Match: domain, Level: good, Mode: "off"}, "", "mode", []string{"off", `"monitor"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.rule.Source = "postseal.toml:12"
			_, err := ParseRule(tt.rule, version(t, tt.version))
			var e *RuleError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a *RuleError", err)
			}
			if e.Field != tt.field {
				t.Errorf("field %q, want %q", e.Field, tt.field)
			}
			for _, say := range append(tt.say, "postseal.toml:12: rule: ") {
				if !strings.Contains(err.Error(), say) {
					t.Errorf("%q does not say %q", err, say)
				}
			}
		})
	}
}

func TestRule_EveryFindingIsReported(t *testing.T) {
	_, err := ParseRule(RuleText{Match: []string{"*.a.example", "b.example", "u@c.example"}, Level: "strong", Mode: "no"}, tlspolicy.Version{})
	for _, field := range []string{"match[0]", "match[2]", "level", "mode"} {
		if !strings.Contains(err.Error(), field+": ") {
			t.Errorf("no finding about %s in:\n%v", field, err)
		}
	}
}

func TestRule_AllLevelsWithTheirAttributes(t *testing.T) {
	for _, tt := range []struct{ level, version, want string }{
		{"none", "", ""},
		{"may ciphers=high, protocols=>=TLSv1.2", "", "may ciphers=high protocols=>=TLSv1.2"},
		{"Encrypt protocols=>=TLSv1.2 exclude=aNULL:MD5 connection_reuse=no", "", "encrypt protocols=>=TLSv1.2 exclude=aNULL:MD5 connection_reuse=no"},
		{"dane", "", ""}, {"dane-only", "", ""},
		{"fingerprint match=3D:95:34|51:24:66 match=AA:BB", "", ""},
		{"verify match=hostname tafile=/etc/ta.pem", "", ""},
		{"secure match=mx.example.com:.example.net servername=hostname", "", ""},
		{"encrypt enable_rpk=yes", "3.9", ""},
		{"secure match=mx.example.com policy_type=sts { policy_string = version: STSv1 }", "3.10.5", ""},
	} {
		r, err := ParseRule(RuleText{Match: []string{"example.com"}, Level: tt.level, Reason: "because"}, version(t, tt.version))
		if err != nil {
			t.Errorf("%q: %v", tt.level, err)
			continue
		}
		want := tt.want
		if want == "" {
			want = tt.level
		}
		if got := r.Line.String(); got != want {
			t.Errorf("%q: got %q, want %q", tt.level, got, want)
		}
		if r.Level() != tt.level {
			t.Errorf("Level() = %q, want it as written: %q", r.Level(), tt.level)
		}
	}
}

func TestRule_Exempt(t *testing.T) {
	for _, tt := range []struct {
		from []string
		want Exemption
		text string
	}{
		{nil, ExemptDANE | ExemptSTS, "dane, sts"},
		{[]string{"dane", "sts"}, ExemptDANE | ExemptSTS, "dane, sts"},
		{[]string{"sts"}, ExemptSTS, "sts"},
		{[]string{"dane", "dane"}, ExemptDANE, "dane"},
	} {
		r, err := ParseRule(RuleText{Match: []string{"example.com"}, Level: "exempt", Exempt: tt.from, Reason: "r"}, tlspolicy.Version{})
		if err != nil || r.Exempt != tt.want || r.Exempt.String() != tt.text || r.Level() != "exempt" {
			t.Errorf("%q: %v (%s), %v", tt.from, r.Exempt, r.Level(), err)
		}
	}
}

// The interface's example has both. Nothing is lowered by it, and it is said.
func TestRule_ExemptBesideAnotherLevel(t *testing.T) {
	r, err := ParseRule(RuleText{Match: []string{"example.com"}, Level: "encrypt", Exempt: []string{"dane", "sts"}, Source: "a.toml:1"}, tlspolicy.Version{})
	if err != nil || r.Exempt != 0 || r.Lowers() || r.Line.Level != tlspolicy.Encrypt {
		t.Fatalf("%+v, %v", r, err)
	}
	rs, err := NewRules([]Rule{r})
	if err != nil {
		t.Fatal(err)
	}
	if w := rs.Warnings(); len(w) != 1 || !strings.Contains(w[0].String(), "a.toml:1: exempt has no effect") {
		t.Errorf("warnings %v", w)
	}
}

func mustRule(t testing.TB, postfix, match, level string) Rule {
	t.Helper()
	r, err := ParseRule(RuleText{Match: strings.Fields(match), Level: level, Reason: "because", Source: "a.toml:1"}, version(t, postfix))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEndOfDay(t *testing.T) {
	for _, tt := range []struct {
		zone string
		y    int
		m    time.Month
		d    int
		want string
	}{
		{"UTC", 2027, time.March, 31, "2027-04-01T00:00:00Z"},
		{"Europe/Berlin", 2027, time.March, 27, "2027-03-28T00:00:00+01:00"},
		{"Europe/Berlin", 2027, time.March, 28, "2027-03-29T00:00:00+02:00"},
		{"Europe/Berlin", 2027, time.December, 31, "2028-01-01T00:00:00+01:00"},
		// There was no midnight on the 4th: 23:59:59 was followed by 01:00:00.
		{"America/Sao_Paulo", 2018, time.November, 3, "2018-11-04T01:00:00-02:00"},
		{"America/Sao_Paulo", 2018, time.November, 4, "2018-11-05T00:00:00-02:00"},
	} {
		loc, err := time.LoadLocation(tt.zone)
		if err != nil {
			t.Fatal(err)
		}
		if got := EndOfDay(tt.y, tt.m, tt.d, loc).Format(time.RFC3339); got != tt.want {
			t.Errorf("%s %d-%d-%d: got %s, want %s", tt.zone, tt.y, tt.m, tt.d, got, tt.want)
		}
	}
}
