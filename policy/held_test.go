package policy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

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

// TestRefresh_SaysWhyNothingIsHeld, in a sentence that names the domain once.
func TestRefresh_SaysWhyNothingIsHeld(t *testing.T) {
	for _, c := range []struct{ name, zone, body, want string }{
		{"no record", "ad nx _mta-sts.ex.test 300 TXT", "", "ex.test has no MTA-STS policy: no record at _mta-sts.ex.test"},
		{"bad record", `ad _mta-sts.ex.test 300 TXT "v=STSv1; id="`, "", "no MTA-STS policy of ex.test is held: invalid MTA-STS record: "},
		{"no answer", "servfail _mta-sts.ex.test TXT", "", "no MTA-STS policy of ex.test is held: "},
		{"404", signedZone, "", "no MTA-STS policy of ex.test is held: "},
		{"expired at once", signedZone, "version: STSv1\nmode: testing\nmx: ex.test\nmax_age: 0\n", "no MTA-STS policy of ex.test is held: it has expired, max_age"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, c.zone, nil)
				defer w.stop()
				w.hosts.set("ex.test", c.body)
				_, err := w.engine.Refresh(context.Background(), "Ex.test")
				if !errors.Is(err, ErrNotHeld) || !strings.HasPrefix(err.Error(), c.want) || len(err.Error()) == len(c.want) && c.name != "no record" {
					t.Errorf("got %v, want %s", err, c.want)
				}
				if _, err := w.engine.Refresh(context.Background(), "a..b"); !errors.Is(err, ErrNoDestination) || err.Error() != `"a..b": no destination: an empty label` {
					t.Errorf("bad name: %v", err)
				}
			})
		})
	}
}
