package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSTS042_OneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.hosts.delay = time.Second
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { w.want("ex.test", secureReply) })
		}
		all.Wait()
		asked := w.dns.Asked()
		slices.Sort(asked)
		want := []string{"A n1.ex.test", "AAAA n1.ex.test", "MX ex.test", "TLSA _25._tcp.n1.ex.test", "TXT _mta-sts.ex.test"}
		if !slices.Equal(asked, want) || w.hosts.gets() != 1 {
			t.Errorf("asked %q", asked)
		}
		w.want("ex.test", secureReply)
		w.want("EX.test.", secureReply)
		if asked := w.dns.Asked(); len(asked) > 0 {
			t.Errorf("a cached answer asked %q", asked)
		}
	})
}

func TestSTS039_SlowPolicyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for floor, want := range map[Floor]string{FloorInherit: "NOTFOUND ", FloorDANE: "OK dane", FloorEncrypt: "OK encrypt"} {
			w := start(t, signedZone, settings(floor))
			w.hosts.set("ex.test", enforceBody)
			w.hosts.delay = 30 * time.Second
			begin := time.Now()
			w.want("ex.test", want)
			if took := time.Since(begin); took > 5*time.Second || took < 4*time.Second {
				t.Errorf("answered after %v", took)
			}
			begin = time.Now()
			w.want("ex.test", want)
			if took := time.Since(begin); took != 0 {
				t.Errorf("a later asker waited %v", took)
			}
			time.Sleep(31 * time.Second)
			w.want("ex.test", secureReply)
			w.stop()
		}
	})
}

func TestSTS020_STS043_NoPolicyIsFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := strings.ReplaceAll(signedZone, `ad _mta-sts.ex.test 300 TXT "v=STSv1; id=1"`, "servfail _mta-sts.ex.test TXT")
		w := start(t, zone, nil)
		defer w.stop()
		w.want("ex.test", "NOTFOUND ")
		w.dns.Asked()
		time.Sleep(5 * time.Minute)
		w.want("ex.test", "NOTFOUND ")
		if asked := w.dns.Asked(); !slices.Contains(asked, "TXT _mta-sts.ex.test") {
			t.Errorf("five minutes later asked %q", asked)
		}
		w.dns.Set(`_mta-sts.ex.test 60 TXT "v=STSv1; id=2"`)
		time.Sleep(5 * time.Minute)
		w.want("ex.test", "NOTFOUND ") // 404
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestSTS042_FailedIDWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "300 TXT", "10 TXT"), nil)
		defer w.stop()
		for range 20 {
			w.want("ex.test", "NOTFOUND ")
			time.Sleep(11 * time.Second)
		}
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches of one id in 220 s", n)
		}
		w.hosts.set("ex.test", enforceBody)
		w.dns.Set(`_mta-sts.ex.test 10 TXT "v=STSv1; id=2"`)
		w.want("ex.test", secureReply)
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches of the new id", n)
		}
	})
}

func TestCMB13_OnlyQuestionsThatMatter(t *testing.T) {
	insecure := strings.ReplaceAll(strings.ReplaceAll(signedZone, "ad ", ""), "_mta-sts.ex.test 300 TXT \"v=STSv1; id=1\"", "nx _mta-sts.ex.test 300 TXT")
	plain := strings.ReplaceAll(signedZone, "ad _mta-sts.ex.test 300 TXT \"v=STSv1; id=1\"", "ad nx _mta-sts.ex.test 300 TXT")
	for _, c := range []struct {
		name, zone string
		change     func(*Config)
		want       []string
	}{
		{"dane", plain, settings(FloorDANE), []string{"TXT _mta-sts.ex.test"}},
		{"inherit", plain, settings(FloorInherit), []string{"A n1.ex.test", "AAAA n1.ex.test", "MX ex.test", "TLSA _25._tcp.n1.ex.test", "TXT _mta-sts.ex.test"}},
		{"inherit, insecure", insecure, settings(FloorInherit), []string{"A n1.ex.test", "AAAA n1.ex.test", "MX ex.test", "TXT _mta-sts.ex.test"}},
		{"encrypt, insecure", insecure, settings(FloorEncrypt), []string{"MX ex.test", "TXT _mta-sts.ex.test"}},
		{"dane off", plain, func(c *Config) { c.Settings.DANE = ModeOff }, []string{"TXT _mta-sts.ex.test"}},
		{"sts off", plain, func(c *Config) { c.Settings.STS = ModeOff }, []string{"A n1.ex.test", "AAAA n1.ex.test", "MX ex.test", "TLSA _25._tcp.n1.ex.test"}},
		{"both off", plain, func(c *Config) { c.Settings.STS, c.Settings.DANE = ModeOff, ModeOff }, nil},
		{"main.cf secure", plain, func(c *Config) { c.Postfix.Main = MainStronger }, []string{"TXT _mta-sts.ex.test"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, c.zone, c.change)
				defer w.stop()
				w.ask("ex.test")
				asked := w.dns.Asked()
				slices.Sort(asked)
				if !slices.Equal(asked, c.want) {
					t.Errorf("asked %q, want %q", asked, c.want)
				}
				w.ask("ex.test")
				if asked := w.dns.Asked(); len(asked) > 0 {
					t.Errorf("asked again within the TTL: %q", asked)
				}
			})
		})
	}
}

