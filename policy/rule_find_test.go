package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

var (
	yesterday = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	now       = time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	tomorrow  = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
)

// ruleSet compiles rules written as "level: pattern pattern…"; before the level
// may stand "monitor", "ended" and "ending". Each is named by its number.
func ruleSet(t testing.TB, lines ...string) *Rules {
	t.Helper()
	rules := make([]Rule, len(lines))
	for i, line := range lines {
		head, match, _ := strings.Cut(line, ": ")
		words := strings.Fields(head)
		r := mustRule(t, "", match, words[len(words)-1])
		for _, word := range words[:len(words)-1] {
			switch word {
			case "monitor":
				r.Monitor = true
			case "ended":
				r.Until = yesterday
			case "ending":
				r.Until = tomorrow
			}
		}
		r.Source = fmt.Sprint(i + 1)
		rules[i] = r
	}
	rs, err := NewRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func subject(t testing.TB, key string) Subject {
	t.Helper()
	k, err := ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Subject{Key: k}
}

func number(r *Rule) string {
	if r == nil {
		return ""
	}
	return r.Source
}

func TestCMB00_RulesByKey(t *testing.T) {
	for _, tt := range []struct{ pattern, matches, others string }{
		{"example.com", "example.com Example.COM. example.com:25 example.com:587",
			"[example.com] [example.com]:25 sub.example.com com xexample.com example.com.example"},
		{".example.com", "a.example.com a.b.example.com a.example.com:587",
			"example.com [a.example.com] xexample.com a.example.com.example"},
		{"example.com:587", "example.com:587 example.com:submission", "example.com example.com:25 [example.com]:587"},
		{"example.com:25", "example.com:25 example.com:smtp example.com", "example.com:587"},
		{"[relay.example]:587", "[relay.example]:587 [Relay.Example]:submission", "[relay.example] [relay.example]:25 relay.example:587 relay.example"},
		{"[relay.example]", "[relay.example] [relay.example]:25 [relay.example]:smtp", "[relay.example]:587 relay.example [a.relay.example]"},
		{"[relay.example]:25", "[relay.example] [relay.example]:25", "[relay.example]:587"},
		{"[192.0.2.1]:25", "[192.0.2.1]:25 [192.0.2.1]", "[192.0.2.2]:25 192.0.2.1"},
		{"[IPv6:2001:db8::1]", "[IPv6:2001:DB8:0::1]:25 [2001:db8::1]", "[2001:db8::2]"},
		{".1", "a.1", "[192.0.2.1] 192.0.2.1"},
		{"bücher.example", "bücher.example xn--bcher-kva.example", "bucher.example"},
		{"xn--bcher-kva.example", "bücher.example", ""},
	} {
		rs := ruleSet(t, "encrypt: "+tt.pattern)
		for _, key := range strings.Fields(tt.matches) {
			if rs.Find(subject(t, key), now).Rule == nil {
				t.Errorf("%s does not match %s", tt.pattern, key)
			}
		}
		for _, key := range strings.Fields(tt.others) {
			if rs.Find(subject(t, key), now).Rule != nil {
				t.Errorf("%s matches %s", tt.pattern, key)
			}
		}
	}
}

func TestCMB00_FirstMatchWins(t *testing.T) {
	for _, tt := range []struct {
		name      string
		rules     []string
		key       string
		rule      string
		monitored string
	}{
		{"order of the file, not the nearest", []string{"may: .example.com", "secure: a.example.com"}, "a.example.com", "1", ""},
		{"exact before", []string{"secure: a.example.com", "may: .example.com"}, "a.example.com", "1", ""},
		{"a nearer parent after a farther one", []string{"encrypt: .com", "may: .example.com"}, "a.example.com", "1", ""},
		{"any pattern of the rule", []string{"encrypt: x.example y.example", "may: y.example"}, "y.example", "1", ""},
		{"the same pattern twice in one rule", []string{"encrypt: x.example X.example", "may: x.example"}, "x.example", "1", ""},
		{"with a port", []string{"encrypt: x.example:587", "may: x.example"}, "x.example", "2", ""},
		{"an ended rule is passed over", []string{"ended may: x.example", "secure: x.example"}, "x.example", "2", ""},
		{"a rule holds until it ends", []string{"ending may: x.example", "secure: x.example"}, "x.example", "1", ""},
		{"monitor is passed over and told", []string{"monitor may: x.example", "secure: x.example"}, "x.example", "2", "1"},
		{"monitor alone", []string{"monitor secure: .example"}, "x.example", "", "1"},
		{"the first of several monitored", []string{"monitor encrypt: .example", "monitor may: x.example"}, "x.example", "", "1"},
		{"monitor after the rule", []string{"secure: x.example", "monitor may: .example"}, "x.example", "1", ""},
		{"an ended monitored rule", []string{"ended monitor may: x.example"}, "x.example", "", ""},
		{"nothing", []string{"secure: y.example"}, "x.example", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := ruleSet(t, tt.rules...).Find(subject(t, tt.key), now)
			if number(f.Rule) != tt.rule || number(f.Monitored) != tt.monitored {
				t.Errorf("rule %q, monitored %q; want %q, %q", number(f.Rule), number(f.Monitored), tt.rule, tt.monitored)
			}
		})
	}
}

