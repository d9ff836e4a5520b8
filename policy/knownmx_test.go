package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
)

const hosterZone = `
ad ex.test 300 MX 10 mx.hoster.test
ad nx _mta-sts.ex.test 300 TXT
ad mx.hoster.test 300 A 192.0.2.1
ad nodata mx.hoster.test 300 AAAA
ad nx _25._tcp.mx.hoster.test 300 TLSA
`

// TestCMB00_LastKnownMXSurvivesARestart: mx: rules are held against the set that
// was last known, over a kill -9 too, for a week.
func TestCMB00_LastKnownMXSurvivesARestart(t *testing.T) {
	insecure := strings.ReplaceAll(hosterZone, "ad ex.test", "ex.test")
	for _, c := range []struct {
		name, zone, rules string
		fresh, restarted  string
	}{
		{"raising, matches", hosterZone, "mx:*.hoster.test verify", "OK verify", "OK verify"},
		{"raising, no match", hosterZone, "mx:*.other.test verify;ex.test may", "OK may", "OK may"},
		{"raising, insecure", insecure, "mx:*.hoster.test verify", "OK verify", "OK verify"},
		{"lowering", hosterZone, "mx:*.hoster.test may;ex.test encrypt", "OK may", "OK may"},
		{"lowering, insecure", insecure, "mx:*.hoster.test may;ex.test encrypt", "OK encrypt", "OK encrypt"},
	} {
		for _, down := range []string{"servfail ex.test MX", "hang ex.test MX"} {
			t.Run(c.name+", "+down, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					rules := emergencyRules(t, time.Now(), tlspolicy.Version{}, strings.Split(c.rules, ";")...)
					with := func(cfg *Config) { cfg.Settings.Rules = rules }
					w := start(t, c.zone, with)
					w.want("ex.test", c.fresh)
					time.Sleep(3 * time.Second) // the batch is written
					disk := w.store
					w.stop()
					w.store = disk
					w.dns.Set(down)
					for range 6 {
						w.boot(with)
						w.want("ex.test", c.restarted)
						w.stop()
						time.Sleep(28 * time.Hour)
					}
					w.boot(with)
					w.want("ex.test", "OK encrypt") // seven days later: unknown, and a rule may apply
					if n := len(w.engine.KnownMX()); n != 0 {
						t.Errorf("seven days later %d sets are known", n)
					}
					w.stop()
				})
			})
		}
	}
}

// TestCMB00_LastKnownMXWhileLoading: the set is read through before the store was read.
func TestCMB00_LastKnownMXWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := emergencyRules(t, time.Now(), tlspolicy.Version{}, "mx:*.hoster.test verify")
		with := func(cfg *Config) { cfg.Settings.Rules = rules }
		w := start(t, hosterZone, with)
		w.want("ex.test", "OK verify")
		w.stop()
		onBadStore(w).delayed.Store(int64(time.Minute))
		w.dns.Set("servfail ex.test MX")
		w.boot(with)
		w.want("ex.test", "OK verify")
		w.stop()
	})
}

// TestCMB00_WhichMXSetsAreKept: those that a rule or an enforced policy needs, and
// none that the operator flushed.
func TestCMB00_WhichMXSetsAreKept(t *testing.T) {
	for _, c := range []struct {
		name, rules, body string
		kept              bool
	}{
		{"no rule, no policy", "", "", false},
		{"a rule by name", "ex.test verify", "", false},
		{"a rule by name before the mx: rule", "ex.test verify;mx:*.ex.test verify", "", false},
		{"an mx: rule", "mx:*.other.test encrypt", "", true},
		{"a policy", "", enforceBody, true},
		{"a policy in testing", "", strings.ReplaceAll(enforceBody, "enforce", "testing"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var rules *Rules
				if c.rules != "" {
					rules = emergencyRules(t, time.Now(), tlspolicy.Version{}, strings.Split(c.rules, ";")...)
				}
				w := start(t, signedZone, func(cfg *Config) { cfg.Settings.Rules = rules })
				defer w.stop()
				w.hosts.set("ex.test", c.body)
				w.ask("ex.test")
				time.Sleep(3 * time.Second)
				all, err := ReadKnownMX(context.Background(), w.store)
				if err != nil || (len(all) == 1) != c.kept || len(all) != len(w.engine.KnownMX()) {
					t.Errorf("on disk %v, in memory %v, %v", all, w.engine.KnownMX(), err)
				}
				if k := all["ex.test"]; c.kept && (len(k.Hosts) != 1 || k.Hosts[0] != "n1.ex.test" || !k.Secure) {
					t.Errorf("%+v", k)
				}
				w.ask("ex.test")
				if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Second)
				if _, err := w.store.Get(context.Background(), kindMX, "ex.test"); !errors.Is(err, cache.ErrNotFound) || len(w.engine.KnownMX()) != 0 {
					t.Errorf("after a flush: %v, %v", err, w.engine.KnownMX())
				}
			})
		})
	}
}

