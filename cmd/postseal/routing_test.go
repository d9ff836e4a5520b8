package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postseal/postseal/internal/postfix/conf"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/policy"
)

// routed is a Postfix that asks us, with these parameters of main.cf.
func routed(pairs ...string) *conf.Snapshot {
	s := asking("3.11.7")
	s.Services = append(s.Services, &conf.Service{Name: "relay", Type: "unix", Command: "smtp", UsesOurMap: true},
		&conf.Service{Name: "slow", Type: "unix", Command: "smtp"})
	s.Main = map[string]string{"default_transport": "smtp", "relay_transport": "relay", "local_transport": "local", "virtual_transport": "virtual",
		"mydestination": "own.example", "parent_domain_matches_subdomains": "relay_domains"}
	for i := 0; i < len(pairs); i += 2 {
		s.Main[pairs[i]] = pairs[i+1]
	}
	return s
}

// encrypting makes rules of level encrypt, one for each text with its patterns.
func encrypting(t *testing.T, texts ...string) *policy.Rules {
	t.Helper()
	var rules []policy.Rule
	for i, text := range texts {
		rule, err := policy.ParseRule(policy.RuleText{Match: strings.Fields(text), Level: "encrypt", Source: fmt.Sprintf("postseal.toml:%d", i+1)}, tlspolicy.Version{})
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, rule)
	}
	rs, err := policy.NewRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// PFX-21: which rules for recipients do not bind, and why; those for the next hop itself do.
func TestPFX21_RulesThatDoNotBind(t *testing.T) {
	relayhost := []string{"relayhost", "[smart.example]"}
	relay := []string{"relay_domains", "r.example", "relay_transport", "relay:[vpn.example]:587"}
	for _, c := range []struct {
		name  string
		main  []string
		rules []string
		want  []string
	}{
		{"nothing set", nil, []string{"partner.example", ".gov.example mx:*.clinic.example"}, nil},
		{"relayhost", relayhost, []string{"partner.example", ".gov.example mx:*.clinic.example", "other.example"},
			[]string{"3 recipient rules do not bind: relayhost = [smart.example]; Postfix asks for [smart.example]: write a rule for that key"}},
		{"relayhost with a rule", relayhost, []string{"partner.example", "[smart.example]"},
			[]string{"1 recipient rule does not bind: relayhost = [smart.example]; Postfix asks for [smart.example], which the rule at postseal.toml:2 is for"}},
		{"one rule for both", relayhost, []string{"[smart.example] partner.example"}, nil},
		{"an mx: pattern has the relayhost", relayhost, []string{"mx:*.example"}, nil},
		{"relayhost has another port", []string{"relayhost", "[smart.example]:587"}, []string{"[smart.example]"}, nil},
		{"default_transport", []string{"default_transport", "slow"}, []string{"partner.example"},
			[]string{"1 recipient rule does not bind: default_transport = slow (slow of master.cf does not ask postseal: its smtp_tls_policy_maps is empty)"}},
		{"some domains", relay, []string{"partner.example", "a.r.example", ".r.example", "mx:*.other.example"},
			[]string{"2 recipient rules do not bind: relay_domains names it, relay_transport = relay:[vpn.example]:587; Postfix asks for [vpn.example]:587: write a rule for that key"}},
		{"two reasons", append(slices.Clone(relayhost), relay...), []string{"partner.example r.example"}, []string{
			"1 recipient rule does not bind: relayhost = [smart.example]; Postfix asks for [smart.example]: write a rule for that key",
			"1 recipient rule does not bind: relay_domains names it, relay_transport = relay:[vpn.example]:587; Postfix asks for [vpn.example]:587: write a rule for that key"}},
		{"another port of the domain", []string{"relay_domains", "r.example", "relay_transport", "relay:r.example:587"}, []string{"r.example"}, nil},
		{"our own domain", nil, []string{"own.example"},
			[]string{"1 recipient rule does not bind: mydestination names it, local_transport = local (local of master.cf is not smtp(8))"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRouting(&daemon{})
			r.take(routed(c.main...))
			f := r.examine(t.Context(), encrypting(t, c.rules...))
			var got []string
			for _, c := range f.causes {
				got = append(got, c.String())
			}
			if !slices.Equal(got, c.want) || f.unknown != nil || (f.inert > 0) != (len(c.want) > 0) {
				t.Errorf("%d rules: got\n%s\nwant\n%s\n%v", f.inert, strings.Join(got, "\n"), strings.Join(c.want, "\n"), f.unknown)
			}
		})
	}
}