// mx: rules by what is known of the MX set. MX "?" is an unknown set; "!" marks
// an insecure one.
func TestCMB00_RulesByMX(t *testing.T) {
	const raise, lower = "encrypt: mx:*.b.example", "may: mx:*.b.example"
	for _, tt := range []struct {
		name                 string
		rules                []string
		mx                   string
		rule                 string
		needsMX, leastEncypt bool
	}{
		{"raising, any host, secure", []string{raise}, "x.a.example y.b.example", "1", false, false},
		{"raising, any host, insecure", []string{raise}, "! x.a.example y.b.example", "1", false, false},
		{"raising, none", []string{raise}, "x.a.example b.example xb.example", "", false, false},
		{"raising, any depth", []string{raise}, "z.y.b.example", "1", false, false},
		{"raising, unknown", []string{raise}, "?", "", true, true},
		{"raising, empty set", []string{raise}, "", "", false, false},
		{"lowering, all, secure", []string{lower}, "x.b.example y.b.example", "1", false, false},
		{"lowering, all, insecure", []string{lower}, "! x.b.example y.b.example", "", false, false},
		{"lowering, any, secure", []string{lower}, "x.b.example y.a.example", "", false, false},
		{"lowering, any, the other order", []string{lower}, "x.a.example y.b.example", "", false, false},
		{"lowering, unknown", []string{lower}, "?", "", true, false},
		{"lowering, empty set", []string{lower}, "", "", false, false},
		{"exempt lowers", []string{"exempt: mx:*.b.example"}, "! x.b.example", "", false, false},
		{"dane lowers", []string{"dane: mx:*.b.example"}, "! x.b.example", "", false, false},
		{"lowering, each by another pattern", []string{"none: mx:*.b.example mx:m.a.example"}, "x.b.example m.a.example", "1", false, false},
		{"lowering, by name or by MX", []string{"none: d.example mx:*.b.example"}, "! x.a.example", "1", false, false},
		{"exact host", []string{"encrypt: mx:m.a.example"}, "m.a.example", "1", false, false},
		{"exact host, below", []string{"encrypt: mx:m.a.example"}, "x.m.a.example", "", false, false},
		{"raising before a rule, unknown", []string{raise, "may: d.example"}, "?", "2", true, true},
		{"raising after a rule, unknown", []string{"may: d.example", raise}, "?", "1", false, false},
		{"lowering before a rule, unknown", []string{lower, "secure: d.example"}, "?", "2", true, false},
		{"lowering before raising, unknown", []string{lower, raise}, "?", "", true, true},
		{"lowering before raising, mixed", []string{lower, raise}, "x.b.example y.a.example", "2", false, false},
		{"lowering before raising, all", []string{lower, raise}, "x.b.example y.b.example", "1", false, false},
		{"ended, unknown", []string{"ended " + raise}, "?", "", false, false},
		{"ended and not, unknown", []string{"ended " + raise, raise}, "?", "", true, true},
		{"monitored, unknown", []string{"monitor " + raise}, "?", "", false, false},
		{"by name already, unknown", []string{"encrypt: d.example mx:*.b.example"}, "?", "1", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := subject(t, "d.example")
			mx, insecure := strings.CutPrefix(tt.mx, "! ")
			if s.MXKnown = mx != "?"; s.MXKnown {
				s.MX, s.MXSecure = strings.Fields(mx), !insecure
			}
			f := ruleSet(t, tt.rules...).Find(s, now)
			if number(f.Rule) != tt.rule || f.NeedsMX != tt.needsMX || f.AtLeastEncrypt != tt.leastEncypt {
				t.Errorf("got rule %q, needs MX %t, at least encrypt %t", number(f.Rule), f.NeedsMX, f.AtLeastEncrypt)
			}
		})
	}
}