func TestCMB17_UnfinishedCountsAsFailed(t *testing.T) {
	tlsa := "ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 " + strings.Repeat("ab", 32)
	for _, c := range []struct{ name, add, inherit, enforced string }{
		{"MX stalls", "hang ex.test MX", "NOTFOUND ", "OK secure match=.ex.test servername=hostname"},
		{"TLSA of one host stalls", "hang _25._tcp.n1.ex.test TLSA", "OK dane", "OK dane-only"},
		{"addresses stall", "hang n1.ex.test A\nhang n1.ex.test AAAA", "OK dane", "OK dane-only"},
		{"one of two stalls", tlsa + "\nad ex.test 300 MX 10 n1.ex.test\nad ex.test 300 MX 20 e1.ex.test\nhang e1.ex.test A\nhang e1.ex.test AAAA", "OK dane", "OK dane-only"},
		{"TXT stalls", tlsa + "\nhang _mta-sts.ex.test TXT", "OK dane", "OK dane"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, sts := range []bool{false, true} {
					w := start(t, signedZone, nil)
					want := c.inherit
					if w.dns.Set(c.add); sts {
						w.hosts.set("ex.test", enforceBody)
						want = c.enforced
					}
					begin := time.Now()
					w.want("ex.test", want)
					if took := time.Since(begin); took >= DefaultDeadline {
						t.Errorf("answered after %v", took)
					}
					w.stop()
				}
			})
		})
	}
}

func TestDANE039_EvidenceEndsWithItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "ad nx _25._tcp.n1.ex.test 300 TLSA", "ad _25._tcp.n1.ex.test 120 TLSA 3 1 1 "+strings.Repeat("ab", 32)), nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "OK dane-only")
		w.dns.Set("ad nx _25._tcp.n1.ex.test 120 TLSA")
		time.Sleep(100 * time.Second)
		w.want("ex.test", "OK dane-only")
		time.Sleep(21 * time.Second)
		w.want("ex.test", secureReply)
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

// TestRenewalAsksOnce: a caching resolver answers with what is left of a lifetime.
func TestRenewalAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		w.dns.Asked()
		w.dns.Set(`ad _mta-sts.ex.test 2 TXT "v=STSv1; id=1"`)
		time.Sleep(297 * time.Second)
		w.want("ex.test", secureReply)
		synctest.Wait()
		if n := w.count("TXT _mta-sts.ex.test"); n != 1 {
			t.Errorf("%d looks at the record ahead of its end", n)
		}
	})
}

// TestSTS042_BusyIsNoFailure: a fetch that found its address taken asked nothing,
// so the five minutes of rest do not begin.
func TestSTS042_BusyIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.hosts.busy = true
		w.want("ex.test", "NOTFOUND ")
		w.hosts.mu.Lock()
		w.hosts.busy = false
		w.hosts.mu.Unlock()
		time.Sleep(6 * time.Second)
		w.want("ex.test", secureReply)
	})
}

// TestSTS096_NoSlotIsNoFailure: whose fetch found all slots taken was not asked, so
// the five minutes of rest do not begin, nobody is charged, and the fetch has all
// of its time once there is a slot.
func TestSTS096_NoSlotIsNoFailure(t *testing.T) {
	for _, taken := range []time.Duration{50 * time.Second, 91 * time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, signedZone, nil)
			defer w.stop()
			w.hosts.set("ex.test", enforceBody)
			w.hosts.delay = 45 * time.Second // slow, but within its time
			if err := w.engine.fetches.Acquire(context.Background(), maxFetches); err != nil {
				t.Fatal(err)
			}
			for range taken / (10 * time.Second) {
				w.want("ex.test", "NOTFOUND ")
				time.Sleep(10 * time.Second)
			}
			w.engine.fetches.Release(maxFetches)
			begin := time.Now()
			for w.ask("ex.test") != secureReply && time.Since(begin) < time.Hour {
				time.Sleep(time.Second)
			}
			if took := time.Since(begin); took > time.Minute {
				t.Errorf("slots taken for %v: %v until there was a policy", taken, took)
			}
			if h, err := w.engine.Show("ex.test"); err != nil || h.Failures != 0 {
				t.Errorf("%+v, %v", h, err)
			}
			w.engine.outbound.mu.Lock()
			defer w.engine.outbound.mu.Unlock()
			if n := len(w.engine.outbound.domains); n != 0 {
				t.Errorf("%d domains count as failed", n)
			}
		})
	}
}

// TestSTS038_LongFetchTimeout: the time that a fetch may take is the fetcher's.
func TestSTS038_LongFetchTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.hosts.delay = 299 * time.Second
		w.want("ex.test", "NOTFOUND ")
		time.Sleep(5 * time.Minute)
		w.want("ex.test", secureReply)
	})
}
