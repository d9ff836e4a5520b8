package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

func TestDANE004_SuspendedResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "ad nx _25._tcp.n1.ex.test 300 TLSA", "ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 "+strings.Repeat("ab", 32)), nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "OK dane-only")
		w.dns.suspend("127.0.0.1 does not validate")
		time.Sleep(2 * time.Second)
		w.want("ex.test", secureReply)
		w.dns.suspend("")
		time.Sleep(2 * time.Second)
		w.want("ex.test", "OK dane-only")
	})
}

func TestSTS004_SmartHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, `
ad _mta-sts.smart.ex.test 300 TXT "v=STSv1; id=1"
ad smart.ex.test 300 A 192.0.2.1
ad nodata smart.ex.test 300 AAAA
ad nx _587._tcp.smart.ex.test 300 TLSA
`, nil)
		defer w.stop()
		w.hosts.set("smart.ex.test", strings.ReplaceAll(enforceBody, "*.ex.test", "smart.ex.test"))
		w.want("[smart.ex.test]:587", "OK secure match=smart.ex.test servername=hostname")
		asked := w.dns.Asked()
		if slices.Contains(asked, "MX smart.ex.test") || !slices.Contains(asked, "TLSA _587._tcp.smart.ex.test") {
			t.Errorf("asked %q", asked)
		}
	})
}

func TestSTS003_ParentKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, floor := range []Floor{FloorInherit, FloorDANE, FloorEncrypt} {
			w := start(t, "", settings(floor))
			for _, key := range []string{".ex.test", ".test", ".", "", "a..b", "[192.0.2.1]", "[192.0.2.1]:25", "[IPv6:2001:db8::1]:25", "[2001:db8::1]", "/unix/path"} {
				w.want(key, "NOTFOUND ")
			}
			if got := w.askMap("nosuchmap", "ex.test"); got != "NOTFOUND " {
				t.Errorf("unknown map: %q", got)
			}
			if asked := w.dns.Asked(); len(asked) > 0 {
				t.Errorf("asked %q", asked)
			}
			w.stop()
		}
	})
}

func TestPFX22_PFX23_MapNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attributes := " policy_type=sts policy_domain=ex.test mx_host_pattern=*.ex.test { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: *.ex.test } { policy_string = max_age: 604800 }"
		with, reported := "OK secure match=.ex.test servername=hostname"+attributes, secureReply+attributes
		for version, want := range map[string][4]string{ // postseal, QUERY, postfix, QUERYwithTLSRPT
			"":        {secureReply, secureReply, secureReply, reported},
			"3.7":     {secureReply, secureReply, secureReply, secureReply},
			"3.10":    {reported, secureReply, secureReply, reported},
			"3.10.4":  {reported, secureReply, secureReply, reported},
			"3.10.5":  {with, secureReply, secureReply, with},
			"3.10.13": {with, secureReply, secureReply, with},
			"3.11":    {with, secureReply, secureReply, with},
		} {
			w := start(t, signedZone, func(c *Config) {
				if version != "" {
					c.Postfix.Version, _ = tlspolicy.ParseVersion(version)
				}
			})
			w.hosts.set("ex.test", enforceBody)
			for i, name := range MapNames {
				if got := w.askMap(name, "ex.test"); got != want[i] {
					t.Errorf("version %q, map %s:\ngot  %q\nwant %q", version, name, got, want[i])
				}
			}
			w.stop()
		}
	})
}

func TestCMB16_Modes(t *testing.T) {
	tlsa := "ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 " + strings.Repeat("ab", 32)
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"dane off", func(c *Config) { c.Settings.DANE = ModeOff }, secureReply},
		{"dane monitor", func(c *Config) { c.Settings.DANE = ModeMonitor }, secureReply},
		{"sts monitor", func(c *Config) { c.Settings.STS = ModeMonitor }, "OK dane"},
		{"sts off", func(c *Config) { c.Settings.STS = ModeOff }, "OK dane"},
		{"all monitor", func(c *Config) { c.Settings.Monitor = true }, "NOTFOUND "},
		{"first run: no roots", func(c *Config) { c.Postfix.NoRoots = true }, "OK dane"},
		{"first run: no DANE", func(c *Config) { c.Postfix.NoDANE = true }, secureReply},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, signedZone, c.change)
				defer w.stop()
				w.dns.Set(tlsa)
				w.hosts.set("ex.test", enforceBody)
				w.want("ex.test", c.want)
				if c.name != "sts off" {
					if _, err := w.engine.Show("ex.test"); err != nil {
						t.Errorf("the policy is not held: %v", err)
					}
				}
			})
		})
	}
}

