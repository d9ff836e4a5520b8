package policy

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/policy/dane"
)

var tlsaZone = strings.ReplaceAll(signedZone, "ad nx _25._tcp.n1.ex.test 300 TLSA", "ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 "+strings.Repeat("ab", 32))

// throughJSON is what the control socket and `cache export --json` make of a list.
func throughJSON(t *testing.T, all []HeldPolicy) []HeldPolicy {
	t.Helper()
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	var again []HeldPolicy
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	return again
}

// TestCCH09_HintInJSON: the emergency map from a running daemon is that from its
// file, and an import knows what rested on DANE.
func TestCCH09_HintInJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, tlsaZone, nil)
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "OK dane-only")
		time.Sleep(3 * time.Second) // the batch is written
		exported := throughJSON(t, w.engine.Held())
		read, err := ReadHeld(context.Background(), w.store)
		if err != nil {
			t.Fatal(err)
		}
		for from, all := range map[string][]HeldPolicy{"the daemon": exported, "its file": throughJSON(t, read)} {
			if lines, _ := Emergency(all, nil, nil, Options{}, time.Now()); !slices.Equal(lines, []string{"ex.test dane-only"}) {
				t.Errorf("the map from %s: %q", from, lines)
			}
		}
		w.stop()

		fresh := start(t, "servfail ex.test MX\nservfail _mta-sts.ex.test TXT", nil)
		if n, err := fresh.engine.Import(context.Background(), exported); n != 1 || err != nil {
			t.Fatalf("imported %d: %v", n, err)
		}
		fresh.want("ex.test", "OK dane-only") // row D4.A
		fresh.stop()
		fresh.boot(nil)
		fresh.want("ex.test", "OK dane-only")
		fresh.stop()
	})
}

// TestCCH10_ImportedHint: it is bounded, checked, and lasts no longer for having been imported.
func TestCCH10_ImportedHint(t *testing.T) {
	usable := func(names ...string) []LastSeenHost {
		var hosts []LastSeenHost
		for _, name := range names {
			hosts = append(hosts, LastSeenHost{Preference: 10, Name: name, Status: statusText(dane.Usable)})
		}
		return hosts
	}
	for _, c := range []struct {
		name  string
		at    time.Duration // from now
		hosts []LastSeenHost
		want  string // the answer with all DNS down, or what is refused
		err   string
		after time.Duration // asked so much later
	}{
		{name: "of now", hosts: usable("n1.ex.test"), want: "OK dane-only"},
		{name: "names are folded", hosts: usable("N1.Ex.test."), want: "OK dane-only"},
		{name: "too old", at: -hintLasts - time.Second, hosts: usable("n1.ex.test"), want: d4Reply},
		{name: "ahead of its time", at: 1000 * hintLasts, hosts: usable("n1.ex.test"), want: d4Reply, after: hintLasts + time.Hour},
		{name: "many hosts", hosts: usable(slices.Repeat([]string{"n1.ex.test"}, dane.MaxHosts+1)...), err: "mail hosts, at most"},
		{name: "no name", hosts: usable("n1 .ex.test"), err: `last_seen: mail host "n1 .ex.test"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, "servfail ex.test MX\nservfail _mta-sts.ex.test TXT", nil)
				defer w.stop()
				now := time.Now()
				long := strings.ReplaceAll(enforceBody, "604800", "31557600")
				_, err := w.engine.Import(context.Background(), []HeldPolicy{{Domain: "ex.test", Body: long, FetchedAt: now,
					LastSeen: &LastSeen{At: now.Add(c.at), Secure: true, Hosts: c.hosts}}})
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) {
						t.Errorf("got %v, want %q", err, c.err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(c.after)
				w.want("ex.test", c.want)
			})
		})
	}
}

const d4Reply = "OK secure match=.ex.test servername=hostname"

// TestCCH10_OlderHint: a hint in memory or file is never replaced by an older one.
func TestCCH10_OlderHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, signedZone, nil)
		w.hosts.set("ex.test", strings.ReplaceAll(enforceBody, "604800", "86400"))
		w.want("ex.test", secureReply) // its host has no TLSA records
		time.Sleep(10 * time.Second)
		now := time.Now()
		old := &LastSeen{At: now.Add(-time.Hour), Secure: true, Hosts: []LastSeenHost{{Preference: 10, Name: "n1.ex.test", Status: statusText(dane.Usable)}}}
		if n, err := w.engine.Import(context.Background(), []HeldPolicy{{Domain: "ex.test", Body: enforceBody, FetchedAt: now, LastSeen: old}}); n != 1 || err != nil {
			t.Fatalf("imported %d: %v", n, err)
		}
		for range 2 {
			if h, err := w.engine.Show("ex.test"); err != nil || h.Class != "D0" {
				t.Errorf("class %q, %v", h.Class, err)
			}
			w.stop()
			w.boot(nil)
		}
		w.stop()
	})
}

// TestLastSeenOfAnotherVersion: a status is a word, and an unknown one is refused.
func TestLastSeenOfAnotherVersion(t *testing.T) {
	var l LastSeen
	for text, ok := range map[string]bool{`"usable"`: true, `"failed"`: true, `"splendid"`: false, `4`: false, `""`: false} {
		err := json.Unmarshal([]byte(`{"at":"2026-01-02T03:04:05Z","secure_mx":true,"hosts":[{"preference":10,"name":"a.test","status":`+text+`}]}`), &l)
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
