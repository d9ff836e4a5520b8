package policy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// logged is a slog.Handler that keeps lines as "LEVEL message key=value …".
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l *logged) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *logged) WithGroup(string) slog.Handler                    { return l }

func (l *logged) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += fmt.Sprintf(" %s=%v", a.Key, a.Value); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

// take returns the lines with a word in them and forgets all.
func (l *logged) take(word string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.lines {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	l.lines = nil
	return found
}

func into(l *logged, r prometheus.Registerer) func(*Config) {
	return func(c *Config) { c.Logger, c.Registerer = slog.New(l), r }
}

func TestVerdictChangeIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logged{}
		w := start(t, signedZone, into(l, nil))
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		for range 100 {
			w.want("ex.test", secureReply)
		}
		if lines := l.take("verdict"); len(lines) != 0 {
			t.Errorf("the first verdict and cached answers logged %q", lines)
		}
		w.dns.Set("ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 " + strings.Repeat("ab", 32))
		time.Sleep(301 * time.Second)
		for range 100 {
			w.want("ex.test", "OK dane-only")
		}
		want := "INFO verdict changed destination=ex.test from=secure to=dane-only source=dane+sts row=D1 row_before=D0"
		if lines := l.take("verdict"); !slices.Equal(lines, []string{want}) {
			t.Errorf("logged %q", lines)
		}
		// Answers from half the evidence are not verdicts: nobody is told.
		w.dns.Set("hang ex.test MX\nhang n1.ex.test A\nhang _mta-sts.ex.test TXT")
		time.Sleep(301 * time.Second)
		for range 100 {
			w.ask("ex.test")
		}
		if lines := l.take("verdict"); len(lines) != 0 {
			t.Errorf("partial answers logged %q", lines)
		}
	})
}

func TestFloorChangeIsNotToldPerDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logged{}
		w := start(t, strings.ReplaceAll(signedZone, `ad _mta-sts.ex.test 300 TXT "v=STSv1; id=1"`, "ad nx _mta-sts.ex.test 3600 TXT"), into(l, nil))
		defer w.stop()
		w.want("ex.test", "NOTFOUND ")
		w.engine.Configure(Settings{Floor: FloorEncrypt}, Postfix{})
		w.want("ex.test", "OK encrypt")
		if lines := l.take("verdict"); len(lines) != 0 {
			t.Errorf("logged %q", lines)
		}
	})
}

func TestSTS092_RefreshFailureIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logged{}
		w := start(t, signedZone, into(l, nil))
		defer w.stop()
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "604800", "172800"))
		w.want("ex.test", secureReply)
		w.hosts.set("ex.test", "")
		l.take("")
		time.Sleep(24*time.Hour + time.Minute)
		lines := l.take("cannot be refreshed")
		if len(lines) == 0 || !strings.HasPrefix(lines[0], "WARN policy cannot be refreshed; the one held stays in force domain=ex.test mode=enforce days_left=1.") ||
			!strings.Contains(lines[0], "failures=1") || !strings.Contains(lines[0], "404 Not Found") {
			t.Errorf("logged %q", lines)
		}
		if len(lines) > 15 {
			t.Errorf("%d lines in six hours of failure", len(lines))
		}
	})
}

func TestOutboundBlockedIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := &logged{}, prometheus.NewPedanticRegistry()
		w := start(t, "", func(c *Config) { into(l, r)(c); c.Settings.Floor = FloorDANE })
		defer w.stop()
		w.hosts.refuse = true
		for i := range 100 {
			w.dns.Set(fmt.Sprintf(`_mta-sts.d%d.test 300 TXT "v=STSv1; id=1"`, i))
			w.want(fmt.Sprintf("d%d.test", i), "OK dane")
		}
		if lines := l.take("fetch"); len(lines) != blockedAfter || !strings.Contains(strings.Join(lines, "\n"), "is port 443 outward blocked?") {
			t.Errorf("%d lines: %q", len(lines), lines)
		}
		if got := scrape(t, r, "postseal_policy_fetches_blocked"); got != 1 {
			t.Errorf("blocked %v", got)
		}
		w.hosts.mu.Lock()
		w.hosts.refuse = false
		w.hosts.mu.Unlock()
		w.dns.Set(`_mta-sts.new.test 300 TXT "v=STSv1; id=1"`)
		w.want("new.test", "OK dane") // a 404 comes over port 443 too
		if got := scrape(t, r, "postseal_policy_fetches_blocked"); got != 0 {
			t.Errorf("blocked %v after an answer", got)
		}
		if lines := l.take("fetched again"); len(lines) != 1 {
			t.Errorf("logged %q", lines)
		}
	})
}

func TestCMB12_MismatchIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := &logged{}, prometheus.NewPedanticRegistry()
		w := start(t, signedZone, into(l, r))
		defer w.stop()
		w.hosts.set("ex.test", otherBody)
		for range 4 {
			w.want("ex.test", otherReply)
			time.Sleep(5 * time.Minute)
		}
		want := "WARN sts_mx_mismatch: the enforced policy names none of the mail hosts destination=ex.test mx=[n1.ex.test] policy=[other.ex.test]"
		if lines := l.take("sts_mx_mismatch"); !slices.Equal(lines, []string{want}) {
			t.Errorf("logged %q", lines)
		}
		if scrape(t, r, "postseal_sts_mx_mismatches_total") < 1 {
			t.Error("not counted")
		}
		if n := w.hosts.gets(); n != 3 {
			t.Errorf("%d fetches in 15 minutes, want one more in ten minutes because of the mismatch", n)
		}
	})
}