// TestFirstRunSafetyEndsForGood: once secure was answered, missing roots no longer relax.
func TestFirstRunSafetyEndsForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		noRoots := func(c *Config) { c.Postfix.NoRoots = true }
		w := start(t, signedZone, noRoots)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "NOTFOUND ")
		w.engine.SetPostfix(Postfix{})
		w.want("ex.test", secureReply)
		w.engine.SetPostfix(Postfix{NoRoots: true})
		w.want("ex.test", secureReply)
		w.stop()
		w.boot(noRoots)
		w.want("ex.test", secureReply)
		w.stop()
	})
}

func TestSTS096_OrganizationLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, "", settings(FloorDANE))
		defer w.stop()
		for i := range maxPerOrganization + 5 {
			name := fmt.Sprintf("d%d.ex.test", i)
			w.dns.Set("_mta-sts." + name + ` 300 TXT "v=STSv1; id=1"` + "\nad " + name + " 300 MX 10 n1.ex.test\nad n1.ex.test 300 A 192.0.2.1\nad nodata n1.ex.test 300 AAAA\nad nx _25._tcp.n1.ex.test 300 TLSA")
			w.hosts.set(name, enforceBody)
			w.want(name, secureReply)
		}
		if n := len(w.engine.Held()); n != maxPerOrganization {
			t.Errorf("%d policies kept below one organizational domain", n)
		}
	})
}

func TestOutboundBlockedIsOneAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, "", settings(FloorDANE))
		defer w.stop()
		w.hosts.refuse = true
		for i := range 10 {
			name := fmt.Sprintf("d%d.test", i)
			w.dns.Set("_mta-sts." + name + ` 300 TXT "v=STSv1; id=1"`)
			w.want(name, "OK dane")
		}
		w.engine.outbound.mu.Lock()
		defer w.engine.outbound.mu.Unlock()
		if !w.engine.outbound.alarmed {
			t.Error("no alarm")
		}
	})
}

// TestSharedHosts: a thousand domains at one provider cost one look-up of its host.
func TestSharedHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, "ad mx.p.test 300 A 192.0.2.1\nad nodata mx.p.test 300 AAAA\nad nx _25._tcp.mx.p.test 300 TLSA", nil)
		defer w.stop()
		for i := range 1000 {
			w.dns.Set(fmt.Sprintf("ad d%d.test 300 MX 10 mx.p.test\nad nx _mta-sts.d%d.test 300 TXT", i, i))
			w.want(fmt.Sprintf("d%d.test", i), "NOTFOUND ")
		}
		n := 0
		for _, q := range w.dns.Asked() {
			if strings.HasPrefix(q, "TLSA") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d TLSA look-ups", n)
		}
	})
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		dst, m, k := make([]byte, 0, 4096), []byte("postseal"), []byte("ex.test")
		if n := testing.AllocsPerRun(1000, func() { w.engine.ServeSocketmap(context.Background(), dst, m, k) }); n != 0 {
			t.Errorf("%v allocations per cached answer", n)
		}
	})
}

func TestCCH11_FlushAndImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		exported := w.engine.Held()
		w.hosts.set("ex.test", "")
		if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		w.want("ex.test", "NOTFOUND ")
		if n, err := w.engine.Import(context.Background(), exported); n != 1 || err != nil {
			t.Fatalf("imported %d: %v", n, err)
		}
		time.Sleep(time.Minute)
		w.want("ex.test", secureReply)
		if n, err := w.engine.Import(context.Background(), exported); n != 0 || err != nil {
			t.Errorf("imported again %d: %v", n, err)
		}
		exported[0].Body = "garbage"
		if _, err := w.engine.Import(context.Background(), exported); err == nil {
			t.Error("garbage was imported")
		}
	})
}

// TestAtLeastEncrypt: as long as the mail hosts are unknown, a rule that lowers
// does not answer where a raising mx: rule stands before it.
func TestAtLeastEncrypt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := emergencyRules(t, time.Now(), tlspolicy.Version{}, "mx:*.hoster.test encrypt", "ex.test may")
		w := start(t, "servfail ex.test MX\nad nx _mta-sts.ex.test 300 TXT", func(c *Config) { c.Settings.Rules = rules })
		defer w.stop()
		w.want("ex.test", "OK encrypt")
		w.dns.Set("ad ex.test 300 MX 10 mx.ex.test")
		time.Sleep(time.Minute)
		w.want("ex.test", "OK may")
		w.dns.Set("ad ex.test 300 MX 10 mx.hoster.test\nad mx.hoster.test 300 A 192.0.2.1\nad nodata mx.hoster.test 300 AAAA\nad nx _25._tcp.mx.hoster.test 300 TLSA")
		time.Sleep(301 * time.Second)
		w.want("ex.test", "OK encrypt")
	})
}

