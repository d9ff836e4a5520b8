package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestRecipientRefused: probed at the first recipient, deferred at once, refused after
// the second probe, which comes when refuse_after ends.
func TestRecipientRefused(t *testing.T) {
	for _, after := range []time.Duration{0, 5 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w, m := watchWorld(t, watchZone, nil, unreachableRule(UnreachableRefuse, after, "good.test", "bad.test"))
			defer w.stop()
			m.show("mx.good.test", ReachPositive)
			m.show("mx.bad.test", ReachNegative)
			w.rcpt("good.test")
			w.rcpt("Bad.Test.")
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			w.wantAction("good.test", RecipientPass)
			w.wantAction("bad.test", RecipientDefer)
			if got := slices.Compact(m.asked()); !slices.Equal(got, []string{"mx.bad.test", "mx.good.test"}) {
				t.Errorf("refuse_after %s: probed %v", after, got)
			}
			for begun := time.Now(); w.rcpt("bad.test").Action != RecipientRefuse && time.Since(begun) < 2*time.Hour; {
				time.Sleep(time.Second)
			}
			begun := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // synctest's
			if took, most := time.Since(begun), after+after/20+3*time.Second; took < after || took > most {
				t.Errorf("refuse_after %s: refused after %s", after, took)
			}
			v := w.rcpt("BAD.test")
			if v.Seen != "TLS is required, but was not offered by host mx.bad.test[192.0.2.2]" || v.Rule == nil || v.Doubt != "" {
				t.Errorf("%+v", v)
			}
			m.show("mx.bad.test", ReachPositive)
			time.Sleep(15 * time.Minute)
			w.wantAction("bad.test", RecipientPass)
		})
	}
}

// TestWatchSchedule: negative results are renewed before they are too old, positive
// ones after six hours, until 24 hours after the last recipient.
func TestWatchSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, nil, unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		w.rcpt("good.test")
		w.rcpt("bad.test")
		time.Sleep(time.Minute)
		m.asked()
		for range 22 * 12 { // every five minutes
			time.Sleep(5 * time.Minute)
			w.wantAction("bad.test", RecipientDefer)
		}
		count := map[string]int{}
		for _, h := range m.asked() {
			count[h]++
		}
		// The good one is also what shows that our own path is in order, once in 45 minutes.
		if n := count["mx.bad.test"]; n < 22*5 || n > 22*6 {
			t.Errorf("the one without TLS was probed %d times in 22 hours", n)
		}
		if n := count["mx.good.test"]; n < 22 || n > 35 {
			t.Errorf("the one with TLS was probed %d times in 22 hours", n)
		}
		time.Sleep(26 * time.Hour)
		m.asked()
		time.Sleep(48 * time.Hour)
		if got := m.asked(); len(got) > 0 {
			t.Errorf("probed without a recipient: %v", got)
		}
		w.wantAction("bad.test", RecipientPass) // what was seen is too old
		time.Sleep(time.Second)
		if got := m.asked(); !slices.Contains(got, "mx.bad.test") {
			t.Errorf("a new recipient probes: %v", got)
		}
	})
}

// TestWatchOnlyForRules: without such a rule, or a recipient, nothing is ever probed.
func TestWatchOnlyForRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, nil, unreachableRule(UnreachableQueue, 0, "bad.test"),
			Rule{Match: []string{"two.test"}, Exempt: ExemptDANE, Reason: "x", Unreachable: UnreachableRefuse}, unreachableRule(UnreachableRefuse, 0, "good.test"))
		defer w.stop()
		for _, name := range []string{"bad.test", "two.test", "null.test", "lost.test", "[192.0.2.1]", "good.test:25", "", "..", "sub.good.test"} {
			w.wantAction(name, RecipientPass)
		}
		w.ask("good.test") // Postfix's question is no recipient
		w.engine.Warm("good.test")
		time.Sleep(time.Hour)
		if got := m.asked(); len(got) > 0 {
			t.Errorf("probed %v", got)
		}
	})
}

