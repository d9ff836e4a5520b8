package policy

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// logBook is a log to read.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns the lines about alarms since the last call.
func (l *logBook) take() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, "alarm=") {
			lines = append(lines, line)
		}
	}
	l.text.Reset()
	return lines
}

func (l *logBook) logger(c *Config) { c.Logger = slog.New(slog.NewTextHandler(l, nil)) }

func (w *world) wantAlarms(kind AlarmKind, want float64) {
	w.t.Helper()
	if got := testutil.ToFloat64(w.engine.metrics.alarms.WithLabelValues(string(kind))); got != want {
		w.t.Errorf("%v alarms %s, want %v", got, kind, want)
	}
}

// TestOwnPath_Stripped: when everybody loses TLS at once nobody is refused, not even
// while the good results of a moment ago are young.
func TestOwnPath_Stripped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		w, m := watchWorld(t, watchZone, book.logger, unreachableRule(UnreachableRefuse, 0, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachPositive)
		w.rcpt("good.test")
		time.Sleep(time.Minute)
		m.strip = "XXXXXXXA"
		m.show("mx.good.test", ReachNegative)
		m.show("mx.bad.test", ReachNegative)
		for range 8 * 60 {
			for _, name := range []string{"bad.test", "good.test"} {
				if v := w.rcpt(name); v.Action != RecipientPass {
					t.Fatalf("%s: %+v", name, v)
				}
			}
			time.Sleep(time.Minute)
		}
		w.wantAlarms(AlarmPath, 2)
		w.wantAlarms(AlarmTLSLost, 1) // only one was ever seen with TLS
		if v := w.rcpt("bad.test"); v.Doubt != doubtPath || v.Seen == "" {
			t.Errorf("%+v", v)
		}
		lines := book.take()
		if text := strings.Join(lines, ""); !strings.Contains(text, "[reach] reference") || !strings.Contains(text, "seems to strip STARTTLS") {
			t.Errorf("%s", text)
		}
		// The box is gone, but one partner has no TLS indeed.
		m.show("mx.good.test", ReachPositive)
		time.Sleep(30 * time.Minute)
		w.rcpt("good.test")
		time.Sleep(time.Minute)
		w.wantAction("bad.test", RecipientRefuse)
		w.wantAction("good.test", RecipientPass)
		w.wantAlarms(AlarmPath, 0)
		w.wantAlarms(AlarmTLSLost, 0)
	})
}

// TestOwnPath_NoOther: a single partner without TLS proves nothing, until another is
// seen with TLS; that counts at once.
func TestOwnPath_NoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, nil, unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		w.rcpt("bad.test")
		time.Sleep(time.Second)
		if v := w.rcpt("bad.test"); v.Action != RecipientPass || v.Doubt != doubtPath {
			t.Errorf("%+v", v)
		}
		w.wantAlarms(AlarmPath, 0) // there was hardly time to see anybody
		time.Sleep(suspectAfter)
		w.wantAlarms(AlarmPath, 1)
		time.Sleep(10 * time.Minute)
		w.wantAlarms(AlarmPath, 1)
		w.rcpt("good.test")
		time.Sleep(time.Second)
		w.wantAction("bad.test", RecipientDefer)
		w.wantAlarms(AlarmPath, 0)
		// A day without mail: what stood about it no longer matters.
		m.show("mx.good.test", ReachUnknown)
		time.Sleep(2 * time.Hour)
		w.rcpt("bad.test")
		w.wantAlarms(AlarmPath, 1)
		time.Sleep(26 * time.Hour)
		w.wantAlarms(AlarmPath, 0)
	})
}

// TestOwnPath_Reference: a reference is asked when there is nobody else, and only then.
func TestOwnPath_Reference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, func(c *Config) { c.Settings.References = []string{"bad.test", "reference.test"} },
			unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		m.show("mx.reference.test", ReachPositive)
		w.rcpt("good.test")
		time.Sleep(time.Minute)
		if got := m.asked(); slices.Contains(got, "mx.reference.test") {
			t.Errorf("asked without need: %v", got)
		}
		m.show("mx.good.test", ReachUnknown)
		time.Sleep(2 * time.Hour) // what was good is too old
		for range 200 {
			w.rcpt("bad.test")
			time.Sleep(time.Minute)
		}
		w.wantAction("bad.test", RecipientDefer)
		count := 0
		for _, h := range m.asked() {
			if h == "mx.reference.test" {
				count++
			}
		}
		if count < 2 || count > 8 {
			t.Errorf("the reference was asked %d times in 200 minutes", count)
		}
	})
}

