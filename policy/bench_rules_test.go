package policy_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy"
)

// manyRules are 5,000 for subdomains, 2,000 for mail hosts and 3,000 for domains or
// senders, of which the names below meet the last.
func manyRules(b *testing.B) *policy.Rules {
	b.Helper()
	var rules []policy.Rule
	for i := range 10_000 {
		text := policy.RuleText{Level: "encrypt"}
		switch {
		case i < 5_000:
			text.Match = []string{fmt.Sprintf(".suffix%d.example.net", i)}
		case i < 7_000:
			text.Match = []string{fmt.Sprintf("mx:*.mail%d.example.net", i)}
		case i < 8_500:
			text.Match = []string{fmt.Sprintf("partner%d.example.net", i)}
		case i < 9_999:
			text.Sender = []string{fmt.Sprintf("@payroll%d.example.net", i)}
		default:
			text.Match = []string{".ruled.example.com"}
		}
		r, err := policy.ParseRule(text, tlspolicy.Version{})
		if err != nil {
			b.Fatal(err)
		}
		rules = append(rules, r)
	}
	rs, err := policy.NewRules(rules)
	if err != nil {
		b.Fatal(err)
	}
	return rs
}

// BenchmarkRules: what 10,000 rules add to an answer, against one rule, in medians
// of ten interleaved runs: to one that is remembered, and to one that is decided
// anew from evidence that is there. The bar is 2 µs.
func BenchmarkRules(b *testing.B) {
	const runs, names = 10, 20_000
	few, err := policy.NewRules(nil)
	if err != nil {
		b.Fatal(err)
	}
	var engines [2]*policy.Engine
	rules := [2]*policy.Rules{few, manyRules(b)}
	var keys [][]byte
	for i := range names {
		keys = append(keys, fmt.Appendf(nil, "name%d.%s.example.com", i, [2]string{"free", "ruled"}[i%2]))
	}
	for n := range engines {
		e, stop, err := runEngine(policy.Config{Resolver: &instantDNS{}, Settings: policy.Settings{Rules: rules[n]}})
		if err != nil {
			b.Fatal(err)
		}
		defer stop()
		engines[n] = e
	}
	dst, mapName := make([]byte, 0, 4096), []byte("postseal")
	perAnswer := func(n int) float64 {
		begin := time.Now()
		for _, key := range keys {
			engines[n].ServeSocketmap(b.Context(), dst, mapName, key)
		}
		return float64(time.Since(begin).Nanoseconds()) / names / 1e3
	}
	var remembered, anew []float64
	perAnswer(0)
	perAnswer(1)
	for i := range runs {
		var first, again [2]float64
		for turn := range engines {
			n := (i + turn) % len(engines) // neither is always the first
			engines[n].Configure(policy.Settings{Rules: rules[n]}, policy.Postfix{})
			first[n], again[n] = perAnswer(n), perAnswer(n)
		}
		anew, remembered = append(anew, first[1]-first[0]), append(remembered, again[1]-again[0])
	}
	b.ReportMetric(median(remembered), "added-µs/answer")
	b.ReportMetric(median(anew), "added-µs/answer-decided-anew")
	sender, begin := []byte("Somebody+x@far.below.payroll.example.net"), time.Now()
	for range names {
		engines[1].ServeSocketmap(b.Context(), dst, []byte(policy.SenderMap), sender)
	}
	b.ReportMetric(float64(time.Since(begin).Nanoseconds())/names/1e3, "µs/sender")
	b.ReportMetric(0, "ns/op")
}