// STS-004: the host in brackets is the list of candidates; it is not asked of the DNS.
func TestSTS004_MXRulesAndBrackets(t *testing.T) {
	rs := ruleSet(t, "encrypt: mx:*.b.example", "may: mx:*.c.example")
	for key, want := range map[string]string{
		"[x.b.example]": "1", "[x.b.example]:587": "1", "[x.c.example]": "2", "[b.example]": "",
		"[192.0.2.1]": "", "192.0.2.1": "",
	} {
		if f := rs.Find(subject(t, key), now); number(f.Rule) != want || f.NeedsMX || f.AtLeastEncrypt {
			t.Errorf("%s: rule %q, %+v", key, number(f.Rule), f)
		}
	}
}

func TestRules_Monitored_MX(t *testing.T) {
	rs := ruleSet(t, "monitor secure: mx:*.b.example", "encrypt: .example")
	s := subject(t, "d.example")
	s.MXKnown, s.MX = true, []string{"x.b.example"}
	if f := rs.Find(s, now); number(f.Rule) != "2" || number(f.Monitored) != "1" {
		t.Errorf("rule %q, monitored %q", number(f.Rule), number(f.Monitored))
	}
}

func TestRules_Ends(t *testing.T) {
	rs := ruleSet(t, "ending may: a.example", "ended may: b.example mx:*.c.example", "secure: a.example", "ending encrypt: d.example")
	a := subject(t, "a.example")
	for _, tt := range []struct {
		at   time.Time
		rule string
		next time.Time
	}{
		{yesterday.Add(-1), "1", yesterday},
		{yesterday, "1", tomorrow},
		{tomorrow.Add(-1), "1", tomorrow},
		{tomorrow, "3", time.Time{}},
	} {
		if got := number(rs.Find(a, tt.at).Rule); got != tt.rule {
			t.Errorf("at %v: rule %q, want %q", tt.at, got, tt.rule)
		}
		if got := rs.NextChange(tt.at); !got.Equal(tt.next) {
			t.Errorf("at %v: next change %v, want %v", tt.at, got, tt.next)
		}
	}
	if list := rs.Expired(now); len(list) != 1 || number(list[0]) != "2" {
		t.Errorf("expired: %v", list)
	}
}

