package policy

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const oldBody = "version: STSv1\nmode: enforce\nmx: old.ex.test\nmax_age: 604800\n"

const oldReply = "OK secure match=old.ex.test servername=hostname" // row MM

// mismatched is a world in which the policy of ex.test, fetched eleven minutes
// ago, names none of its mail hosts, and its record is due for a look.
func mismatched(t *testing.T) *world {
	t.Helper()
	w := start(t, signedZone, nil)
	w.hosts.set("ex.test", oldBody)
	w.want("ex.test", oldReply)
	time.Sleep(11 * time.Minute)
	if n := w.hosts.gets(); n != 1 {
		t.Errorf("%d fetches before", n)
	}
	return w
}

// TestCMB12_STS083_ReplacedWithoutANewID: a mismatch fetches the policy anew, and
// the answer does not wait for that.
func TestCMB12_STS083_ReplacedWithoutANewID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := mismatched(t)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.hosts.delay = 30 * time.Second
		for range 29 {
			begin := time.Now()
			w.want("ex.test", oldReply)
			if took := time.Since(begin); took != 0 {
				t.Errorf("answered after %v", took)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Second)
		w.want("ex.test", secureReply)
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// TestCMB12_OnceInTenMinutes, however often somebody asks.
func TestCMB12_OnceInTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := mismatched(t)
		defer w.stop()
		for range 4 * 60 * 2 {
			w.want("ex.test", oldReply)
			time.Sleep(15 * time.Second)
		}
		if n := w.hosts.gets(); n < 8 || n > 12 {
			t.Errorf("%d fetches in two hours", n)
		}
	})
}

// TestCMB12_STS042_PauseAfterAFailure: a mismatch is no reason to press a policy
// host that fails. The pauses are 5, 10, 20, 40, 60 minutes.
func TestCMB12_STS042_PauseAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := mismatched(t)
		defer w.stop()
		w.hosts.set("ex.test", "")
		for range 3 * 60 {
			w.want("ex.test", oldReply)
			time.Sleep(time.Minute)
		}
		if n := w.hosts.gets(); n < 2 || n > 6 {
			t.Errorf("%d fetches in three hours", n)
		}
	})
}

// TestCMB12_SoonAfterTheFetch: mail hosts and policy change a minute after the
// policy was fetched, under the same id.
func TestCMB12_SoonAfterTheFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "300 MX", "60 MX"), nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		w.dns.Set("ad ex.test 60 MX 10 new.other.test\nad new.other.test 300 A 192.0.2.2\nad nodata new.other.test 300 AAAA\nad nx _25._tcp.new.other.test 300 TLSA")
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "*.ex.test", "*.other.test"))
		time.Sleep(61 * time.Second)
		w.want("ex.test", "OK secure match=.ex.test servername=hostname") // row MM, and a fetch begins
		time.Sleep(time.Second)
		w.want("ex.test", "OK secure match=new.other.test servername=hostname")
	})
}

// TestCMB12_AllRefreshesUnderWay: a mismatch waits for its turn and keeps nobody waiting.
func TestCMB12_AllRefreshesUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := mismatched(t)
		defer w.stop()
		if !w.engine.refreshes.TryAcquire(maxRefreshes) {
			t.Fatal("refreshes are under way")
		}
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", oldReply)
		synctest.Wait()
		if n := w.hosts.gets(); n != 0 {
			t.Errorf("%d fetches beyond the limit", n)
		}
		w.engine.refreshes.Release(maxRefreshes)
		time.Sleep(301 * time.Second)
		w.want("ex.test", oldReply)
		synctest.Wait()
		w.want("ex.test", secureReply)
	})
}