// TestOwnPath_Remembered: after a restart those that offered TLS before it are asked for
// a proof, as long as a rule has them probed, and before the references.
func TestOwnPath_Remembered(t *testing.T) {
	for _, tt := range []struct {
		remembered string
		shows      ReachVerdict
		want       RecipientAction
	}{
		{"good.test", ReachPositive, RecipientDefer},
		{"good.test", ReachNegative, RecipientPass},
		{"two.test", ReachPositive, RecipientPass}, // nobody probes for its rule any more
		{"bad.test", ReachPositive, RecipientPass}, // nobody is his own witness
	} {
		synctest.Test(t, func(t *testing.T) {
			w, m := watchWorld(t, watchZone, func(c *Config) { c.Witnesses = func() []string { return []string{tt.remembered} } },
				unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"), unreachableRule(UnreachableQueue, 0, "two.test"))
			defer w.stop()
			m.show("mx.good.test", tt.shows)
			m.show("mx2.two.test", ReachPositive)
			m.show("mx.bad.test", ReachNegative)
			w.rcpt("bad.test")
			time.Sleep(10 * time.Second)
			w.wantAction("bad.test", tt.want)
			if got := m.asked(); slices.Contains(got, "mx2.two.test") {
				t.Errorf("asked although its rule says queue: %v", got)
			}
		})
	}
}

// TestOwnPath_RememberedSilent: those that are remembered and do not answer leave room
// for the reference.
func TestOwnPath_RememberedSilent(t *testing.T) {
	zone, silent := watchZone, []string{"s1.test", "s2.test", "s3.test", "s4.test"}
	for i, name := range silent {
		zone += fmt.Sprintf("%[1]s 3600 MX 10 mx.%[1]s\nmx.%[1]s 3600 A 192.0.2.2%[2]d\nnodata mx.%[1]s 3600 AAAA\n", name, i)
	}
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, zone, func(c *Config) {
			c.Witnesses = func() []string { return silent }
			c.Settings.References = []string{"reference.test"}
		}, unreachableRule(UnreachableDefer, 0, append(silent, "bad.test")...))
		defer w.stop()
		m.show("mx.bad.test", ReachNegative)
		m.show("mx.reference.test", ReachPositive)
		w.rcpt("bad.test")
		time.Sleep(10 * time.Second)
		w.wantAction("bad.test", RecipientDefer)
	})
}

// TestAlarmTLSLost: a partner that loses TLS is told once, also when it had it before
// this process began, and again that it is over.
func TestAlarmTLSLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book logBook
		w, m := watchWorld(t, watchZone, func(c *Config) {
			book.logger(c)
			c.Secured = func(destination string) time.Time {
				if destination == "bad.test" {
					return time.Now().Add(-time.Hour)
				}
				return time.Time{}
			}
		}, unreachableRule(UnreachableRefuse, time.Hour, "good.test", "bad.test", "two.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		m.show("mx2.two.test", ReachNegative)
		for _, name := range []string{"good.test", "bad.test", "two.test"} {
			w.rcpt(name)
		}
		time.Sleep(time.Hour)
		w.wantAlarms(AlarmTLSLost, 1)
		lines := book.take()
		if len(lines) != 1 || !strings.Contains(lines[0], "subject=bad.test") || !strings.Contains(lines[0], "not offered by host mx.bad.test") {
			t.Errorf("%q", lines)
		}
		m.show("mx.bad.test", ReachUnknown)
		time.Sleep(15 * time.Minute)
		w.wantAlarms(AlarmTLSLost, 1) // nobody knows
		m.show("mx.bad.test", ReachPositive)
		time.Sleep(15 * time.Minute)
		w.wantAlarms(AlarmTLSLost, 0)
		// A rule that is gone takes its alarms along.
		m.show("mx.bad.test", ReachNegative)
		m.forget()
		for range 2 {
			time.Sleep(7 * time.Hour)
			w.rcpt("bad.test")
		}
		time.Sleep(time.Minute)
		w.wantAlarms(AlarmTLSLost, 2) // the host was one of two.test's as well
		w.engine.Configure(Settings{STS: ModeOff, DANE: ModeOff}, Postfix{})
		time.Sleep(time.Second)
		w.wantAlarms(AlarmTLSLost, 0)
	})
}

// TestAlarmCertificate: under a rule that looks at certificates, one that ends within 14 days.
func TestAlarmCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secure := unreachableRule(UnreachableRefuse, 0, "bad.test")
		secure.Line.Level = tlspolicy.Secure
		w, m := watchWorld(t, watchZone, nil, secure, unreachableRule(UnreachableRefuse, 0, "good.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachPositive)
		end := time.Now().Add(certificateAhead + 12*time.Hour)
		m.expire = map[string]time.Time{"mx.good.test": end, "mx.bad.test": end}
		for range 30 {
			w.rcpt("good.test")
			w.rcpt("bad.test")
			time.Sleep(10 * time.Minute)
		}
		w.wantAlarms(AlarmCertificate, 0)
		time.Sleep(20 * time.Hour)
		w.wantAlarms(AlarmCertificate, 1)
		m.mu.Lock()
		m.expire = nil
		m.mu.Unlock()
		w.rcpt("bad.test")
		time.Sleep(8 * time.Hour)
		w.wantAlarms(AlarmCertificate, 0)
	})
}