func TestSTS081_TestingWouldFail(t *testing.T) {
	body := strings.ReplaceAll(otherBody, "enforce", "testing")
	synctest.Test(t, func(t *testing.T) {
		for floor, want := range map[Floor]struct {
			reply string
			told  int
		}{FloorInherit: {"NOTFOUND ", 1}, FloorEncrypt: {"OK encrypt", 1}, FloorDANE: {"OK dane", 0}} { // where no MX set is known anyway, none is asked for
			l, r := &logged{}, prometheus.NewPedanticRegistry()
			w := start(t, signedZone, func(c *Config) { into(l, r)(c); c.Settings.Floor = floor })
			w.hosts.set("ex.test", body)
			for range 3 {
				w.want("ex.test", want.reply)
				time.Sleep(10 * time.Minute)
			}
			if lines := l.take("sts_testing_would_fail"); len(lines) != want.told {
				t.Errorf("floor %v: logged %q", floor, lines)
			}
			if got := scrape(t, r, "postseal_sts_testing_would_fail_total"); (got > 0) != (want.told > 0) {
				t.Errorf("floor %v: counted %v", floor, got)
			}
			w.hosts.set("ex.test", strings.ReplaceAll(body, "other", "n1"))
			w.dns.Set(`ad _mta-sts.ex.test 300 TXT "v=STSv1; id=2"`)
			time.Sleep(time.Hour)
			w.want("ex.test", want.reply)
			before := scrape(t, r, "postseal_sts_testing_would_fail_total")
			time.Sleep(time.Hour)
			w.want("ex.test", want.reply)
			if after := scrape(t, r, "postseal_sts_testing_would_fail_total"); after != before {
				t.Errorf("floor %v: a policy that fits is counted", floor)
			}
			w.stop()
		}
	})
}

// scrape reads one metric without labels.
func scrape(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if m := f.GetMetric(); f.GetName() == name && len(m) == 1 {
			return m[0].GetCounter().GetValue() + m[0].GetGauge().GetValue()
		}
	}
	t.Errorf("no metric %s", name)
	return -1
}

// TestMetrics: fixed names and label sets, and no domain among them.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prometheus.NewPedanticRegistry()
		w := start(t, signedZone+"\nservfail _mta-sts.bad.test TXT\nservfail bad.test MX", func(c *Config) { c.Registerer = r; c.Settings.STS = ModeMonitor })
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		for _, key := range []string{"ex.test", "ex.test", "bad.test", ".test"} {
			w.ask(key)
		}
		w.askMap("nosuchmap", "ex.test")
		want := map[string][]string{
			"postseal_answers_total":                 {"level", "source"},
			"postseal_withheld_answers_total":        {"level"},
			"postseal_answer_seconds":                {},
			"postseal_sender_answers_total":          {"answer"},
			"postseal_lookup_failures_total":         {"lookup"},
			"postseal_policy_fetches_total":          {"result"},
			"postseal_alarms":                        {"alarm"},
			"postseal_sts_mx_mismatches_total":       {},
			"postseal_sts_testing_would_fail_total":  {},
			"postseal_unknown_map_total":             {},
			"postseal_policy_fetches_blocked":        {},
			"postseal_cache_entries":                 {"kind"},
			"postseal_policy_nearest_expiry_seconds": {},
			"postseal_policy_oldest_age_seconds":     {},
			"postseal_store_failing":                 {},
		}
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			labels, ok := want[f.GetName()]
			if delete(want, f.GetName()); !ok {
				t.Errorf("unexpected metric %s", f.GetName())
			}
			for _, m := range f.GetMetric() {
				var names []string
				for _, l := range m.GetLabel() {
					if names = append(names, l.GetName()); strings.Contains(l.GetValue(), ".") {
						t.Errorf("%s: a domain in label %s=%q", f.GetName(), l.GetName(), l.GetValue())
					}
				}
				if !slices.Equal(names, labels) && len(names)+len(labels) > 0 {
					t.Errorf("%s: labels %q, want %q", f.GetName(), names, labels)
				}
			}
		}
		if len(want) > 0 {
			t.Errorf("not there: %v", want)
		}
		if problems, err := testutil.GatherAndLint(r); err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
		if err := testutil.GatherAndCompare(r, strings.NewReader(withheld), "postseal_withheld_answers_total"); err != nil {
			t.Error(err)
		}
	})
}

const withheld = `
# HELP postseal_withheld_answers_total Answers that mode monitor held back, by the level that would have been answered.
# TYPE postseal_withheld_answers_total counter
postseal_withheld_answers_total{level="secure"} 2
`

// TestSTS092_Gauges: right at once, after a start as after a policy came.
func TestSTS092_Gauges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prometheus.NewPedanticRegistry()
		w := start(t, signedZone, into(&logged{}, r))
		w.hosts.set("ex.test", enforceBody)
		if e, a := scrape(t, r, "postseal_policy_nearest_expiry_seconds"), scrape(t, r, "postseal_policy_oldest_age_seconds"); e != 0 || a != 0 {
			t.Errorf("without a policy: %v, %v", e, a)
		}
		w.want("ex.test", secureReply)
		if e, a := scrape(t, r, "postseal_policy_nearest_expiry_seconds"), scrape(t, r, "postseal_policy_oldest_age_seconds"); e != 604800 || a != 0 {
			t.Errorf("after adoption: %v, %v", e, a)
		}
		time.Sleep(time.Hour)
		w.stop()
		r = prometheus.NewPedanticRegistry()
		w.boot(into(&logged{}, r))
		defer w.stop()
		if e, a := scrape(t, r, "postseal_policy_nearest_expiry_seconds"), scrape(t, r, "postseal_policy_oldest_age_seconds"); e != 604800-3600 || a != 3600 {
			t.Errorf("after a start: %v, %v", e, a)
		}
	})
}