// TestRecipientDoubt: unknown hosts, unknown DNS, no mail host: nobody is refused.
func TestRecipientDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, nil, unreachableRule(UnreachableRefuse, 0, "good.test", "two.test", "bad.test", "null.test", "lost.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		names := []string{"good.test", "two.test", "bad.test", "null.test", "lost.test"}
		for range 100 {
			for _, name := range names {
				w.rcpt(name)
			}
			time.Sleep(10 * time.Second)
		}
		w.wantAction("bad.test", RecipientRefuse)
		w.wantAction("two.test", RecipientPass) // its second host does not answer
		w.wantAction("null.test", RecipientPass)
		w.wantAction("lost.test", RecipientPass)
		// The partner reboots: connections are refused.
		m.show("mx.bad.test", ReachUnknown)
		time.Sleep(15 * time.Minute)
		w.wantAction("bad.test", RecipientPass)
		m.show("mx2.two.test", ReachNegative)
		m.show("mx.bad.test", ReachNegative)
		time.Sleep(30 * time.Minute)
		w.wantAction("two.test", RecipientRefuse)
		// Nobody answers for the MX records any more.
		w.dns.Set("servfail bad.test MX")
		time.Sleep(61 * time.Minute)
		w.rcpt("bad.test")
		time.Sleep(time.Minute)
		w.wantAction("bad.test", RecipientPass)
	})
}

// TestRecipientMXMoves: a partner that moves to other mail hosts is looked at anew with
// the next recipient, as soon as the records have had their time.
func TestRecipientMXMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, nil, unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
		defer w.stop()
		w.dns.Set("bad.test 60 MX 10 mx.bad.test")
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		m.show("mx2.two.test", ReachPositive)
		w.rcpt("good.test")
		w.rcpt("bad.test")
		time.Sleep(time.Second)
		w.wantAction("bad.test", RecipientDefer)
		w.dns.Set("bad.test 60 MX 10 mx2.two.test")
		time.Sleep(61 * time.Second)
		w.rcpt("bad.test")
		time.Sleep(time.Second)
		w.wantAction("bad.test", RecipientPass)
		if !slices.Contains(m.asked(), "mx2.two.test") {
			t.Error("the new host was not probed")
		}
	})
}

// TestRecipientMXRule: an mx: rule is found by the mail hosts; a monitored rule holds
// back; a rule that is gone, or new, counts at once.
func TestRecipientMXRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		monitored := unreachableRule(UnreachableDefer, 0, "two.test")
		monitored.Monitor = true
		w, m := watchWorld(t, watchZone, nil, monitored, unreachableRule(UnreachableDefer, 0, "good.test", "mx:*.bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		m.show("mx2.two.test", ReachNegative)
		for _, name := range []string{"good.test", "bad.test", "two.test"} {
			w.rcpt(name)
		}
		time.Sleep(10 * time.Second)
		w.wantAction("bad.test", RecipientDefer)
		w.wantAction("two.test", RecipientDefer) // by the second rule, of which it has one host
		rs, _ := NewRules([]Rule{monitored, unreachableRule(UnreachableDefer, 0, "good.test")})
		w.engine.Configure(Settings{Rules: rs, STS: ModeOff, DANE: ModeOff}, Postfix{})
		w.wantAction("bad.test", RecipientPass)
		if v := w.rcpt("two.test"); v.Action != RecipientPass || v.Withheld != RecipientDefer || v.Doubt != doubtMonitored {
			t.Errorf("monitored: %+v", v)
		}
		rs, _ = NewRules([]Rule{unreachableRule(UnreachableDefer, 0, "bad.test", "good.test")})
		w.engine.Configure(Settings{Rules: rs, STS: ModeOff, DANE: ModeOff}, Postfix{})
		w.rcpt("bad.test")
		time.Sleep(time.Second)
		w.wantAction("bad.test", RecipientDefer)
	})
}

// TestRecipientRerouted: a relayhost that was set a moment ago refuses nobody, and one
// that was taken out does so without delay.
func TestRecipientRerouted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var relayed atomic.Bool
		w, m := watchWorld(t, watchZone, func(c *Config) {
			c.Route = func(context.Context, string) (string, string) {
				time.Sleep(time.Second) // postmap
				if relayed.Load() {
					return "relayhost = [smart.test]", ""
				}
				return "", ""
			}
		}, unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		settle := func() {
			w.rcpt("good.test")
			w.rcpt("bad.test")
			time.Sleep(time.Minute)
		}
		settle()
		w.wantAction("bad.test", RecipientDefer)
		relayed.Store(true)
		w.engine.Rerouted()
		w.wantAction("bad.test", RecipientPass)
		settle()
		if v := w.rcpt("bad.test"); v.Doubt != "rules do not bind: relayhost = [smart.test]" {
			t.Errorf("%+v", v)
		}
		relayed.Store(false)
		w.engine.Rerouted()
		settle()
		w.wantAction("bad.test", RecipientDefer)
	})
}

