package policy_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy"
)

// seenBad is a Reach whose hosts all lack TLS, while others have it.
type seenBad struct{}

func (seenBad) Probe(_ context.Context, hosts []policy.Demand, _ bool) policy.Standing {
	return seenBad{}.Standing(hosts)
}

func (seenBad) Standing(hosts []policy.Demand) policy.Standing {
	now := time.Now()
	s := policy.Standing{Verdict: policy.ReachNegative, FirstNegative: now.Add(-time.Minute), LastNegative: now, OtherPositive: now}
	for _, h := range hosts {
		s.Hosts = append(s.Hosts, policy.HostReach{Host: h.Host, Verdict: policy.ReachNegative, Address: "192.0.2.1", At: now, Text: "TLS is required"})
	}
	return s
}

// recipientEngine has a rule that refuses, one for a sender, and 100 destinations of
// which half are under the rule.
func recipientEngine(tb testing.TB) (e *policy.Engine, stop func()) {
	tb.Helper()
	encrypt := tlspolicy.Line{Level: tlspolicy.Encrypt}
	rules, err := policy.NewRules([]policy.Rule{{Match: []string{".refused.example"}, Line: encrypt, Unreachable: policy.UnreachableRefuse, Source: "test:1"}})
	if err != nil {
		tb.Fatal(err)
	}
	e, stop, err = runEngine(policy.Config{Resolver: &instantDNS{}, Reach: seenBad{}, Settings: policy.Settings{Rules: rules, STS: policy.ModeOff}})
	if err != nil {
		tb.Fatal(err)
	}
	for begun := time.Now(); e.Recipient(nil, []byte("a.refused.example"), time.Now()).Action != policy.RecipientRefuse || e.Standing("a.plain.example") == policy.StandingUnknown; {
		e.Recipient(nil, []byte("a.plain.example"), time.Now())
		if time.Since(begun) > time.Minute {
			tb.Fatal("no verdict in a minute")
		}
		time.Sleep(time.Millisecond)
	}
	return e, stop
}

// TestRecipientAllocations: what is known is told without allocating, in any case of
// letters.
func TestRecipientAllocations(t *testing.T) {
	e, stop := recipientEngine(t)
	defer stop()
	sender := []byte("someone@sender.example")
	for _, name := range []string{"a.refused.example", "A.Refused.Example.", "a.plain.example", "A.PLAIN.EXAMPLE"} {
		domain := []byte(name)
		if n := testing.AllocsPerRun(1000, func() { e.Recipient(sender, domain, time.Now()) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkRecipient: a verdict that is known; allocs/op must be 0.
func BenchmarkRecipient(b *testing.B) {
	e, stop := recipientEngine(b)
	defer stop()
	sender := []byte("someone@sender.example")
	for _, name := range []string{"a.plain.example", "a.refused.example", "A.Refused.Example"} {
		b.Run(fmt.Sprintf("domain=%s", name), func(b *testing.B) {
			domain := []byte(name)
			b.ReportAllocs()
			for b.Loop() {
				e.Recipient(sender, domain, time.Now())
			}
		})
	}
}
