package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSTS044_STS095_HeldPolicySurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, break_ := range map[string]func(w *world){
			"no record":         func(w *world) { w.dns.Set("nx _mta-sts.ex.test 60 TXT") },
			"no answer":         func(w *world) { w.dns.Set("servfail _mta-sts.ex.test TXT") },
			"new id, 404":       func(w *world) { w.dns.Set(`_mta-sts.ex.test 60 TXT "v=STSv1; id=9"`); w.hosts.set("ex.test", "") },
			"new id, garbage":   func(w *world) { w.dns.Set(`_mta-sts.ex.test 60 TXT "v=STSv1; id=9"`); w.hosts.set("ex.test", "<html>") },
			"unusable record":   func(w *world) { w.dns.Set(`_mta-sts.ex.test 60 TXT "v=STSv1; id="`) },
			"hanging TXT":       func(w *world) { w.dns.Set("hang _mta-sts.ex.test TXT") },
			"policy host hangs": func(w *world) { w.dns.Set(`_mta-sts.ex.test 60 TXT "v=STSv1; id=9"`); w.hosts.delay = time.Hour },
		} {
			w := start(t, signedZone, nil)
			w.hosts.set("ex.test", enforceBody)
			w.want("ex.test", secureReply)
			break_(w)
			for range 3 {
				time.Sleep(time.Hour)
				if got := w.ask("ex.test"); got != secureReply {
					t.Errorf("%s: %q", name, got)
				}
			}
			w.stop()
			w.boot(nil) // restart: only the store remains
			if got := w.ask("ex.test"); got != secureReply {
				t.Errorf("%s, after a restart: %q", name, got)
			}
			w.dns.Set("servfail ex.test MX\nservfail _mta-sts.ex.test TXT\nservfail n1.ex.test A\nservfail n1.ex.test AAAA\nservfail _25._tcp.n1.ex.test TLSA")
			w.stop()
			w.boot(nil)
			if got, want := w.ask("ex.test"), "OK secure match=.ex.test servername=hostname"; got != want {
				t.Errorf("%s, all DNS down: got %q, want row D4: %q", name, got, want)
			}
			w.stop()
		}
	})
}

// TestSTS095_D4A: what was last known to rest on DANE still does.
func TestSTS095_D4A(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "ad nx _25._tcp.n1.ex.test 300 TLSA", "ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 "+strings.Repeat("ab", 32)), nil)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "OK dane-only")
		w.stop()
		w.dns.Set("servfail ex.test MX")
		w.boot(nil)
		w.want("ex.test", "OK dane-only")
		w.stop()
		time.Sleep(4 * 24 * time.Hour)
		w.boot(nil)
		w.want("ex.test", "OK dane-only")
		time.Sleep(time.Minute) // the daily refresh is due
		w.stop()
		time.Sleep(3*24*time.Hour + time.Hour)
		w.boot(nil)
		w.want("ex.test", "OK secure match=.ex.test servername=hostname") // the policy was refreshed meanwhile, the hint is too old
		w.stop()
	})
}

func TestSTS083_NewID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", "version: STSv1\nmode: enforce\nmx: old.ex.test\nmax_age: 604800\n")
		w.want("ex.test", "OK secure match=old.ex.test servername=hostname") // row MM
		w.hosts.set("ex.test", enforceBody)
		w.dns.Set(`ad _mta-sts.ex.test 300 TXT "v=STSv1; id=2"`)
		w.want("ex.test", "OK secure match=old.ex.test servername=hostname")
		time.Sleep(301 * time.Second)
		w.want("ex.test", secureReply)
	})
}

func TestSTS094_Removal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		w.hosts.set("ex.test", "version: STSv1\nmode: none\nmax_age: 86400\n")
		w.dns.Set(`ad _mta-sts.ex.test 300 TXT "v=STSv1; id=2"`)
		time.Sleep(301 * time.Second)
		w.want("ex.test", "NOTFOUND ")
		w.dns.Set("ad nx _mta-sts.ex.test 300 TXT")
		w.hosts.set("ex.test", "")
		time.Sleep(301 * time.Second)
		w.want("ex.test", "NOTFOUND ")
		time.Sleep(86400 * time.Second)
		w.want("ex.test", "NOTFOUND ")
		if _, err := w.engine.Show("ex.test"); !errors.Is(err, ErrNotHeld) {
			t.Errorf("after its max_age the policy is still held: %v", err)
		}
	})
}