// Rules that do not bind are told once in the log, and as long as it is so in /readyz,
// explain and metrics.
func TestPFX21_InertRulesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d := testDaemon(t, standing{DNS: &resolvertest.DNS{}})
		d.log, d.registry = slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry()
		d.cfg.Store(&Config{Rules: encrypting(t, "[192.0.2.1] partner.example", "192.example")})
		w := newPostfixWatch(d)
		d.postfix = w
		defer w.end()
		go w.routing.run(t.Context())
		expect := func(when, logged, detail string, inert float64) {
			t.Helper()
			synctest.Wait()
			if text := log.String(); logged == "" && text != "" || !strings.Contains(text, logged) {
				t.Errorf("%s: the log has %q, want %q", when, text, logged)
			}
			log.Reset()
			if got := strings.Join(w.routing.detail(), "\n"); got != detail {
				t.Errorf("%s: detail %q, want %q", when, got, detail)
			}
			if got := gathered(t, d.registry, "postseal_rules_inert"); got != inert {
				t.Errorf("%s: %v rules, want %v", when, got, inert)
			}
		}
		const all = "2 recipient rules do not bind: relayhost = [smart.example]; Postfix asks for [smart.example]: write a rule for that key"
		w.take(routed("relayhost", "[smart.example]"), nil)
		expect("relayhost", `level=WARN msg="`+all+`" rules="postseal.toml:1, postseal.toml:2"`, all, 2)
		w.take(routed("relayhost", "[smart.example]"), nil)
		expect("the same again", "", all, 2)
		time.Sleep(routesAgain)
		expect("an hour later", "", all, 2)
		if why, doubt := w.routing.Unbound(t.Context(), "partner.example"); why != "relayhost = [smart.example]" || doubt != "" {
			t.Errorf("unbound: %q, %q", why, doubt)
		}
		for _, key := range []string{"[smart.example]", "partner.example:587", "192.0.2.1", "not a key"} {
			if why, doubt := w.routing.Unbound(t.Context(), key); why+doubt != "" {
				t.Errorf("%s: %q, %q", key, why, doubt)
			}
		}
		x := policy.Explanation{Key: "partner.example", Rule: &policy.RuleExplanation{}}
		if got := w.routing.warnings(t.Context(), x); !slices.Equal(got, []string{
			"the rule does not bind: Postfix does not ask for partner.example, but for [smart.example] (relayhost = [smart.example]): postseal explain '[smart.example]'"}) {
			t.Errorf("explain: %q", got)
		}
		if got := w.routing.warnings(t.Context(), policy.Explanation{Key: "[smart.example]"}); got != nil {
			t.Errorf("explain what Postfix asks for: %q", got)
		}
		const one = "1 recipient rule does not bind: relayhost = [192.0.2.1]; Postfix asks for [192.0.2.1], which the rule at postseal.toml:1 is for"
		w.take(routed("relayhost", "[192.0.2.1]"), nil)
		expect("a relayhost that has a rule", one, one, 1)
		const senders = "recipient rules do not bind for senders that have a relay of their own: sender_dependent_relayhost_maps = hash:/s"
		w.take(routed("sender_dependent_relayhost_maps", "hash:/s"), nil)
		expect("by sender", senders, senders, 0)
		w.take(routed(), nil)
		expect("all by MX", `msg="this is over"`, "", 0)
	})
}

