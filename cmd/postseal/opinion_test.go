package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/delegation"
)

const (
	sawNoTLS  = "mx.partner.test[192.0.2.1]: TLS is required, but was not offered"
	noTLSText = "postseal: mail to partner.test must be encrypted by our rule, and its mail hosts do not offer that: " + sawNoTLS
)

// TestPOL03_ByRule: verdicts and the actions of access(5).
func TestPOL03_ByRule(t *testing.T) {
	rule := &policy.Rule{Reason: "data-processing contract 4711", Source: "postseal.toml:3"}
	told := &policy.Rule{Reason: "data-processing contract 4711", Text: "ring 030 4711 for another way"}
	for _, tt := range []struct {
		verdict policy.RecipientVerdict
		want    string
		reason  reason
	}{
		{policy.RecipientVerdict{}, "DUNNO", reasonNone},
		{policy.RecipientVerdict{Rule: rule}, "DUNNO", reasonNone},
		{policy.RecipientVerdict{Rule: rule, Seen: sawNoTLS, Doubt: "no other host was reached"}, "DUNNO", reasonDoubt},
		{policy.RecipientVerdict{Action: policy.RecipientDefer, Rule: rule, Seen: sawNoTLS}, "DEFER_IF_PERMIT 4.7.10 " + noTLSText + "; try again later", reasonRule},
		{policy.RecipientVerdict{Action: policy.RecipientDefer, Rule: told, Seen: sawNoTLS}, "DEFER_IF_PERMIT 4.7.10 " + noTLSText + "; ring 030 4711 for another way", reasonRule},
		{policy.RecipientVerdict{Action: policy.RecipientRefuse, Rule: rule, Seen: sawNoTLS}, "550 5.7.10 " + noTLSText + "; send it another way, or ask your postmaster", reasonRule},
		{policy.RecipientVerdict{Action: policy.RecipientRefuse, Rule: told, Seen: sawNoTLS}, "550 5.7.10 " + noTLSText + "; ring 030 4711 for another way", reasonRule},
		{policy.RecipientVerdict{Action: policy.RecipientRefuse, Rule: told}, "550 5.7.10 " + noTLSText[:len(noTLSText)-len(": "+sawNoTLS)] + "; ring 030 4711 for another way", reasonRule},
	} {
		o := byRule(tt.verdict, "partner.test")
		if got := o.action.String(); got != tt.want || o.reason != tt.reason || o.does != tt.verdict.Action {
			t.Errorf("%+v\ngot  %s, %s\nwant %s, %s", tt.verdict, got, o.reason, tt.want, tt.reason)
		}
	}
}

// TestPOL03_RuleTextIsBounded: the domain, what was seen and what to do all find room
// in a reply, as one line of ASCII.
func TestPOL03_RuleTextIsBounded(t *testing.T) {
	for _, domain := range []string{"partner.test", strings.Repeat("a.", 30) + "test", strings.Repeat("a.", 124) + "test"} {
		for _, text := range []string{"", "ring us", strings.Repeat("please ring us ", 20), "Größe\r\n250 OK"} {
			for _, saw := range []string{"", sawNoTLS, strings.Repeat(sawNoTLS+"; ", 10)} {
				rule := &policy.Rule{Text: text, Reason: "secret"}
				got := byRule(policy.RecipientVerdict{Action: policy.RecipientRefuse, Rule: rule, Seen: saw}, domain).action.String()
				if len(got) > len("550 5.7.10 ")+delegation.MaxText || strings.ContainsAny(got, "\r\n") || strings.Contains(got, "secret") {
					t.Errorf("%d bytes: %q", len(got), got)
				}
				if !strings.Contains(got, domain) || len(domain) < 70 && !strings.Contains(got, saw[:min(len(saw), minSeen-3)]) {
					t.Errorf("something is missing: %q", got)
				}
				if len(domain) < 70 && len(text) < 100 && !strings.Contains(got, "; ring us") && text == "ring us" {
					t.Errorf("what to do is missing: %q", got)
				}
			}
		}
	}
}

// TestReasons: every reason and decision has its own word.
func TestReasons(t *testing.T) {
	words := map[string]bool{}
	for r := range reasons {
		words[r.String()] = true
	}
	for d := range decisions {
		words[d.label()], words[d.message()] = true, true
	}
	if want := int(reasons) + 2*int(decisions); len(words) != want {
		t.Errorf("%d words, want %d: %v", len(words), want, words)
	}
	for _, does := range []policy.RecipientAction{policy.RecipientPass, policy.RecipientDefer, policy.RecipientRefuse} {
		if d := decisionOf(does, false); fmt.Sprint(d.label()) != [...]string{"dunno", "defer", "reject"}[does] {
			t.Errorf("%v is %s", does, d.label())
		}
	}
}