// TestAlarmCertificateStands: a host that does not answer has no new certificate.
func TestAlarmCertificateStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secure := unreachableRule(UnreachableRefuse, 0, "good.test")
		secure.Line.Level = tlspolicy.Secure
		w, m := watchWorld(t, watchZone, nil, secure)
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.expire = map[string]time.Time{"mx.good.test": time.Now().Add(48 * time.Hour)}
		w.rcpt("good.test")
		time.Sleep(time.Minute)
		w.wantAlarms(AlarmCertificate, 1)
		m.show("mx.good.test", ReachUnknown)
		time.Sleep(7 * time.Hour)
		w.wantAlarms(AlarmCertificate, 1)
	})
}

// TestObserver: what is answered for destinations under rules that demand TLS, and what
// their hosts showed.
func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen observed
		w, m := watchWorld(t, watchZone, func(c *Config) { c.Observer = &seen },
			unreachableRule(UnreachableQueue, 0, "two.test"), unreachableRule(UnreachableRefuse, 0, "good.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		w.ask("two.test")
		w.ask("null.test")
		w.rcpt("good.test")
		time.Sleep(time.Second)
		seen.mu.Lock()
		defer seen.mu.Unlock()
		slices.Sort(seen.told)
		if want := []string{"answered good.test test:good.test encrypt", "answered two.test test:two.test encrypt", "reached good.test test:good.test positive"}; !slices.Equal(seen.told, want) {
			t.Errorf("%q", seen.told)
		}
	})
}

// TestObserverIsToldAgain: evidence that a destination is asked for is at most an hour old.
func TestObserverIsToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen observed
		rule := unreachableRule(UnreachableQueue, 0, "good.test")
		rule.Line.Level = tlspolicy.Secure // which rests on no look-up
		w, _ := watchWorld(t, watchZone, func(c *Config) { c.Observer = &seen }, rule)
		defer w.stop()
		for range 36 {
			w.ask("good.test")
			time.Sleep(5 * time.Minute)
		}
		seen.mu.Lock()
		defer seen.mu.Unlock()
		if n := len(seen.told); n < 3 || n > 5 {
			t.Errorf("told %d times in three hours", n)
		}
	})
}

type observed struct {
	mu   sync.Mutex
	told []string
}

func (o *observed) Answered(destination string, r *Rule, level string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told = append(o.told, "answered "+destination+" "+r.Source+" "+level)
}

func (o *observed) Reached(destination string, r *Rule, s Standing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told = append(o.told, "reached "+destination+" "+r.Source+" "+s.Verdict.String())
}

// TestOwnPath_WitnessWhileRoutesChange: that routes are being found out anew takes no
// witness away, although nobody asks for its destination.
func TestOwnPath_WitnessWhileRoutesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m := watchWorld(t, watchZone, func(c *Config) {
			c.Route = func(context.Context, string) (unbound, doubt string) { return "", "" }
		}, unreachableRule(UnreachableDefer, 0, "good.test", "bad.test"))
		defer w.stop()
		m.show("mx.good.test", ReachPositive)
		m.show("mx.bad.test", ReachNegative)
		w.rcpt("good.test")
		time.Sleep(time.Second)
		w.engine.Rerouted()
		time.Sleep(time.Second)
		w.rcpt("bad.test")
		time.Sleep(time.Second)
		w.wantAction("bad.test", RecipientDefer)
	})
}

// TestOwnPath_EachItsOwn: a destination that has no witness of its own, because it shares
// the only good host, keeps no other one from having it.
func TestOwnPath_EachItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := strings.Replace(watchZone, "mx2.two.test 3600 A 192.0.2.3", "mx2.two.test 3600 A 192.0.2.1", 1)
		w, m := watchWorld(t, strings.ReplaceAll(shared, "two.test 3600 MX 10 mx.bad.test\n", ""), nil,
			unreachableRule(UnreachableDefer, 0, "good.test", "bad.test", "two.test"))
		defer w.stop()
		m.show("mx.good.test", ReachUnknown)
		m.show("mx.bad.test", ReachNegative)
		m.show("mx2.two.test", ReachNegative) // at the address of mx.good.test
		w.rcpt("two.test")
		w.rcpt("good.test")
		time.Sleep(time.Minute)
		m.show("mx.good.test", ReachPositive)
		time.Sleep(10 * time.Minute)
		for range 20 {
			w.rcpt("bad.test")
			time.Sleep(time.Second)
		}
		w.wantAction("bad.test", RecipientDefer)
		w.wantAction("two.test", RecipientPass)
	})
}