// TestReroutedDuringALook: what Postfix does with the mail becomes known again without
// another recipient, as when the daemon has just begun to read Postfix's configuration.
func TestReroutedDuringALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, func(c *Config) {
			c.Route = func(context.Context, string) (string, string) {
				time.Sleep(time.Second) // postmap
				return "", ""
			}
		}, unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		w.rcpt("good.test")
		w.rcpt("bad.test")
		time.Sleep(500 * time.Millisecond)
		w.engine.Rerouted()
		time.Sleep(time.Minute)
		if got := m.asked(); !slices.Contains(got, "mx.bad.test") {
			t.Errorf("probed %v", got)
		}
		w.wantAction("bad.test", RecipientDefer)
	})
}

// TestRecipientSender: the rule for a sender binds any destination, by itself.
func TestRecipientSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		payroll := unreachableRule(UnreachableDefer, 0, "unused.test")
		payroll.Match, payroll.Sender = nil, []string{"@payroll.test"}
		w, m := watchWorld(t, watchZone, nil, payroll, unreachableRule(UnreachableDefer, 0, "good.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		ask := func(from string) RecipientVerdict {
			return w.engine.Recipient([]byte(from), []byte("bad.test"), time.Now())
		}
		w.rcpt("good.test")
		ask("a@other.test")
		time.Sleep(time.Second)
		if got := m.asked(); slices.Contains(got, "mx.bad.test") {
			t.Errorf("probed for a sender without a rule: %v", got)
		}
		ask("a@payroll.test")
		time.Sleep(time.Second)
		if v := ask("a@payroll.test"); v.Action != RecipientDefer || v.Rule == nil || v.Rule.Sender == nil {
			t.Errorf("%+v", v)
		}
		for _, from := range []string{"a@other.test", ""} {
			if v := ask(from); v.Action != RecipientPass {
				t.Errorf("%q: %+v", from, v)
			}
		}
	})
}

// TestRecipientUnbound: where Postfix hands the mail to somebody else, rules do not
// bind: nobody is probed or refused.
func TestRecipientUnbound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const why = "relayhost = [smart.test]"
		var relayed atomic.Bool
		relayed.Store(true)
		w, m := watchWorld(t, watchZone, func(c *Config) {
			c.Route = func(context.Context, string) (string, string) {
				if relayed.Load() {
					return why, ""
				}
				return "", ""
			}
		}, unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		w.rcpt("good.test")
		w.rcpt("bad.test")
		time.Sleep(time.Minute)
		if v := w.rcpt("bad.test"); v.Action != RecipientPass || v.Doubt != "rules do not bind: "+why {
			t.Errorf("%+v", v)
		}
		if got := m.asked(); len(got) > 0 {
			t.Errorf("probed %v", got)
		}
		relayed.Store(false)
		time.Sleep(routeLasts)
		w.rcpt("good.test")
		w.rcpt("bad.test")
		time.Sleep(time.Minute)
		w.wantAction("bad.test", RecipientDefer)
	})
}

// TestAddressesUnknown: nobody is refused while the DNS is silent about a part of the
// mail hosts' addresses; those may be good.
func TestAddressesUnknown(t *testing.T) {
	for _, mode := range []Mode{ModeOff, ModeEnforce} { // DANE asks for addresses too
		synctest.Test(t, func(t *testing.T) {
			zone := strings.Replace(watchZone, "nodata mx.bad.test 3600 AAAA", "servfail mx.bad.test AAAA", 1)
			w, m := watchWorld(t, zone, func(c *Config) { c.Settings.DANE = mode }, unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
			defer w.stop()
			m.show("mx.good.test", ReachPositive)
			m.show("mx.bad.test", ReachNegative)
			for range 3 {
				w.rcpt("good.test")
				w.rcpt("bad.test")
				time.Sleep(time.Minute)
			}
			w.wantAction("bad.test", RecipientPass)
			w.dns.Set("nodata mx.bad.test 3600 AAAA")
			time.Sleep(time.Hour)
			w.rcpt("bad.test")
			time.Sleep(time.Second)
			w.wantAction("bad.test", RecipientDefer)
		})
	}
}

// TestRouteInDoubt: while it cannot be seen where Postfix hands the mail nobody is
// refused, but mail hosts are looked at all the same.
func TestRouteInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const why = "transport_maps cannot be read"
		var doubtful atomic.Bool
		doubtful.Store(true)
		w, m := watchWorld(t, watchZone, func(c *Config) {
			c.Route = func(context.Context, string) (string, string) {
				if doubtful.Load() {
					return "", why
				}
				return "", ""
			}
		}, unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		w.rcpt("good.test")
		w.rcpt("bad.test")
		time.Sleep(time.Second)
		if v := w.rcpt("bad.test"); v.Action != RecipientPass || v.Doubt != why || v.Seen == "" {
			t.Errorf("%+v", v)
		}
		doubtful.Store(false)
		time.Sleep(routeDoubt)
		w.rcpt("bad.test")
		time.Sleep(time.Second)
		w.wantAction("bad.test", RecipientDefer)
	})
}

