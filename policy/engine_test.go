package policy

import (
	"context"
	"slices"
	"strings"
	"sync"
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

// TestDANE004_ExplainSeesTheStanding without a question of Postfix before it.
func TestDANE004_ExplainSeesTheStanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		for _, why := range []string{"", "127.0.0.1 does not validate", ""} {
			w.dns.suspend(why)
			x, err := w.engine.Explain(context.Background(), "ex.test", false)
			if err != nil || (x.DANE.Class == "DX") != (why != "") {
				t.Errorf("suspended %q: class %s, %v", why, x.DANE.Class, err)
			}
		}
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
		for version, want := range map[string][5]string{ // postseal, QUERY, postfix, QUERYwithTLSRPT, postseal-enforced
			"":        {secureReply, secureReply, secureReply, reported, secureReply},
			"3.7":     {secureReply, secureReply, secureReply, secureReply, secureReply},
			"3.10":    {reported, secureReply, secureReply, reported, reported},
			"3.10.4":  {reported, secureReply, secureReply, reported, reported},
			"3.10.5":  {with, secureReply, secureReply, with, with},
			"3.10.13": {with, secureReply, secureReply, with, with},
			"3.11":    {with, secureReply, secureReply, with, with},
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

// TestSTS006_NoDestinationIsToldOnce a minute: what addresses mail has cannot fill the log.
func TestSTS006_NoDestinationIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &logged{}
		w := start(t, "", into(l, nil))
		defer w.stop()
		for i := range 1000 {
			w.want("a..b"+strings.Repeat("c", i%50), "NOTFOUND ")
		}
		if lines := l.take("without a look-up"); len(lines) != 1 {
			t.Errorf("%d lines", len(lines))
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

// TestAfterTheEnd: questions after Run are answered from what is known, at once.
func TestAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		w.stop()
		time.Sleep(2 * time.Hour)
		w.dns.Asked()
		begin := time.Now()
		w.want("ex.test", "OK secure match=.ex.test servername=hostname") // row D4
		w.want("new.test", "NOTFOUND ")
		if took := time.Since(begin); took != 0 || len(w.dns.Asked()) > 0 {
			t.Errorf("answered after %v", took)
		}
	})
}

// TestRememberIsNeverMixed: the lifetime of one answer is never that of another.
func TestRememberIsNeverMixed(t *testing.T) {
	d, p := newDomain("ex.test", 0), &plan{}
	short, long := &answer{plan: p}, &answer{plan: p}
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for range 20_000 {
				d.remember(short, 0, 0, 100)
				d.remember(long, 0, 0, 1000)
			}
		})
		all.Go(func() {
			for range 40_000 {
				if m := d.current(500, p); m != nil && m.answer == short {
					t.Error("an answer outlived its evidence")
					return
				}
			}
		})
	}
	all.Wait()
	d.changes.Add(1)
	if _, kept := d.remember(long, 0, 0, 1000); kept || d.current(1, p) != nil {
		t.Error("an answer from before a change was kept")
	}
}
