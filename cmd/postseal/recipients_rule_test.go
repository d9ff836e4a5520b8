package main

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/policy"
	"github.com/postseal/postseal/policy/delegation"
)

// counted is a sample of postseal_delegation_answers_total.
func counted(t testing.TB, r *prometheus.Registry, action, reason string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			l := m.GetLabel() // in the order of their names
			if f.GetName() == "postseal_delegation_answers_total" && l[0].GetValue() == action && l[1].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no counter for %s, %s", action, reason)
	return 0
}

var (
	ruleOfTest      = &policy.Rule{Source: "postseal.toml:12", Reason: "secret"}
	monitoredOfTest = &policy.Rule{Source: "postseal.toml:12", Reason: "secret", Monitor: true}
)

const refusedByRule = "550 5.7.10 " + noTLSText + "; send it another way, or ask your postmaster"

// TestPOL03_Order: of several reasons the first one counts; and what a rule says is not
// held up by a DNS that does not answer.
func TestPOL03_Order(t *testing.T) {
	const refused, deferred, passed = policy.RecipientRefuse, policy.RecipientDefer, policy.RecipientPass
	for _, tt := range []struct {
		name     string
		does     policy.RecipientAction
		rule     *policy.Rule
		from, to string
		want     string // begins so
		action   string
		reason   string
	}{
		{"a rule refuses", refused, ruleOfTest, "", "u@partner.test", refusedByRule, "reject", "rule"},
		{"a rule defers", deferred, ruleOfTest, "", "u@partner.test", "DEFER_IF_PERMIT 4.7.10 " + noTLSText + "; try again later", "defer", "rule"},
		{"a rule would refuse", refused, monitoredOfTest, "", "u@partner.test", "DUNNO", "would-reject", "rule"},
		{"a rule would defer", deferred, monitoredOfTest, "", "u@partner.test", "DUNNO", "would-defer", "rule"},
		{"a reserved sender and a rule", refused, ruleOfTest, "news@ours.test", "u@partner.test", "550 5.7.1 ", "reject", "sender-not-allowed"},
		{"a rule refuses, a sender without mail", refused, ruleOfTest, "a@null.test", "u@partner.test", "550 5.7.10 ", "reject", "rule"},
		{"a rule would refuse, a sender without mail", refused, monitoredOfTest, "a@null.test", "u@partner.test", "550 5.7.27 ", "reject", "sender-null-mx"},
		{"a rule refuses, the DNS is silent", refused, ruleOfTest, "a@silent.test", "u@partner.test", "550 5.7.10 ", "reject", "rule"},
		{"a rule defers, the DNS is silent", deferred, ruleOfTest, "a@silent.test", "u@partner.test", "DEFER_IF_PERMIT 4.7.10 ", "defer", "rule"},
		{"no domain, no verdict", refused, ruleOfTest, "", "u@[192.0.2.1]", "DUNNO", "dunno", "none"},
		{"doubt", passed, ruleOfTest, "", "u@partner.test", "DUNNO", "dunno", "doubt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newDesk(t, deskConfig)
				k.ruled = policy.RecipientVerdict{Action: tt.does, Rule: tt.rule, Seen: sawNoTLS}
				switch {
				case tt.does == passed:
					k.ruled.Doubt = "nothing proves our own path"
				case tt.rule.Monitor:
					k.ruled.Action, k.ruled.Withheld, k.ruled.Doubt = passed, tt.does, "mode monitor"
				}
				began := time.Now()
				got := k.ask(t.Context(), t, policyRequest(delegation.Rcpt, "alice", "192.0.2.7", tt.from, tt.to))
				if !strings.HasPrefix(got, tt.want) {
					t.Errorf("got  %s\nwant %s", got, tt.want)
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("took %v", took)
				}
				if n := counted(t, k.registry, tt.action, tt.reason); n != 1 {
					t.Errorf("%s, %s counted %v times", tt.action, tt.reason, n)
				}
				var want []string
				if tt.reason == "rule" && !strings.HasPrefix(tt.action, "would-") {
					want = []string{fmt.Sprint("partner.test ", tt.does)}
				}
				if !slices.Equal(k.counted, want) {
					t.Errorf("told %q", k.counted)
				}
				if log := k.log.String(); (tt.reason == "rule" || tt.reason == "doubt") && !strings.Contains(log, "rule=postseal.toml:12") || strings.Contains(log, "secret") {
					t.Errorf("log: %s", log)
				}
			})
		})
	}
}

