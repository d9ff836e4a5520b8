package policy

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// TestCMB00_Mandatory is the truth table of docs/decision-table.md for the map
// postseal-enforced: what each rule makes of each row.
func TestCMB00_Mandatory(t *testing.T) {
	for _, f := range fixtures(t) {
		for _, sts := range []bool{false, true} {
			for _, level := range []string{"", "none", "may", "dane", "encrypt", "exempt dane", "exempt sts", "exempt dane sts", "dane-only", "verify match=hostname", "secure match=x.test"} {
				for _, capability := range []Capability{Plain, Narrowing} {
					e := Evidence{Key: Key{Name: "ex.test", Port: 25}, DANE: f.evidence, LastKnown: f.last}
					want := f.encrypt
					if sts {
						e.Policy, want = &f.policy, expand(f.without, f.policy)
						if capability == Narrowing {
							want = expand(f.withAttributes, f.policy)
						}
					}
					if level != "" {
						r := mandatoryRule(t, level)
						e.Rule = &r
						// What a rule exempts from is no evidence: query.weigh.
						e.DANE.Suspended = e.DANE.Suspended || r.Exempt&ExemptDANE != 0
						if r.Exempt&ExemptSTS != 0 {
							e.Policy, want = nil, f.encrypt
						}
						switch {
						case r.Exempt&ExemptDANE != 0 && e.Policy == nil:
							want = "OK encrypt"
						case r.Exempt&ExemptDANE != 0:
							want = Decide(Evidence{Key: e.Key, DANE: e.DANE, Policy: e.Policy}, Options{Floor: FloorEncrypt, Capability: capability}).String()
						case r.asWritten() && !r.Lowers():
							want = "OK " + level
						}
					}
					if got := Decide(e, Options{Floor: FloorEncrypt, Capability: capability, Mandatory: true}).String(); got != want {
						t.Errorf("row %s (%s), sts %t, rule %q, capability %d:\ngot  %s\nwant %s", f.row, f.mx, sts, level, capability, got, want)
					}
				}
			}
		}
	}
}

func mandatoryRule(t *testing.T, level string) Rule {
	t.Helper()
	text := RuleText{Match: []string{"ex.test"}, Level: level, Reason: "because"}
	if from, ok := strings.CutPrefix(level, "exempt "); ok {
		text.Level, text.Exempt = "exempt", strings.Fields(from)
	}
	r, err := ParseRule(text, tlspolicy.Version{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const plainZone = `
ad nx _mta-sts.plain.test 300 TXT
plain.test 300 MX 10 mx.plain.test
mx.plain.test 300 A 192.0.2.9
nodata mx.plain.test 300 AAAA
nx _mta-sts.plain.test 300 TXT
`

// TestCMB00_EnforcedMap: no answer below encrypt for what could be a destination,
// at whatever floor, and with whatever rule.
func TestCMB00_EnforcedMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, floor := range []Floor{FloorInherit, FloorDANE, FloorEncrypt} {
			for _, main := range []MainLevel{MainUpToDANE, MainEncrypt, MainStronger} {
				w := start(t, plainZone, func(c *Config) {
					c.Settings.Floor, c.Postfix.Main = floor, main
					c.Settings.Rules = senderRules(t, RuleText{Match: []string{"plain.test:26", "[192.0.2.3]"}, Level: "may ciphers=high", Reason: "r"},
						RuleText{Match: []string{"plain.test:27"}, Level: "none", Reason: "r"}, RuleText{Match: []string{"plain.test:28", "[192.0.2.4]"}, Level: "exempt", Reason: "r"},
						RuleText{Match: []string{"plain.test:29", "[192.0.2.5]"}, Level: "secure match=x.test"}, RuleText{Match: []string{"plain.test:30"}, Level: "may", Mode: "monitor", Reason: "r"})
				})
				for key, want := range map[string]string{
					"plain.test": "OK encrypt", "Plain.TEST.": "OK encrypt", "plain.test:25": "OK encrypt",
					"plain.test:26": "OK encrypt ciphers=high", "plain.test:27": "OK encrypt", "plain.test:28": "OK encrypt",
					"plain.test:29": "OK secure match=x.test", "plain.test:30": "OK encrypt",
					"[192.0.2.2]": "OK encrypt", "[192.0.2.2]:587": "OK encrypt", "[IPv6:2001:db8::1]": "OK encrypt",
					"[192.0.2.3]": "OK encrypt ciphers=high", "[192.0.2.4]": "OK encrypt", "[192.0.2.5]": "OK secure match=x.test",
					// What is no destination; Postfix's own walk to the parents is another matter.
					"a..b": "OK encrypt", "plain.test:nosuchservice": "OK encrypt", "/unix/path": "OK encrypt", "-": "OK encrypt",
					".plain.test": "NOTFOUND ", ".test": "NOTFOUND ", "": "NOTFOUND ",
				} {
					for range 2 {
						if got := w.askMap(EnforcedMap, key); got != want {
							t.Errorf("floor %s, main %d, %q: got %q, want %q", floor, main, key, got, want)
						}
					}
				}
				w.stop()
			}
		}
	})
}