func TestCCH06_TinyMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "604800", "0"))
		w.want("ex.test", secureReply)
		time.Sleep(10 * time.Second)
		w.want("ex.test", secureReply)
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches in ten seconds", n)
		}
		time.Sleep(291 * time.Second)
		w.want("ex.test", secureReply)
		if n := w.hosts.gets(); n == 0 || n > 2 {
			t.Errorf("%d fetches after five minutes", n)
		}
	})
}

// TestCCH07_ExpiredAndFailing: one look, not as many as fit before the deadline.
func TestCCH07_ExpiredAndFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "604800", "86400"))
		w.want("ex.test", secureReply)
		w.hosts.set("ex.test", "")
		w.dns.Set(`ad _mta-sts.ex.test 3600 TXT "v=STSv1; id=2"`)
		for range 13 {
			time.Sleep(2 * time.Hour)
			w.dns.Asked()
			w.ask("ex.test")
			if n := w.count("TXT _mta-sts.ex.test"); n > 2 {
				t.Fatalf("%d looks at the record for one question", n)
			}
		}
		w.want("ex.test", "NOTFOUND ")
	})
}

// TestSTS090_LookingProlongsNothing: the policy host is dead, the record with the
// id that is held stays visible, and questions go on. The policy ends max_age
// after its last fetch, not after the last look at the record.
func TestSTS090_LookingProlongsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "604800", "86400"))
		w.want("ex.test", secureReply)
		first, err := w.engine.Show("ex.test")
		if err != nil {
			t.Fatal(err)
		}
		w.hosts.set("ex.test", "")
		w.dns.Asked()
		for range 24 {
			w.want("ex.test", secureReply)
			h, err := w.engine.Show("ex.test")
			if err != nil || !h.ExpiresAt.Equal(first.ExpiresAt) || !h.FetchedAt.Equal(first.FetchedAt) {
				t.Fatalf("after looks at the record: %+v, %v", h, err)
			}
			time.Sleep(time.Hour - time.Millisecond)
		}
		if n := w.count("TXT _mta-sts.ex.test"); n < 20 {
			t.Errorf("only %d looks at the record", n)
		}
		w.want("ex.test", secureReply) // 24 ms before its end
		if h, _ := w.engine.Show("ex.test"); h.CheckedAt == nil || h.CheckedAt.Before(first.FetchedAt.Add(20*time.Hour)) {
			t.Errorf("the record was last looked at %v", h.CheckedAt)
		}
		time.Sleep(time.Until(first.FetchedAt.Add(86400 * time.Second)))
		w.want("ex.test", "NOTFOUND ")
		if n := w.hosts.gets(); n < 5 {
			t.Errorf("%d fetches were tried", n)
		}
	})
}

// TestSTS008_NullMXKeepsThePolicy: a domain that takes no mail any more is fetched
// daily as before, and "." is nobody's mail host.
func TestSTS008_NullMXKeepsThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		w.dns.Set("ad ex.test 300 MX 0 .")
		first, _ := w.engine.Show("ex.test")
		w.dns.Asked()
		for range 26 {
			time.Sleep(time.Hour)
			w.want("ex.test", d4Reply) // the published list: Postfix bounces before it comes to that
		}
		h, err := w.engine.Show("ex.test")
		if err != nil || !h.FetchedAt.After(first.FetchedAt) {
			t.Errorf("after a refresh: %+v, %v", h, err)
		}
		for _, q := range w.dns.Asked() {
			if q != "MX ex.test" && q != "TXT _mta-sts.ex.test" {
				t.Errorf("asked %q", q)
			}
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

// TestSTS096_EvictedWhileFetching: a policy is found although a flood evicted
// its domain before it came.
func TestSTS096_EvictedWhileFetching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, again := range map[string]bool{"nobody asked meanwhile": false, "asked meanwhile": true} {
			w := start(t, signedZone, nil)
			w.hosts.set("ex.test", enforceBody)
			w.hosts.delay = 10 * time.Second
			w.want("ex.test", "NOTFOUND ")
			w.engine.domains.Delete("ex.test")
			if again {
				w.want("ex.test", "NOTFOUND ")
			}
			time.Sleep(20 * time.Second)
			w.hosts.gets()
			w.want("ex.test", secureReply)
			if n := w.hosts.gets(); n != 0 {
				t.Errorf("%s: fetched again", name)
			}
			if n := len(w.engine.Held()); n != 1 {
				t.Errorf("%s: %d policies held", name, n)
			}
			if err := w.engine.Flush(context.Background(), "ex.test"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if n := len(w.engine.Held()); n != 0 {
				t.Errorf("%s: %d policies held after a flush", name, n)
			}
			w.stop()
		}
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
