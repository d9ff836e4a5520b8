package policy

import (
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// TestPOL03_Judge is the truth table: what stands is refused only for a rule that
// says so, on evidence that is complete, young and not our own fault.
func TestPOL03_Judge(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	rule := func(u Unreachable, level tlspolicy.Level, after time.Duration) *Rule {
		return &Rule{Line: tlspolicy.Line{Level: level}, Unreachable: u, RefuseAfter: after}
	}
	refuse, deferring := rule(UnreachableRefuse, tlspolicy.Encrypt, time.Hour), rule(UnreachableDefer, tlspolicy.Encrypt, 0)
	atOnce := rule(UnreachableRefuse, tlspolicy.Secure, 0)
	monitored := rule(UnreachableRefuse, tlspolicy.Encrypt, 0)
	monitored.Monitor = true
	negative := func(first, last, other time.Duration) Standing {
		return Standing{Verdict: ReachNegative, FirstNegative: ago(first), LastNegative: ago(last), OtherPositive: ago(other)}
	}
	for _, c := range []struct {
		what     string
		rule     *Rule
		standing Standing
		action   RecipientAction
		doubt    string
		withheld RecipientAction
	}{
		{"no rule", nil, negative(2*time.Hour, time.Minute, time.Minute), RecipientPass, "", 0},
		{"queue", rule(UnreachableQueue, tlspolicy.Encrypt, 0), negative(2*time.Hour, time.Minute, time.Minute), RecipientPass, "", 0},
		{"a rule that demands nothing", rule(UnreachableRefuse, tlspolicy.May, 0), negative(2*time.Hour, time.Minute, time.Minute), RecipientPass, "", 0},
		{"nothing known", refuse, Standing{}, RecipientPass, "", 0},
		{"positive", refuse, Standing{Verdict: ReachPositive, LastSecured: now, OtherPositive: now}, RecipientPass, "", 0},
		{"defer", deferring, negative(0, 0, 0), RecipientDefer, "", 0},
		{"defer for ever", deferring, negative(90*24*time.Hour, time.Minute, time.Minute), RecipientDefer, "", 0},
		{"30 minutes", deferring, negative(time.Hour, 30*time.Minute, time.Minute), RecipientDefer, "", 0},
		{"older than 30 minutes", deferring, negative(time.Hour, 30*time.Minute+1, time.Minute), RecipientPass, doubtOld, 0},
		{"other an hour ago", deferring, negative(time.Hour, time.Minute, time.Hour), RecipientDefer, "", 0},
		{"other more than an hour ago", deferring, negative(time.Hour, time.Minute, time.Hour+1), RecipientPass, doubtPath, 0},
		{"no other", deferring, Standing{Verdict: ReachNegative, FirstNegative: ago(time.Hour), LastNegative: ago(time.Minute)}, RecipientPass, doubtPath, 0},
		{"refuse, not yet", refuse, negative(time.Hour-1, time.Minute, time.Minute), RecipientDefer, "", 0},
		{"refuse", refuse, negative(time.Hour, time.Minute, time.Minute), RecipientRefuse, "", 0},
		{"refuse at once, one probe", atOnce, negative(time.Minute, time.Minute, 0), RecipientDefer, "", 0},
		{"refuse at once, two probes", atOnce, negative(time.Minute, time.Second, 0), RecipientRefuse, "", 0},
		{"refuse, old", refuse, negative(2*time.Hour, 31*time.Minute, 0), RecipientPass, doubtOld, 0},
		{"monitored, one probe", monitored, negative(time.Minute, time.Minute, 0), RecipientPass, doubtMonitored, RecipientDefer},
		{"monitored", monitored, negative(time.Minute, 0, 0), RecipientPass, doubtMonitored, RecipientRefuse},
		{"monitored, own path", monitored, negative(time.Minute, 0, 2*time.Hour), RecipientPass, doubtPath, 0},
	} {
		v := judge(c.rule, &c.standing, now)
		if v.Action != c.action || v.Doubt != c.doubt || v.Withheld != c.withheld {
			t.Errorf("%s: %s, withheld %s, doubt %q; want %s, %s, %q", c.what, v.Action, v.Withheld, v.Doubt, c.action, c.withheld, c.doubt)
		}
		if (v.Rule != nil) != c.rule.watched() {
			t.Errorf("%s: the rule is %v", c.what, v.Rule)
		}
	}
}

// TestSTS097_JudgeAfterSleep: what was seen before the machine slept, or before the clock
// was set back, is as old as the clock that says more.
func TestSTS097_JudgeAfterSleep(t *testing.T) {
	r := &Rule{Line: tlspolicy.Line{Level: tlspolicy.Encrypt}, Unreachable: UnreachableDefer}
	now := time.Now()
	for _, c := range []struct {
		what         string
		wall, steady time.Duration // ago
		doubt        bool
	}{
		{"awake", 10 * time.Minute, 10 * time.Minute, false},
		{"slept", 8 * time.Hour, 10 * time.Minute, true},
		{"set back", 10 * time.Minute, 8 * time.Hour, true},
	} {
		at := clocksApart(now, c.wall, c.steady)
		s := Standing{Verdict: ReachNegative, FirstNegative: at, LastNegative: at, OtherPositive: now}
		if v := judge(r, &s, now); (v.Doubt == doubtOld) != c.doubt {
			t.Errorf("%s: doubt %q", c.what, v.Doubt)
		}
		s = Standing{Verdict: ReachNegative, FirstNegative: now, LastNegative: now, OtherPositive: at}
		if v := judge(r, &s, now); (v.Doubt == doubtPath) != c.doubt {
			t.Errorf("%s: doubt %q about our own path", c.what, v.Doubt)
		}
	}
}

// clocksApart is a time that the wall clock and the monotonic clock count apart from now.
func clocksApart(now time.Time, wall, steady time.Duration) time.Time {
	t := now.Add(-wall)
	(*struct { // time.Time
		wall uint64
		ext  int64 // nanoseconds of the monotonic clock
		loc  *time.Location
	})(unsafe.Pointer(&t)).ext += int64(wall - steady)
	return t
}

// TestAnotherAt: a rule that refuses gets its second probe when refuse_after ends, and
// never just after the first.
func TestAnotherAt(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		what        string
		u           Unreachable
		after       time.Duration
		first, last time.Duration // after now
		want        time.Duration // after now; -1: none
	}{
		{"defer", UnreachableDefer, 0, 0, 0, -1},
		{"at once", UnreachableRefuse, 0, 0, 0, time.Second},
		{"at once, another was", UnreachableRefuse, 0, 0, 2 * time.Second, -1},
		{"five seconds", UnreachableRefuse, 5 * time.Second, 0, 0, 5 * time.Second},
		{"five seconds, another too early", UnreachableRefuse, 5 * time.Second, 0, 3 * time.Second, 5 * time.Second},
		{"five seconds, just before", UnreachableRefuse, 5 * time.Second, 0, 4900 * time.Millisecond, 5900 * time.Millisecond},
		{"five seconds, over", UnreachableRefuse, 5 * time.Second, 0, 5 * time.Second, -1},
		{"an hour", UnreachableRefuse, time.Hour, 0, 40 * time.Minute, time.Hour},
	} {
		s := Standing{Verdict: ReachNegative, FirstNegative: now.Add(c.first), LastNegative: now.Add(c.last)}
		at := anotherAt(&Rule{Unreachable: c.u, RefuseAfter: c.after}, &s)
		if want := now.Add(c.want); c.want < 0 && !at.IsZero() || c.want >= 0 && !at.Equal(want) {
			t.Errorf("%s: at %s", c.what, at.Sub(now))
		}
	}
	if at := anotherAt(&Rule{Unreachable: UnreachableRefuse}, &Standing{}); !at.IsZero() {
		t.Errorf("without evidence: %s", at)
	}
}

