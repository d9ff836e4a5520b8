package policy

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// ending makes rules from "PATTERN LEVEL DAYS", DAYS from now; 0: no end.
func ending(t *testing.T, texts ...string) *Rules {
	t.Helper()
	var rules []Rule
	for i, text := range texts {
		f := strings.Fields(text)
		rt := RuleText{Match: strings.Split(f[0], ","), Level: f[1], Reason: "test", Source: "postseal.toml:" + string(rune('1'+i))}
		if days, err := time.ParseDuration(f[2] + "h"); err != nil {
			t.Fatal(err)
		} else if days > 0 {
			rt.Until = time.Now().Round(0).Add(24 * days)
		}
		r, err := ParseRule(rt, tlspolicy.Version{})
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

// alarmed is a world that tells what is logged about alarms of rules.
type alarmed struct {
	*world
	log  logged
	kind AlarmKind
}

func startAlarmed(t *testing.T, zone string, kind AlarmKind, rules *Rules) *alarmed {
	w := &alarmed{kind: kind}
	w.world = start(t, zone, w.with(rules))
	return w
}

func (w *alarmed) with(rules *Rules) func(*Config) {
	return func(c *Config) { into(&w.log, nil)(c); c.Settings.Rules = rules }
}

func (w *alarmed) configure(rules *Rules) {
	w.engine.Configure(Settings{Rules: rules}, Postfix{})
}

// expect waits so long and looks at what was logged since the last call, and how many
// alarms stand.
func (w *alarmed) expect(after time.Duration, stand float64, words string, lines ...string) {
	w.t.Helper()
	time.Sleep(after)
	synctest.Wait()
	got := w.log.take(words)
	ok := len(got) == len(lines)
	for i := range min(len(got), len(lines)) {
		ok = ok && strings.Contains(got[i], lines[i])
	}
	if !ok {
		w.t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
	if n := testutil.ToFloat64(w.engine.metrics.alarms.WithLabelValues(string(w.kind))); n != stand {
		w.t.Errorf("%v alarms stand, want %v", n, stand)
	}
}

// A rule that ends within a week is an alarm, once; its end is told when it comes, with
// what holds from then on; a rule that holds for longer, or is gone, ends the alarm.
func TestAlarmRuleExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		w := startAlarmed(t, signedZone, AlarmRule, ending(t, "ex.test encrypt 10", "ex.test,b.test may 30", ".x.test verify 8", "c.test encrypt 0"))
		defer func() { w.stop() }()
		about := func(after time.Duration, stand float64, lines ...string) {
			t.Helper()
			w.expect(after, stand, "subject=", lines...)
		}
		about(day-time.Second, 0)
		about(ruleLook+time.Second, 1, "WARN a rule ends within a week alarm=rule-expires subject=.x.test rule=postseal.toml:3 level=verify last_day=2000-01-08 "+
			"then=no rule: DANE, MTA-STS and floor = \"inherit\"")
		about(2*day, 2, "subject=ex.test rule=postseal.toml:1 level=encrypt last_day=2000-01-10 then=may, by the rule at postseal.toml:2")
		about(4*day, 2)
		w.want("ex.test", "OK encrypt")
		about(day, 2, "WARN a rule has ended and is ignored subject=.x.test")
		about(2*day, 2, "WARN a rule has ended and is ignored subject=ex.test rule=postseal.toml:1 level=encrypt last_day=2000-01-10 then=may")
		w.want("ex.test", "OK may")

		// The first holds on, the third is gone.
		w.configure(ending(t, "ex.test encrypt 20", "ex.test,b.test may 6"))
		about(ruleLook, 1, "alarm=rule-expires subject=ex.test and 1 more", "INFO alarm is over alarm=rule-expires subject=", "INFO alarm is over alarm=rule-expires subject=")

		// Ended before the start: the alarm stands as well.
		rules := ending(t, "ex.test encrypt 1")
		w.stop()
		time.Sleep(2 * day)
		w.log.take("")
		w.boot(w.with(rules))
		about(ruleLook, 1, "WARN a rule has ended and is ignored alarm=rule-expires subject=ex.test")
		w.configure(nil)
		about(ruleLook, 0, "INFO alarm is over")
	})
}