// TestCCH05_QuestionsWithAPort keep the domain's policy fresh as well.
func TestCCH05_QuestionsWithAPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "604800", "31557600"))
		for range 30 {
			w.want("ex.test:25", secureReply)
			time.Sleep(24 * time.Hour)
		}
		if n := w.hosts.gets(); n < 25 {
			t.Errorf("%d refreshes in 30 days", n)
		}
	})
}

// TestSetPostfixUnchanged: what is told again voids no answer.
func TestSetPostfixUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.want("ex.test", "NOTFOUND ")
		p := w.engine.plan.Load()
		v, _ := tlspolicy.ParseVersion("3.10.5")
		w.engine.SetPostfix(Postfix{})
		if w.engine.plan.Load() != p {
			t.Error("every answer was voided")
		}
		w.engine.SetPostfix(Postfix{Version: v})
		changed := w.engine.plan.Load()
		again, _ := tlspolicy.ParseVersion("3.10.5")
		w.engine.SetPostfix(Postfix{Version: again})
		if changed == p || w.engine.plan.Load() != changed {
			t.Error("a change was not seen, or seen twice")
		}
	})
}

// TestPFX02_UnknownMap is told once a minute, not with every mail.
func TestPFX02_UnknownMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logged{}
		w := start(t, "", into(l, nil))
		defer w.stop()
		for range 1000 {
			if got := w.askMap("nosuchmap", "ex.test"); got != "NOTFOUND " {
				t.Fatalf("got %q", got)
			}
		}
		if lines := l.take("unknown map"); len(lines) != 1 {
			t.Errorf("%d lines", len(lines))
		}
	})
}

// TestRefreshesKeepNobodyWaiting: a storm of refreshes against slow policy hosts
// leaves fetches for a first contact, and its queue holds up no question.
func TestRefreshesKeepNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		var all []HeldPolicy
		for i := range 500 {
			name := fmt.Sprintf("d%d.test", i)
			w.dns.Set(fmt.Sprintf("ad _mta-sts.%s 60 TXT \"v=STSv1; id=1\"\nad %s 300 MX 10 n1.ex.test", name, name))
			all = append(all, HeldPolicy{Domain: name, ID: "1", FetchedAt: time.Now(), Body: enforceBody})
		}
		if n, err := w.engine.Import(context.Background(), all); n != 500 || err != nil {
			t.Fatal(n, err)
		}
		w.stop()
		time.Sleep(2 * 24 * time.Hour)
		w.hosts.delay = 50 * time.Second
		w.boot(nil)
		defer func() { w.stop() }()
		time.Sleep(45 * time.Second) // the first scan has found all of them due
		slow := 0
		for i := range 500 {
			begin := time.Now()
			w.want(fmt.Sprintf("d%d.test", i), secureReply)
			if time.Since(begin) > time.Second {
				slow++
			}
		}
		if slow > maxRefreshes {
			t.Errorf("%d questions waited for refreshes", slow)
		}
		w.hosts.mu.Lock()
		w.hosts.delay = 0
		w.hosts.bodies["ex.test"] = enforceBody
		w.hosts.mu.Unlock()
		begin := time.Now()
		w.want("ex.test", secureReply)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("a first contact waited %v", took)
		}
	})
}

// TestCCH04_EvictedPolicies: a policy that demands nothing goes with its name,
// one that is enforced is found again.
func TestCCH04_EvictedPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for mode, held := range map[string]int{"enforce": 1, "testing": 0, "none": 0} {
			w := start(t, signedZone, nil)
			w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "enforce", mode))
			w.ask("ex.test")
			if d := w.engine.domain("ex.test"); d.protected() != (held == 1) {
				t.Errorf("%s: protected %t", mode, d.protected())
			}
			w.engine.domains.Delete("ex.test")
			time.Sleep(time.Minute)
			if n := len(w.engine.Held()); n != held {
				t.Errorf("%s: %d policies held", mode, n)
			}
			w.hosts.set("ex.test", "")
			if got := w.ask("ex.test"); (got == secureReply) != (held == 1) {
				t.Errorf("%s: %q", mode, got)
			}
			w.stop()
		}
	})
}