// TestSeen: one printable line that names a host, within its bound whatever hosts say.
func TestSeen(t *testing.T) {
	host := HostReach{Host: "mx.ex.test", Address: "192.0.2.1", Text: "TLS is required, but was not offered by host mx.ex.test[192.0.2.1]"}
	bad := HostReach{Host: "mx.ex.test", Address: "192.0.2.1", Text: "Server certificate not verified", Cause: "num=62:hostname mismatch"}
	other := HostReach{Host: "mx.ex.test", Address: "192.0.2.1", Level: "fingerprint", Text: "Server certificate not verified", Cause: "num=65:no matching DANE TLSA records"}
	long := HostReach{Host: strings.Repeat("a", 63) + ".test", Text: strings.Repeat("\r\né", 200)}
	for _, c := range []struct {
		s    Standing
		want string
	}{
		{Standing{Hosts: []HostReach{host}}, ""},
		{Standing{Verdict: ReachNegative}, ""},
		{Standing{Verdict: ReachNegative, Hosts: []HostReach{host}}, host.Text},
		{Standing{Verdict: ReachNegative, Hosts: []HostReach{other}}, "mx.ex.test[192.0.2.1]: Server certificate not verified: it is not the certificate that was agreed upon"},
		{Standing{Verdict: ReachNegative, Hosts: []HostReach{bad, host}}, "mx.ex.test[192.0.2.1]: Server certificate not verified: hostname mismatch (first of 2 mail hosts)"},
	} {
		if got := seen(&c.s); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	got := seen(&Standing{Verdict: ReachNegative, Hosts: []HostReach{long, host, bad}})
	if len(got) > maxSeen || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) || !strings.HasSuffix(got, "(first of 3 mail hosts)") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// TestStronger: of two rules the one that says more counts.
func TestStronger(t *testing.T) {
	a, b := &Rule{Source: "a"}, &Rule{Source: "b"}
	for _, c := range []struct {
		first, second RecipientVerdict
		want          *Rule
	}{
		{RecipientVerdict{}, RecipientVerdict{Rule: b}, b},
		{RecipientVerdict{Rule: a}, RecipientVerdict{Rule: b}, a},
		{RecipientVerdict{Rule: a}, RecipientVerdict{Rule: b, Doubt: doubtPath}, b},
		{RecipientVerdict{Rule: a, Action: RecipientDefer}, RecipientVerdict{Rule: b, Action: RecipientRefuse}, b},
		{RecipientVerdict{Rule: a, Action: RecipientDefer}, RecipientVerdict{Rule: b, Doubt: doubtPath}, a},
		{RecipientVerdict{Rule: a, Action: RecipientRefuse}, RecipientVerdict{Rule: b, Action: RecipientDefer}, a},
	} {
		if got := stronger(c.first, c.second); got.Rule != c.want {
			t.Errorf("%+v and %+v: %+v", c.first, c.second, got)
		}
	}
}
