package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/internal/postfix/conf"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/resolver/resolvertest"
	"github.com/postseal/postseal/policy"
)

// asking is a Postfix of that version, one service of which asks us.
func asking(version string) *conf.Snapshot {
	v, err := tlspolicy.ParseVersion(version)
	if err != nil {
		panic(err)
	}
	return &conf.Snapshot{Version: v, Services: []*conf.Service{{Name: "smtp", Type: "unix", Command: "smtp", UsesOurMap: true}}}
}

// The lowest version of the last 24 hours counts: after an upgrade processes of
// the old one are still running, however long ago its files were read; and a day
// later it counts no more, without anybody touching a file.
func TestPFX23_LowestOfADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDaemon(t, standing{DNS: &resolvertest.DNS{}})
		w := newPostfixWatch(d)
		d.postfix = w
		defer w.end()
		expect := func(when, want string) {
			t.Helper()
			synctest.Wait()
			x, err := d.engine.Explain(t.Context(), "[192.0.2.1]", false)
			if err != nil || x.Postfix != want {
				t.Errorf("%s: the engine knows %q, want %q (%v)", when, x.Postfix, want, err)
			}
		}
		w.take(asking("3.7.11"), nil)
		expect("at the start", "3.7.11")
		time.Sleep(9 * 24 * time.Hour)
		expect("after days without a change", "3.7.11")
		w.take(asking("3.11.7"), nil)
		expect("after the upgrade", "3.7.11")
		time.Sleep(versionMemory - time.Second)
		expect("nearly a day later", "3.7.11")
		time.Sleep(time.Second)
		expect("a day later", "3.11.7")

		w.take(asking("3.10.13"), nil)
		expect("a fall acts at once", "3.10.13")
		time.Sleep(time.Hour)
		w.take(nil, conf.ErrNoPostfix)
		expect("nobody asks any more", "3.10.13")
		time.Sleep(versionMemory)
		expect("nobody has asked for a day", "")
	})
}

// Two upgrades in a day: each version is forgotten in its own time.
func TestPFX23_TwoUpgrades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := testDaemon(t, standing{DNS: &resolvertest.DNS{}})
		w := newPostfixWatch(d)
		defer w.end()
		for _, v := range []string{"3.7.11", "3.10.13", "3.11.7"} {
			w.take(asking(v), nil)
			time.Sleep(10 * time.Hour)
		}
		for _, want := range []string{"3.10.13", "3.11.7"} { // 20 h after 3.7.11 went, 10 h after 3.10.13
			time.Sleep(4*time.Hour + time.Second)
			synctest.Wait()
			w.with(func(p policy.Postfix) {
				if got := p.Version.String(); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
			time.Sleep(6 * time.Hour)
		}
	})
}

// The names that the engine answers are those that Postfix's configuration is
// searched for.
func TestT41_Names(t *testing.T) {
	if conf.SenderMap != policy.SenderMap || conf.EnforcedMap != policy.EnforcedMap || conf.EnforcedTransport != policy.EnforcedTransport {
		t.Error("conf and policy have other names")
	}
}