// Where no Postfix can be seen rules are taken to bind; that is told if recipients may be
// refused for it. Where one is seen and not its tables, or where it delivers to other
// hosts than the mail exchangers, nobody is refused.
func TestPFX21_RoutesUnknown(t *testing.T) {
	rules := encrypting(t, "partner.example")
	refusing := encrypting(t, "partner.example")
	refusing.All()[0].Unreachable = policy.UnreachableRefuse
	for name, c := range map[string]struct {
		s    *conf.Snapshot
		want string
	}{
		"no Postfix":   {nil, "there is no Postfix here"},
		"another asks": {&conf.Snapshot{Main: map[string]string{"relayhost": "[smart.example]"}}, "no service of the Postfix here asks postseal"},
	} {
		r := newRouting(&daemon{})
		r.take(c.s)
		if f := r.examine(t.Context(), rules); f.unknown != nil || f.inert != 0 {
			t.Errorf("%s, nobody is refused: %+v", name, f)
		}
		if f := r.examine(t.Context(), refusing); f.unknown == nil || f.unknown.Error() != c.want || f.inert != 0 {
			t.Errorf("%s: %+v", name, f)
		}
		if why, doubt := r.Unbound(t.Context(), "partner.example"); why+doubt != "" {
			t.Errorf("%s: %s, %s", name, why, doubt)
		}
	}
	r := newRouting(&daemon{})
	if _, doubt := r.Unbound(t.Context(), "partner.example"); !strings.Contains(doubt, "has not been read") {
		t.Errorf("not read yet: doubt %q", doubt)
	}
	r.take(routed("transport_maps", "hash:/nonexistent/transport"))
	if f := r.examine(t.Context(), rules); f.unknown == nil || !strings.Contains(f.unknown.Error(), "transport_maps") || f.inert != 0 {
		t.Errorf("unreadable: %+v", f)
	}
	if got := r.warnings(t.Context(), policy.Explanation{Key: "partner.example"}); len(got) != 1 || !strings.Contains(got[0], "transport_maps") {
		t.Errorf("unreadable: %q", got)
	}
	if why, doubt := r.Unbound(t.Context(), "partner.example"); why != "" || !strings.Contains(doubt, "transport_maps") {
		t.Errorf("unreadable: %q, %q", why, doubt)
	}
	r = newRouting(&daemon{})
	falling := routed()
	falling.Services[0].Params = map[string]string{"smtp_fallback_relay": "[fallback.example]"}
	r.take(falling)
	if why, doubt := r.Unbound(t.Context(), "partner.example"); why != "" || !strings.HasSuffix(doubt, "smtp_fallback_relay = [fallback.example]") {
		t.Errorf("fallback: %q, %q", why, doubt)
	}
	if f := r.examine(t.Context(), refusing); !slices.Equal(f.doubts, []string{"smtp_fallback_relay = [fallback.example]"}) {
		t.Errorf("fallback: %+v", f)
	}
	if f := r.examine(t.Context(), rules); len(f.doubts) > 0 || f.inert != 0 {
		t.Errorf("fallback, nobody is refused: %+v", f)
	}
	r.take(routed("sender_dependent_relayhost_maps", "hash:/s"))
	if why, doubt := r.Unbound(t.Context(), "partner.example"); why != "" || !strings.HasSuffix(doubt, "sender_dependent_relayhost_maps = hash:/s") {
		t.Errorf("a relay by sender: %q, %q", why, doubt)
	}
	if f := r.examine(t.Context(), refusing); !slices.Equal(f.doubts, []string{"sender_dependent_relayhost_maps = hash:/s"}) {
		t.Errorf("a relay by sender: %+v", f)
	}
}

// gathered is the value of a gauge without labels.
func gathered(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