// An mx: pattern that has matched a destination and matches nothing any more is an
// alarm, over a restart too, until it matches again or is gone; one that never matched
// is none.
func TestAlarmMXRuleUnmatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := ending(t, "mx:*.hoster.test encrypt 0", "mx:*.never.test encrypt 0")
		w := startAlarmed(t, hosterZone, AlarmUnmatched, rules)
		defer func() { w.stop() }()
		about := func(after time.Duration, stand float64, lines ...string) {
			t.Helper()
			w.expect(after, stand, "subject=", lines...)
		}
		w.want("ex.test", "OK encrypt")
		about(time.Minute, 0)
		move := func(to string) {
			w.dns.Set("ad ex.test 300 MX 10 mx." + to + "\nad mx." + to + " 300 A 192.0.2.2\nad nodata mx." + to + " 300 AAAA\nad nx _25._tcp.mx." + to + " 300 TLSA")
			time.Sleep(301 * time.Second)
			w.ask("ex.test")
		}
		move("elsewhere.test")
		const lost = "WARN an mx: pattern matches no destination any more; have their mail hosts moved? alarm=mx-rule-unmatched subject=mx:*.hoster.test rule=postseal.toml:1"
		about(ruleLook, 1, lost)
		about(2*time.Hour, 1)
		w.stop()
		w.log.take("")
		w.boot(w.with(rules))
		about(ruleLook, 1, lost) // it is as it was
		move("other.elsewhere.test")
		about(time.Hour, 1)
		move("hoster.test")
		about(time.Hour, 0, "INFO alarm is over alarm=mx-rule-unmatched subject=mx:*.hoster.test")
		move("elsewhere.test")
		about(ruleLook, 1, lost)
		w.configure(nil)
		about(ruleLook, 0, "INFO alarm is over")
	})
}

// A destination that nobody writes to, or that the operator flushes, is no sign; only
// after more than a month a pattern without a match is told.
func TestAlarmMXRuleUnmatchedSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := ending(t, "mx:mx.hoster.test encrypt 0")
		w := startAlarmed(t, hosterZone, AlarmUnmatched, rules)
		defer func() { w.stop() }()
		w.want("ex.test", "OK encrypt")
		w.expect(2*time.Hour, 0, "subject=")
		if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		w.expect(30*24*time.Hour, 0, "subject=")
		w.stop()
		w.boot(w.with(rules))
		w.expect(9*24*time.Hour, 0, "subject=")
		w.expect(2*24*time.Hour, 1, "subject=", "subject=mx:mx.hoster.test rule=postseal.toml:1 level=encrypt last_matched=2000-01-01T")
		w.want("ex.test", "OK encrypt")
		w.expect(ruleLookAgain+ruleLook, 0, "subject=", "INFO alarm is over")
	})
}

// One of several hosts, or of several destinations, is enough to match.
func TestAlarmMXRuleStillMatches(t *testing.T) {
	now := time.Now()
	e := &Engine{}
	e.sets.note("a.test", &KnownMX{At: now, Hosts: []string{"mx1.hoster.test", "mx2.hoster.test"}})
	e.sets.note("a.test", &KnownMX{At: now, Hosts: []string{"mx1.hoster.test"}})
	e.sets.note("b.test", &KnownMX{At: now, Hosts: []string{"x.test", "y.test"}})
	e.sets.note("b.test", &KnownMX{At: now, Hosts: []string{"y.test"}})
	left := e.sets.takeLeft()
	if !slices.Equal(left, []string{"mx2.hoster.test", "x.test"}) || e.sets.takeLeft() != nil {
		t.Errorf("left: %q", left)
	}
	ps := ending(t, "mx:*.hoster.test,a.test encrypt 0", "mx:x.test,mx:*.hoster.test encrypt 0").mxPatterns(now)
	if len(ps.all) != 2 || ps.rules[0].Source != "postseal.toml:1" {
		t.Fatalf("%+v", ps)
	}
	matches := map[int]bool{}
	for _, host := range left {
		ps.mark(matches, host)
	}
	ps.mark(matches, "hoster.test")
	if !matches[0] || !matches[1] {
		t.Errorf("%v", matches)
	}
}

// example is matched by the pattern that it is an example of.
func TestRuleExample(t *testing.T) {
	for _, pattern := range []string{"ex.test", "ex.test:587", ".ex.test", "[ex.test]", "[192.0.2.1]:587", "[2001:db8::1]", "mx:mx.ex.test", "mx:*.ex.test"} {
		rs := ending(t, pattern+" may 0")
		if rs.Find(example(pattern), time.Now()).Rule == nil {
			t.Errorf("%s: %+v", pattern, example(pattern))
		}
	}
}