// TestKnownMXIsBounded in number and in size, and old ones make room.
func TestKnownMXIsBounded(t *testing.T) {
	now := time.Now()
	var s knownSets
	for i := range maxKnown + 10 {
		s.note(fmt.Sprintf("d%d.test", i), &KnownMX{At: now})
	}
	if n := len(s.sets); n != maxKnown {
		t.Errorf("%d sets", n)
	}
	later := now.Add(knownLasts + time.Second)
	if !s.note("new.test", &KnownMX{At: later}) || len(s.sets) != 1 {
		t.Errorf("%d sets a week later", len(s.sets))
	}
	for name, bad := range map[string]KnownMX{"hosts": {Hosts: make([]string, dane.MaxHosts+1)}, "name": {Hosts: []string{"a b.test"}}} {
		text, _ := json.Marshal(bad)
		if k, err := readKnownMX(cache.Record{Value: text}, now); err == nil {
			t.Errorf("%s: %+v", name, k)
		}
	}
	text, _ := json.Marshal(KnownMX{At: now.Add(time.Hour), Hosts: []string{"Mx.Test."}})
	if k, err := readKnownMX(cache.Record{Value: text}, now); err != nil || k.At.After(now) || k.Hosts[0] != "mx.test" {
		t.Errorf("%+v, %v", k, err)
	}
}

// TestCMB00_NoMXIsNoKnownSet: a forged "no such name" does not let a rule fall away.
func TestCMB00_NoMXIsNoKnownSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := emergencyRules(t, time.Now(), tlspolicy.Version{}, "mx:*.hoster.test encrypt")
		w := start(t, strings.ReplaceAll(hosterZone, "ad ex.test", "ex.test"), func(cfg *Config) { cfg.Settings.Rules = rules })
		defer w.stop()
		w.want("ex.test", "OK encrypt")
		w.dns.Set("nx ex.test 60 MX")
		time.Sleep(301 * time.Second)
		w.want("ex.test", "NOTFOUND ")
		w.dns.Set("servfail ex.test MX")
		time.Sleep(301 * time.Second)
		w.want("ex.test", "OK encrypt")
	})
}

// TestCMB00_LowersNoLongerThanSetsAreKept: in one process as over a restart.
func TestCMB00_LowersNoLongerThanSetsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := emergencyRules(t, time.Now(), tlspolicy.Version{}, "mx:*.hoster.test may", "ex.test encrypt")
		w := start(t, hosterZone, func(cfg *Config) { cfg.Settings.Rules = rules })
		defer w.stop()
		w.want("ex.test", "OK may")
		w.dns.Set("servfail ex.test MX")
		time.Sleep(6 * 24 * time.Hour)
		w.want("ex.test", "OK may")
		time.Sleep(36 * time.Hour)
		w.want("ex.test", "OK encrypt")
	})
}

// TestSTS098_FlushForgetsAKnownSet: also before the domain was asked for.
func TestSTS098_FlushForgetsAKnownSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := emergencyRules(t, time.Now(), tlspolicy.Version{}, "mx:*.hoster.test may", "ex.test encrypt")
		with := func(cfg *Config) { cfg.Settings.Rules = rules }
		w := start(t, hosterZone, with)
		w.want("ex.test", "OK may")
		time.Sleep(3 * time.Second)
		disk := w.store
		w.stop()
		w.store = disk
		w.dns.Set("servfail ex.test MX")
		w.boot(with)
		defer w.stop()
		if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
			t.Fatal(err)
		}
		w.want("ex.test", "OK encrypt")
		if _, err := w.store.Get(context.Background(), kindMX, "ex.test"); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("on disk: %v", err)
		}
	})
}
