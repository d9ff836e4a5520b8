package policy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSTS093_STS091_DailyRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", secureReply)
		first, _ := w.engine.Show("ex.test")
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "*.ex.test", "other.ex.test"))
		w.dns.Set("servfail _mta-sts.ex.test TXT") // RFC 8461 §10.2: irrespective of the record
		time.Sleep(25 * time.Hour)
		w.want("ex.test", "OK secure match=other.ex.test servername=hostname")
		second, _ := w.engine.Show("ex.test")
		if !second.FetchedAt.After(first.FetchedAt) || second.ID != "1" {
			t.Errorf("after a refresh: %+v", second)
		}
		w.hosts.gets()
		time.Sleep(40 * 24 * time.Hour)
		if n := w.hosts.gets(); n < 13 || n > 22 {
			t.Errorf("CCH-05: %d refreshes in 40 days without a question", n)
		}
		w.want("ex.test", "NOTFOUND ") // expired, and the record cannot be seen
	})
}

// TestCCH05_RestartIsNoQuestion: fourteen days count from the last question.
func TestCCH05_RestartIsNoQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "604800", "31557600"))
		w.want("ex.test", secureReply)
		for range 4 {
			time.Sleep(5 * 24 * time.Hour)
			w.stop()
			w.boot(nil)
		}
		w.hosts.gets()
		time.Sleep(5 * 24 * time.Hour)
		if n := w.hosts.gets(); n != 0 {
			t.Errorf("%d refreshes 20 days after the last question", n)
		}
		w.want("ex.test", secureReply)
		time.Sleep(5 * time.Minute)
		if n := w.hosts.gets(); n != 1 {
			t.Errorf("%d fetches after a new question", n)
		}
		w.stop()
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
