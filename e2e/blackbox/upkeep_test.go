package blackbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestCMB012_MismatchRefreshes: a policy that names none of the mail hosts any more is answered as published, and fetched
// anew at once although its id is the same.
func TestCMB012_MismatchRefreshes(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	const domain = "moving.test"
	truth.publish(t, domain+" MX 10 new."+domain+"\nnew."+domain+" A 192.0.2.2")
	publishSTS(t, domain, "1", enforce("new."+domain))
	hourAgo := time.Now().Add(-time.Hour).UTC()
	text, err := json.Marshal([]any{map[string]any{"domain": domain, "mode": "enforce", "id": "1", "mx": []string{"mx." + domain}, "max_age": 604800,
		"fetched_at": hourAgo, "expires_at": hourAgo.Add(604800 * time.Second), "body": enforce("mx." + domain)}})
	if err != nil {
		t.Fatal(err)
	}
	if r := d.runIn(string(text), "cache", "import", "-"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	const renewed = "OK secure match=new." + domain + " servername=hostname"
	if first := d.ask("QUERY", domain); first != secureFor(domain) && first != renewed {
		t.Errorf("at first %q", first)
	}
	d.await("new policy", func() bool { return d.ask("QUERY", domain) == renewed })
	if n := sites.gets(domain); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// TestSTS002_OwnPolicyOnly: a subdomain whose own policy is gone does not fall under its parent's.
func TestSTS002_OwnPolicyOnly(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	publishPlain(t, "top.test")
	publishPlain(t, "own.top.test")
	publishSTS(t, "top.test", "1", enforce("*.top.test"))
	publishSTS(t, "own.top.test", "1", policyText("none"))
	d.wants("top.test", secureFor("top.test"))
	d.wants("own.top.test", notFound)
}

// TestOperation_OddNames: commands about names that are none, or that look like paths.
func TestOperation_OddNames(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	publishPlain(t, "xn--odd-hoa.test")
	publishSTS(t, "xn--odd-hoa.test", "1", enforce("mx.xn--odd-hoa.test"))
	for _, name := range []string{"../x", "a/b", "..", ".", "", "%2e%2e", "a b", "x?y", "x#y", "a..b", "\xff"} {
		for _, command := range []string{"flush", "refresh", "show"} {
			if r := d.run("cache", command, name); r.code == 0 || r.err == "" {
				t.Errorf("cache %s %q: %+v", command, name, r)
			}
		}
	}
	d.wants("xn--odd-hoa.test", secureFor("xn--odd-hoa.test"))
	if r := d.run("cache", "flush", "XN--ODD-HOA.test."); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if strings.Contains(d.must("cache", "list"), "xn--odd-hoa.test") {
		t.Error("not flushed")
	}
	// CCH-11: a flush is logged.
	d.await("line about the flush", func() bool { return strings.Contains(d.log.String(), "forgotten by the operator") })
}

// TestPFX014_ReloadStorm: reloads in a row, by command and signal, while questions are answered.
func TestPFX014_ReloadStorm(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	publishPlain(t, "storm.test")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c, err := dial("tcp", d.socketmap())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for {
				select {
				case <-stop:
					return
				default:
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				if got, err := c.ask("QUERY", "storm.test"); got != notFound && got != "OK dane" || err != nil {
					t.Errorf("%q, %v", got, err)
					return
				}
			}
		})
	}
	for i := range 10 {
		floor := [...]string{"inherit", "dane"}[i%2]
		d.configure(d.conf.with(config{"tls_policy": fmt.Sprintf("floor = %q", floor)}))
		d.signal(syscall.SIGHUP)
		d.must("reload")
		if got, want := d.ask("QUERY", "storm.test"), [...]string{notFound, "OK dane"}[i%2]; got != want {
			t.Errorf("reload %d: %q, want %q", i, got, want)
		}
	}
	close(stop)
	wg.Wait()
}

// TestOperation_Log: the log is JSON when asked, and never tells a rule's reason to anybody outside.
func TestOperation_Log(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, config{"rule": "[[rule]]\nmatch = [\"log.test\"]\nlevel = \"may\"\nreason = \"r\""})
	d.start("--log-format", "json")
	publishPlain(t, "log.test")
	d.wants("log.test", "OK may")
	d.terminate()
	for line := range strings.Lines(d.log.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry["msg"] == nil || entry["level"] == nil {
			t.Errorf("%v: %q", err, line)
		}
	}
}