// What the two maps are told about a destination is remembered apart, and rests on
// the same evidence.
func TestCMB13_EnforcedMapAsksForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, plainZone, settings(FloorDANE))
		defer w.stop()
		w.want("plain.test", "OK dane")
		if asked := w.dns.Asked(); !slices.Equal(asked, []string{"TXT _mta-sts.plain.test"}) {
			t.Errorf("asked %q", asked)
		}
		if got := w.askMap(EnforcedMap, "plain.test"); got != "OK encrypt" {
			t.Errorf("got %q", got)
		}
		if asked := w.dns.Asked(); !slices.Equal(asked, []string{"MX plain.test"}) {
			t.Errorf("asked %q", asked)
		}
		w.want("plain.test", "OK dane")
		w.askMap(EnforcedMap, "plain.test")
		if asked := w.dns.Asked(); len(asked) > 0 {
			t.Errorf("asked %q", asked)
		}
	})
}

// A policy that is found, a rule and a mode that change count for both at once.
func TestCMB00_EnforcedMapFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		both := func(what, plain, enforced string) {
			t.Helper()
			if got := [2]string{w.askMap("postseal", "ex.test"), w.askMap(EnforcedMap, "ex.test")}; got != [2]string{plain, enforced} {
				t.Errorf("%s: %q", what, got)
			}
		}
		both("without a policy", "NOTFOUND ", "OK encrypt")
		w.hosts.set("ex.test", enforceBody)
		if _, err := w.engine.Refresh(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		both("with one", secureReply, secureReply)
		rule := func(level string) *Rules {
			return senderRules(t, RuleText{Match: []string{"ex.test"}, Level: level, Reason: "r"})
		}
		w.engine.Configure(Settings{Rules: rule("may")}, Postfix{})
		both("rule may", "OK may", secureReply)
		w.engine.Configure(Settings{Rules: rule("exempt")}, Postfix{})
		both("exempt", "NOTFOUND ", "OK encrypt")
		w.engine.Configure(Settings{Monitor: true}, Postfix{})
		both("monitor", "NOTFOUND ", "NOTFOUND ")
		if got := w.askMap(EnforcedMap, "[192.0.2.1]"); got != "NOTFOUND " {
			t.Errorf("monitor: %q", got)
		}
		if got := w.askMap(EnforcedMap, "a..b"); got != "NOTFOUND " {
			t.Errorf("monitor: %q", got)
		}
	})
}

// Senders are answered from the rules alone, without a look-up.
func TestSenderMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, "", nil)
		defer w.stop()
		rules := senderRules(t, RuleText{Sender: []string{"@payroll.example"}, Until: time.Now().Add(time.Hour)},
			RuleText{Sender: []string{"@trial.example"}, Mode: "monitor"}, RuleText{Match: []string{"other.example"}})
		want := func(sender, want string) {
			t.Helper()
			if got := w.askMap(SenderMap, sender); got != want {
				t.Errorf("%s: got %q, want %q", sender, got, want)
			}
		}
		want("a@payroll.example", "NOTFOUND ")
		w.engine.Configure(Settings{Rules: rules}, Postfix{})
		for _, sender := range []string{"a@payroll.example", "A+b@Payroll.Example", `"a b"@payroll.example`, "@payroll.example"} {
			want(sender, "OK enforced:")
		}
		for _, sender := range []string{"<>", "", "payroll.example", "a@other.example", "a@trial.example", "a@sub.payroll.example", "double-bounce@mx.example"} {
			want(sender, "NOTFOUND ")
		}
		w.engine.Configure(Settings{Rules: rules, Monitor: true}, Postfix{})
		want("a@payroll.example", "NOTFOUND ")
		w.engine.Configure(Settings{Rules: rules}, Postfix{})
		if x := w.engine.ExplainSender("a@trial.example"); x.Rule == nil || !x.Monitor || x.Reply != "NOTFOUND " || !slices.Equal(x.Rule.Sender, []string{"@trial.example"}) {
			t.Errorf("%+v", x)
		}
		if x := w.engine.ExplainSender("a@payroll.example"); x.Rule == nil || x.Monitor || x.Reply != "OK enforced:" {
			t.Errorf("%+v", x)
		}
		time.Sleep(time.Hour)
		want("a@payroll.example", "NOTFOUND ")
		if x := w.engine.ExplainSender("a@payroll.example"); x.Rule != nil || x.Monitor {
			t.Errorf("%+v", x)
		}
		if asked := w.dns.Asked(); len(asked) > 0 {
			t.Errorf("asked %q", asked)
		}
	})
}

func TestEnforcedMap_Allocations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, plainZone, func(c *Config) { c.Settings.Rules = senderRules(t, RuleText{Sender: []string{"@payroll.example"}}) })
		defer w.stop()
		dst := make([]byte, 0, 4096)
		for mapName, key := range map[string]string{EnforcedMap: "plain.test", SenderMap: "Boss+x@Payroll.example"} {
			m, k := []byte(mapName), []byte(key)
			w.engine.ServeSocketmap(context.Background(), dst, m, k)
			if n := testing.AllocsPerRun(100, func() { w.engine.ServeSocketmap(context.Background(), dst, m, k) }); n != 0 {
				t.Errorf("%s: %v allocations", mapName, n)
			}
		}
	})
}