// TestWatchConcerns: of a destination that an mx: rule turns out not to be for, nothing
// is asked but its mail exchangers.
func TestWatchConcerns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var routed []string
		w, m := watchWorld(t, watchZone, func(c *Config) {
			c.Route = func(_ context.Context, domain string) (string, string) {
				routed = append(routed, domain)
				return "", ""
			}
		}, unreachableRule(UnreachableDefer, 0, "mx:mx.bad.test"))
		defer w.stop()
		w.rcpt("good.test")
		time.Sleep(time.Minute)
		if asked := w.dns.Asked(); len(routed) > 0 || slices.ContainsFunc(asked, func(q string) bool { return strings.Contains(q, "mx.good.test") }) {
			t.Errorf("asked %q, routes of %q", asked, routed)
		}
		m.show("mx.bad.test", ReachNegative)
		w.rcpt("bad.test")
		time.Sleep(time.Minute)
		if got := m.asked(); !slices.Contains(got, "mx.bad.test") || !slices.Equal(routed, []string{"bad.test"}) {
			t.Errorf("probed %q, routes of %q", got, routed)
		}
	})
}

// TestWatchTidy: a flood of destinations does not stay in the queue when the set of
// those watched has let them go.
func TestWatchTidy(t *testing.T) {
	var w watch
	w.init()
	now := time.Now()
	stays := &watched{key: "stays.test"}
	w.all.LoadOrStore(stays.key, func() *watched { return stays })
	w.schedule(stays, now.Add(time.Hour))
	w.schedule(stays, now) // the first turn is void
	for i := range maxTurns {
		w.schedule(&watched{key: fmt.Sprintf("d%d.test", i)}, now.Add(time.Duration(i+1)))
	}
	if evicted := w.tidy(); len(evicted) != maxTurns || !evicted[0].gone || len(w.queue) != 1 {
		t.Errorf("%d evicted, %d left", len(evicted), len(w.queue))
	}
	if d, _ := w.take(now); d != stays {
		t.Errorf("due: %v", d)
	}
}

// TestWatchOfOtherRules: a destination that is watched for a sender's sake is so for the
// rule as it stands after a reload, and for none that is gone.
func TestWatchOfOtherRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		class := func(source string, senders ...string) Rule {
			r := unreachableRule(UnreachableDefer, 0, source)
			r.Match, r.Sender = nil, senders
			return r
		}
		var seen observed
		w, m := watchWorld(t, watchZone, func(c *Config) { c.Observer = &seen }, class("old.test", "@payroll.test"))
		defer w.stop()
		m.show("mx.bad.test", ReachNegative)
		w.engine.Recipient([]byte("a@payroll.test"), []byte("bad.test"), time.Now())
		time.Sleep(time.Minute)
		reload := func(rules ...Rule) []string {
			rs, err := NewRules(rules)
			if err != nil {
				t.Fatal(err)
			}
			w.engine.Configure(Settings{Rules: rs, STS: ModeOff, DANE: ModeOff}, Postfix{})
			time.Sleep(30 * time.Minute)
			seen.mu.Lock()
			defer seen.mu.Unlock()
			told := slices.Compact(seen.told)
			seen.told = nil
			return told
		}
		if got := reload(class("first.test", "@law.test"), class("new.test", "@payroll.test")); !slices.Contains(got, "reached bad.test test:new.test negative") {
			t.Errorf("as it stands now: %q", got)
		}
		if got := reload(class("first.test", "@law.test")); len(got) > 0 {
			t.Errorf("a rule that is gone: %q", got)
		}
		w.wantAlarms(AlarmPath, 0)
	})
}

// TestAlarmOfARuleThatIsGone: a reload without the rule ends the alarms about its
// destinations.
func TestAlarmOfARuleThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, func(c *Config) {
			c.Secured = func(string) time.Time { return time.Now().Add(-time.Hour) }
		}, unreachableRule(UnreachableDefer, 0, "bad.test", "good.test"))
		defer w.stop()
		m.show("mx.bad.test", ReachNegative)
		m.show("mx.good.test", ReachPositive)
		w.rcpt("good.test")
		w.rcpt("bad.test")
		time.Sleep(time.Minute)
		w.wantAlarms(AlarmTLSLost, 1)
		w.engine.Configure(Settings{STS: ModeOff, DANE: ModeOff}, Postfix{})
		time.Sleep(time.Second)
		w.wantAlarms(AlarmTLSLost, 0)
	})
}
