package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

func senderRules(t testing.TB, texts ...RuleText) *Rules {
	t.Helper()
	var rules []Rule
	for i, text := range texts {
		text.Source = fmt.Sprintf("a.toml:%d", i+1)
		if len(text.Match) > 0 && text.Level == "" {
			text.Level = "encrypt"
		}
		r, err := ParseRule(text, tlspolicy.Version{})
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	rs, err := NewRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestSender_WhatAPatternMatches(t *testing.T) {
	for _, tt := range []struct{ pattern, matches, others string }{
		{"boss@example.com", `boss@example.com BOSS@Example.COM. "boss"@example.com "b\oss"@example.com boss+news@example.com boss+a+b@EXAMPLE.com`,
			"+boss@example.com boss@sub.example.com boss2@example.com boss boss-x@example.com @example.com b@oss@example.org <> example.com"},
		{"boss+news@example.com", "boss+news@example.com", "boss@example.com boss+other@example.com"},
		{"@Example.com", "a@example.com a+b@example.com A@EXAMPLE.COM @example.com", "a@sub.example.com a@xexample.com <> example.com example.com@"},
		{"@.example.com", "a@sub.example.com a+b@a.b.EXAMPLE.com", "a@example.com a@xexample.com a@com"},
		{"@bücher.example", "a@bücher.example a@BÜCHER.example jörg@xn--bcher-kva.example", "a@bucher.example"},
		{"Jörg@example.com", "jörg@example.com JÖRG@EXAMPLE.COM jörg+x@example.com", "jorg@example.com"},
		{`"two_words@home"@example.com`, `"two_words@home"@example.com two_words@home@example.com`, "two_words@example.com"},
	} {
		rs := senderRules(t, RuleText{Sender: []string{tt.pattern}})
		for _, address := range strings.Fields(tt.matches) {
			if rs.FindSender([]byte(address), time.Now()).Rule == nil {
				t.Errorf("%s does not match %s", tt.pattern, address)
			}
		}
		for _, address := range strings.Fields(tt.others) {
			if rs.FindSender([]byte(address), time.Now()).Rule != nil {
				t.Errorf("%s matches %s", tt.pattern, address)
			}
		}
	}
}

// What no pattern can be as long as still belongs to its domain.
func TestSender_LongAddresses(t *testing.T) {
	rs := senderRules(t, RuleText{Sender: []string{"@example.com", "@.example.com"}})
	for _, n := range []int{1, 254, 255, 256, 509, 510, 511, 5000} {
		for _, local := range []string{strings.Repeat("a", n), `"` + strings.Repeat(`\a`, n) + `"`, strings.Repeat("ä", n)} {
			for _, domain := range []string{"example.com", "example.com.", strings.Repeat("a.", 120) + "example.com"} {
				if rs.FindSender([]byte(local+"@"+domain), time.Now()).Rule == nil {
					t.Errorf("a local part of %d octets is none of %.20s", len(local), domain)
				}
			}
		}
	}
	if rs.FindSender([]byte("a@"+strings.Repeat("a.", 200)+"example.com"), time.Now()).Rule != nil {
		t.Error("what is no domain is one")
	}
}

func TestSender_FirstMatch(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	rs := senderRules(t,
		RuleText{Sender: []string{"@gone.example"}, Until: now},
		RuleText{Sender: []string{"@trial.example", "@both.example"}, Mode: "monitor"},
		RuleText{Match: []string{"gone.example"}},
		RuleText{Sender: []string{"boss@both.example", "@gone.example"}},
		RuleText{Sender: []string{"@both.example"}},
	)
	for _, tt := range []struct{ address, rule, monitored string }{
		{"a@gone.example", "a.toml:4", ""},
		{"a@trial.example", "", "a.toml:2"},
		{"boss@both.example", "a.toml:4", "a.toml:2"},
		{"b@both.example", "a.toml:5", "a.toml:2"},
		{"a@other.example", "", ""},
	} {
		f := rs.FindSender([]byte(tt.address), now)
		if got := [2]string{source(f.Rule), source(f.Monitored)}; got != [2]string{tt.rule, tt.monitored} {
			t.Errorf("%s: %q", tt.address, got)
		}
	}
	if f := (*Rules)(nil).FindSender([]byte("a@gone.example"), now); f != (Finding{}) {
		t.Error("no rules find something")
	}
	if k, _ := ParseKey("gone.example"); source(rs.Find(Subject{Key: k}, now).Rule) != "a.toml:3" {
		t.Error("a rule for senders counts for a destination")
	}
}

func TestSender_Enforced(t *testing.T) {
	now := time.Now()
	rs := senderRules(t, RuleText{Match: []string{"a.example"}}, RuleText{Sender: []string{"@a.example"}, Mode: "monitor"}, RuleText{Sender: []string{"@b.example"}, Until: now})
	if rs.EnforcesSenders(now) || (*Rules)(nil).EnforcesSenders(now) {
		t.Error("monitored and expired rules count")
	}
	if !rs.EnforcesSenders(now.Add(-time.Second)) {
		t.Error("a rule that holds does not count")
	}
}

func source(r *Rule) string {
	if r == nil {
		return ""
	}
	return r.Source
}

func TestSender_Refused(t *testing.T) {
	for _, tt := range []struct {
		rule  RuleText
		field string
		say   string
	}{
		{RuleText{Sender: []string{"a@b.example"}, Match: []string{"c.example"}, Level: "encrypt"}, "sender", "two rules"},
		{RuleText{Sender: []string{"a@b.example"}, Level: "secure"}, "level", `the transport "enforced"`},
		{RuleText{Sender: []string{"a@b.example"}, Level: "encrypt protocols=>=TLSv1.3"}, "level", "attributes"},
		{RuleText{Sender: []string{"a@b.example"}, Level: "may", Reason: "r"}, "level", `level = "encrypt"`},
		{RuleText{Sender: []string{"a@b.example"}, Level: "exempt", Reason: "r"}, "level", `level = "encrypt"`},
		{RuleText{Sender: []string{}}, "match", "missing"},
		{RuleText{Sender: []string{"payroll.example"}}, "sender[0]", `"@payroll.example"`},
		{RuleText{Sender: []string{"a@b.example", "*@b.example"}}, "sender[1]", `"@b.example"`},
		{RuleText{Sender: []string{"@*.b.example"}}, "sender[0]", `"@.b.example"`},
		{RuleText{Sender: []string{"*.b.example"}}, "sender[0]", `"@.b.example"`},
		{RuleText{Sender: []string{"a@.b.example"}}, "sender[0]", `"@.b.example"`},
		{RuleText{Sender: []string{"<>"}}, "sender[0]", "bounces"},
		{RuleText{Sender: []string{""}}, "sender[0]", "bounces"},
		{RuleText{Sender: []string{" a@b.example"}}, "sender[0]", `"a@b.example"`},
		{RuleText{Sender: []string{"Boss <a@b.example>"}}, "sender[0]", "character"},
		{RuleText{Sender: []string{"two words@b.example"}}, "sender[0]", "alone"},
		{RuleText{Sender: []string{"a@b@c.example"}}, "sender[0]", "alone"},
		{RuleText{Sender: []string{`"a@b.example`}}, "sender[0]", "alone"},
		{RuleText{Sender: []string{`""@b.example`}}, "sender[0]", "alone"},
		{RuleText{Sender: []string{"a@[192.0.2.1]"}}, "sender[0]", "character"},
		{RuleText{Sender: []string{"a@192.0.2.1"}}, "sender[0]", "in place of a domain"},
		{RuleText{Sender: []string{"a@"}}, "sender[0]", "empty name"},
		{RuleText{Sender: []string{"a\n@b.example"}}, "sender[0]", "printable"},
		{RuleText{Sender: []string{strings.Repeat("a", 256) + "@b.example"}}, "sender[0]", "at most 255"},
	} {
		_, err := ParseRule(tt.rule, tlspolicy.Version{})
		var e *RuleError
		if !errors.As(err, &e) || e.Field != tt.field || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%q %s: %v\nwant %s: … %s", tt.rule.Sender, tt.rule.Level, err, tt.field, tt.say)
		}
	}
}

func TestSender_NeverReached(t *testing.T) {
	rs := senderRules(t,
		RuleText{Sender: []string{"boss@a.example", "@b.example", "@.c.example", "@a.example"}},
		RuleText{Sender: []string{"BOSS@a.example", "boss+x@a.example", "x@b.example", "x@y.c.example", "@.y.c.example"}},
		RuleText{Sender: []string{"x@c.example", "@.b.example"}},
		RuleText{Sender: []string{"@d.example"}, Mode: "monitor"},
		RuleText{Sender: []string{"@d.example"}},
	)
	var got []string
	for _, w := range rs.Warnings() {
		got = append(got, w.String())
	}
	want := []string{"boss@a.example", "boss+x@a.example", "x@b.example", "x@y.c.example", "@.y.c.example"}
	for i, pattern := range want {
		want[i] = fmt.Sprintf("a.toml:2: sender %q is never reached: a.toml:1 matches it before", pattern)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q", got)
	}
}

func TestSender_Allocations(t *testing.T) {
	rs := senderRules(t, RuleText{Sender: []string{"Boss@example.com", "@.example.com", `"two words"@example.com`}})
	now := time.Now()
	for _, address := range []string{"Boss+X@Example.COM", "somebody@far.below.example.com", "other@example.net", `"two words"@example.com`, "<>"} {
		sender := []byte(address)
		if n := testing.AllocsPerRun(100, func() { rs.FindSender(sender, now) }); n != 0 {
			t.Errorf("%s: %v allocations", address, n)
		}
	}
}

// A pattern, written in its normal form, reads back as itself and matches itself.
func FuzzSender(f *testing.F) {
	for _, s := range []string{"boss@example.com", "@example.com", "@.example.com", `"a\"b@c"@Bücher.example`, "a+b@x.example", "İ@x.example", "ſ@x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, refused := parseSender(text)
		if refused != nil {
			return
		}
		if again, err := parseSender(a.String()); err != nil || again != a {
			t.Fatalf("%q: %q reads as %+v, %v, not %+v", text, a.String(), again, err, a)
		}
		rs, err := NewRules([]Rule{{Sender: []string{text}, Line: level(tlspolicy.Encrypt)}})
		if err != nil {
			t.Fatal(err)
		}
		address := text
		if a.below {
			address = "x@x" + "." + a.domain
		}
		if len(a.domain) < maxName-2 && rs.FindSender([]byte(address), time.Now()).Rule == nil {
			t.Fatalf("%q does not match %q", a, address)
		}
	})
}