func TestRules_NeverReached(t *testing.T) {
	for _, tt := range []struct {
		rules []string
		want  []string
	}{
		{[]string{"may: x.example", "secure: X.example"}, []string{`2: match "x.example" is never reached: 1 matches it before`}},
		{[]string{"may: .example", "secure: a.x.example y.example"}, []string{`2: match "a.x.example" is never reached: 1 matches it before`, `2: match "y.example" is never reached: 1 matches it before`}},
		{[]string{"may: x.example", "secure: x.example:587"}, []string{`2: match "x.example:587" is never reached: 1 matches it before`}},
		{[]string{"may: x.example:587", "secure: x.example"}, nil},
		{[]string{"may: .x.example", "secure: x.example", "may: .example"}, nil},
		{[]string{"monitor may: x.example", "secure: x.example"}, nil},
		{[]string{"ending may: x.example", "secure: x.example"}, nil},
		{[]string{"may: .example", "secure: [x.example] example mx:*.example"}, nil},
		{[]string{"may: [x.example]:25", "secure: [x.example]"}, []string{`2: match "[x.example]" is never reached: 1 matches it before`}},
		{[]string{"secure: x.example x.example"}, nil},
		{[]string{"may: mx:*.x.example", "secure: mx:*.x.example"}, nil},
		{[]string{"encrypt: mx:*.x.example", "may: mx:*.y.x.example"}, []string{`2: match "mx:*.y.x.example" is never reached: 1 matches it before`}},
		{[]string{"may: mx:m.example", "none: mx:m.example"}, []string{`2: match "mx:m.example" is never reached: 1 matches it before`}},
	} {
		var got []string
		for _, w := range ruleSet(t, tt.rules...).Warnings() {
			got = append(got, w.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q:\ngot  %q\nwant %q", tt.rules, got, tt.want)
		}
	}
}

func TestRules_None(t *testing.T) {
	empty, err := NewRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, rs := range []*Rules{nil, empty} {
		s := subject(t, "example.com")
		if f := rs.Find(s, now); f != (Finding{}) {
			t.Errorf("%+v", f)
		}
		if len(rs.All()) != 0 || rs.Warnings() != nil || rs.Expired(now) != nil || !rs.NextChange(now).IsZero() {
			t.Error("no rules, and yet something")
		}
	}
}

func TestNewRules_ChecksPatternsAndCopies(t *testing.T) {
	_, err := NewRules([]Rule{{Match: []string{"*.example.com"}, Source: "x:1"}, {Match: []string{"a@b"}, Source: "x:2"}})
	if err == nil || !strings.Contains(err.Error(), "x:1: rule: match[0]: ") || !strings.Contains(err.Error(), "x:2: ") {
		t.Errorf("got %v", err)
	}
	match := []string{"Example.com"}
	rs, err := NewRules([]Rule{{Match: match, Line: tlspolicy.Line{Level: tlspolicy.Encrypt}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := rs.All()[0].Match[0]; got != "example.com" || match[0] != "Example.com" {
		t.Errorf("compiled %q, given %q", got, match[0])
	}
}

// naive is the definition: the rules one by one, each pattern for itself.
func naive(rs *Rules, s Subject, now time.Time) Finding {
	hosts, known, secure := s.MX, s.MXKnown, s.MXSecure
	if s.Key.Brackets {
		hosts, known, secure = []string{s.Key.Name}, true, true
	}
	var f Finding
	for i := range rs.rules {
		r := &rs.rules[i]
		if r.Expired(now) {
			continue
		}
		overMX, byMX := mxMatch(r, hosts)
		matches := slices.ContainsFunc(r.Match, func(text string) bool { return keyMatch(text, s.Key) })
		if !s.Key.Literal && !matches && overMX {
			switch {
			case known:
				matches = byMX && (secure || !r.Lowers())
			case !r.Monitor:
				f.NeedsMX = true
				f.AtLeastEncrypt = f.AtLeastEncrypt || !r.Lowers()
			}
		}
		switch {
		case matches && !r.Monitor:
			f.Rule = r
			return f
		case matches && f.Monitored == nil:
			f.Monitored = r
		}
	}
	return f
}

func keyMatch(text string, k Key) bool {
	p, _ := parsePattern(text)
	switch p.kind {
	case matchHost:
		return k.Brackets && k.Name == p.name && k.Port == p.port
	case matchName:
		return !k.Brackets && !k.Literal && k.Name == p.name
	case matchPort:
		return !k.Brackets && !k.Literal && k.Name == p.name && k.Port == p.port
	case matchParent:
		return !k.Brackets && !k.Literal && strings.HasSuffix(k.Name, "."+p.name)
	}
	return false
}

func mxMatch(r *Rule, hosts []string) (overMX, matches bool) {
	matched := 0
	for _, host := range hosts {
		if slices.ContainsFunc(r.Match, func(text string) bool {
			p, _ := parsePattern(text)
			return p.kind == matchMX && host == p.name || p.kind == matchMXBelow && strings.HasSuffix(host, "."+p.name)
		}) {
			matched++
		}
	}
	overMX = slices.ContainsFunc(r.Match, func(text string) bool { return strings.HasPrefix(text, "mx:") })
	if r.Lowers() {
		return overMX, matched > 0 && matched == len(hosts)
	}
	return overMX, matched > 0
}

func TestRules_FindIsWhatTheRulesSay(t *testing.T) {
	names := []string{"a", "b.a", "c.b.a", "c.a", "d.c.b.a"}
	var patterns []string
	for _, n := range names {
		patterns = append(patterns, n, "."+n, n+":26", "["+n+"]", "["+n+"]:26", "mx:"+n, "mx:*."+n)
	}
	heads := []string{"encrypt", "secure", "may", "exempt", "dane", "monitor secure", "monitor may", "ended encrypt", "ending none"}
	rapid.Check(t, func(rt *rapid.T) {
		var lines []string
		for range rapid.IntRange(0, 8).Draw(rt, "rules") {
			match := rapid.SliceOfN(rapid.SampledFrom(patterns), 1, 3).Draw(rt, "match")
			lines = append(lines, rapid.SampledFrom(heads).Draw(rt, "head")+": "+strings.Join(match, " "))
		}
		rs := ruleSet(t, lines...)
		key := rapid.SampledFrom(names).Draw(rt, "name")
		key = fmt.Sprintf(rapid.SampledFrom([]string{"%s", "%s:26", "[%s]", "[%s]:26"}).Draw(rt, "form"), key)
		s := subject(t, key)
		if s.MXKnown = rapid.Bool().Draw(rt, "known"); s.MXKnown {
			s.MX = rapid.SliceOfN(rapid.SampledFrom(names), 0, 3).Draw(rt, "mx")
			s.MXSecure = rapid.Bool().Draw(rt, "secure")
		}
		if got, want := rs.Find(s, now), naive(rs, s, now); got != want {
			rt.Fatalf("%q for %s, MX %v:\ngot  %+v\nwant %+v", lines, key, s.MX, got, want)
		}
	})
}

// manyRules are 10,000: 5,000 parents, 2,000 over MX, 3,000 names.
func manyRules(t testing.TB) *Rules {
	var lines []string
	for i := range 10_000 {
		switch {
		case i%2 == 0:
			lines = append(lines, fmt.Sprintf("encrypt: .p%d.example", i))
		case i%5 == 1:
			lines = append(lines, fmt.Sprintf("encrypt: mx:*.m%d.example", i))
		case i%5 == 3:
			lines = append(lines, fmt.Sprintf("may: mx:*.m%d.example", i))
		default:
			lines = append(lines, fmt.Sprintf("secure: n%d.example", i))
		}
	}
	return ruleSet(t, lines...)
}

func manySubjects(t testing.TB) []Subject {
	unknown := subject(t, "news.shop.example")
	known := unknown
	known.MXKnown, known.MXSecure = true, true
	known.MX = []string{"mx1.mail.m9993.example", "mx2.mail.m9993.example"}
	return []Subject{unknown, known, subject(t, "[relay.example]:587"), subject(t, "a.b.p9998.example:25")}
}

func TestRules_FindAllocatesNothing(t *testing.T) {
	rs := manyRules(t)
	for _, s := range manySubjects(t) {
		if n := testing.AllocsPerRun(100, func() { rs.Find(s, now) }); n != 0 {
			t.Errorf("%v: %v allocations", s.Key, n)
		}
	}
}

func BenchmarkRules_Find(b *testing.B) {
	rs := manyRules(b)
	for i, s := range manySubjects(b) {
		b.Run([]string{"unknownMX", "knownMX", "brackets", "parent"}[i], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rs.Find(s, now)
			}
		})
	}
}