// TestPOL03_RuleThenNullMXKnown: a deferral gives way to a refusal for good that is known.
func TestPOL03_RuleThenNullMXKnown(t *testing.T) {
	k := newDesk(t, deskConfig)
	asked := policyRequest(delegation.Rcpt, "alice", "", "a@null.test", "u@partner.test")
	if got := k.ask(t.Context(), t, asked); got != nullSender {
		t.Fatal(got)
	}
	k.ruled = policy.RecipientVerdict{Action: policy.RecipientDefer, Rule: ruleOfTest, Seen: sawNoTLS}
	if got := k.ask(t.Context(), t, asked); got != nullSender {
		t.Error(got)
	}
}

// TestPOL03_TextFollowsTheVerdict: a text is made once for a verdict, and anew for
// another.
func TestPOL03_TextFollowsTheVerdict(t *testing.T) {
	k := newDesk(t, deskConfig)
	for _, saw := range []string{"first", "first", "second"} {
		k.ruled = policy.RecipientVerdict{Action: policy.RecipientRefuse, Rule: ruleOfTest, Seen: saw}
		if got := k.ask(t.Context(), t, policyRequest(delegation.Rcpt, "alice", "", "", "u@partner.test")); !strings.Contains(got, saw) {
			t.Errorf("%s: %s", saw, got)
		}
	}
	k.ruled = policy.RecipientVerdict{}
	if got := k.ask(t.Context(), t, policyRequest(delegation.Rcpt, "alice", "", "", "u@partner.test")); got != "DUNNO" {
		t.Error(got)
	}
}

// TestPOL01_EnvelopeFollowsTheConfiguration: what is remembered of a sender is void
// once another configuration is in force.
func TestPOL01_EnvelopeFollowsTheConfiguration(t *testing.T) {
	k := newDesk(t, deskConfig)
	asked := policyRequest(delegation.Rcpt, "alice", "", "x@reserved.test", "u@partner.test")
	for _, text := range []string{deskConfig, "", deskConfig} {
		c := mustLoad(t, text)
		k.config = func() *Config { return c }
		for range 2 {
			if got := k.ask(t.Context(), t, asked); (got == "DUNNO") != (text == "") {
				t.Errorf("%q: %s", text, got)
			}
		}
	}
}

// TestServePolicy_AllocatesNothing where the answer is known, be it DUNNO or a refusal.
func TestServePolicy_AllocatesNothing(t *testing.T) {
	k := newDesk(t, deskConfig)
	k.recipients.log = slog.New(slog.DiscardHandler)
	verdict := policy.RecipientVerdict{}
	k.verdict = func(_, _ []byte, _ time.Time) policy.RecipientVerdict { return verdict }
	k.count = func(string, policy.RecipientAction) {}
	by := policy.RecipientVerdict{Action: policy.RecipientRefuse, Rule: ruleOfTest, Seen: sawNoTLS}
	for _, tt := range []struct {
		name, login, address, from, to string
		verdict                        policy.RecipientVerdict
		want                           string
	}{
		{"nothing against it", "somebody@sending.customer.example.test", "192.0.2.7", "Bounces+4711=u=partner.test@free.test", "u@Partner.TEST", policy.RecipientVerdict{}, "DUNNO"},
		{"IPv6", "somebody@sending.customer.example.test", "2001:db8:1111:2222:3333:4444:5555:6666", "a@free.test", "u@partner.test", policy.RecipientVerdict{}, "DUNNO"},
		{"refused by a rule", "alice", "192.0.2.7", "a@free.test", "u@partner.test", by, "550 5.7.10"},
		{"null MX", "alice", "192.0.2.7", "a@free.test", "u@null.test", policy.RecipientVerdict{}, "556 5.1.10"},
		{"reserved", "alice", "192.0.2.7", "news@ours.test", "u@partner.test", policy.RecipientVerdict{}, "550 5.7.1 "},
		{"a stranger", "", "203.0.113.1", "news@ours.test", "u@partner.test", policy.RecipientVerdict{}, "DUNNO"},
	} {
		verdict = tt.verdict
		r, err := delegation.ParseRequest([]byte(policyRequest(delegation.Rcpt, tt.login, tt.address, tt.from, tt.to)))
		if err != nil {
			t.Fatal(err)
		}
		if got := k.ServePolicy(t.Context(), r).String(); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s", tt.name, got)
		}
		if n := testing.AllocsPerRun(500, func() { k.ServePolicy(t.Context(), r) }); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}
