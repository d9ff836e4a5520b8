package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// keysOf writes the shape of a decoded JSON value, "key type" by line; of a list
// it is that of the first element.
func keysOf(shape map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		shape[path] = "object"
		for key, value := range v {
			keysOf(shape, path+"."+key, value)
		}
	case []any:
		shape[path] = "list"
		if len(v) > 0 {
			keysOf(shape, path+"[]", v[0])
		}
	default:
		shape[path] = fmt.Sprintf("%T", v)
	}
}

// TestExplain_Contract: the keys of the JSON object and their types are the same
// whatever is known of the destination. Scripts depend on them.
func TestExplain_Contract(t *testing.T) {
	const text, number, is, list, object, null = "string", "float64", "bool", "list", "object", "<nil>"
	always := map[string]string{
		"": object, ".key": text, ".level": text, ".source": text, ".row": text, ".replies": object, ".withheld": text, ".rule": null + "|" + object, ".sender": null,
		".postfix_version": text, ".warnings": list, ".at": text, ".recipient": null, ".probe": null,
		".sts": object, ".sts.state": text, ".sts.id": text, ".sts.mode": text, ".sts.mx": list, ".sts.max_age": number,
		".sts.fetched_at": null + "|" + text, ".sts.expires_at": null + "|" + text, ".sts.checked_at": null + "|" + text, ".sts.error": text, ".sts.notes": list,
		".dane": object, ".dane.class": text, ".dane.secure_mx": is, ".dane.error": text, ".dane.hosts": list,
	}
	for _, name := range MapNames {
		always[".replies."+name] = text
	}
	host := map[string]string{
		"": object, ".name": text, ".preference": number, ".addresses": list, ".authentic": is, ".tlsa": list, ".status": text, ".tried": list, ".error": text,
		".in_policy": null + "|" + is, ".postfix": text,
	}
	rule := map[string]string{"": object, ".level": text, ".match": list, ".sender": list, ".source": text, ".until": null + "|" + text}
	for _, c := range []struct{ name, key, zone, body, rule string }{
		{"policy", "ex.test", tlsaZone, enforceBody, ""},
		{"mode none", "ex.test", signedZone, "version: STSv1\nmode: none\nmax_age: 86400\n", ""},
		{"no record", "ex.test", signedZone + "ad nx _mta-sts.ex.test 300 TXT", "", ""},
		{"no policy", "ex.test", signedZone, "", ""},
		{"nobody answers", "ex.test", "servfail ex.test MX\nservfail _mta-sts.ex.test TXT", "", ""},
		{"a host hangs", "ex.test", signedZone + "hang n1.ex.test A\nhang n1.ex.test AAAA", enforceBody, ""},
		{"literal", "[192.0.2.1]", "", "", ""},
		{"rule", "ex.test", signedZone, "", "ex.test encrypt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, c.zone, func(cfg *Config) {
					if c.rule != "" {
						cfg.Settings.Rules = emergencyRules(t, time.Now(), tlspolicy.Version{}, c.rule)
					}
				})
				defer w.stop()
				w.hosts.set("ex.test", c.body)
				x, err := w.engine.Explain(context.Background(), c.key, false)
				if err != nil {
					t.Fatal(err)
				}
				got := decoded(t, x)
				hasShape(t, got, always, ".rule.", ".dane.hosts[]", ".sts.mx[]", ".sts.notes[]", ".warnings[]")
				top := got.(map[string]any)
				if r := top["rule"]; (r != nil) != (c.rule != "") {
					t.Errorf("rule %v", r)
				} else if r != nil {
					hasShape(t, r, rule, ".match[]")
				}
				for _, h := range top["dane"].(map[string]any)["hosts"].([]any) {
					hasShape(t, h, host, ".addresses[]", ".tlsa[]", ".tried[]")
				}
			})
		})
	}
}

func decoded(t *testing.T, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// hasShape compares the keys of an object with those wanted, but for what begins
// with one of except.
func hasShape(t *testing.T, v any, want map[string]string, except ...string) {
	t.Helper()
	got := map[string]string{}
	keysOf(got, "", v)
	for path, kinds := range want {
		if !strings.Contains("|"+kinds+"|", "|"+got[path]+"|") || got[path] == "" {
			t.Errorf("%s is %q, want %s", path, got[path], kinds)
		}
	}
next:
	for path := range got {
		for _, prefix := range except {
			if strings.HasPrefix(path, prefix) {
				continue next
			}
		}
		if want[path] == "" {
			t.Errorf("%s is not part of the contract", path)
		}
	}
}

func TestExplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, strings.ReplaceAll(signedZone, "ad nx _25._tcp.n1.ex.test 300 TLSA", "ad _25._tcp.n1.ex.test 300 TLSA 3 1 1 "+strings.Repeat("ab", 32)), nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		for _, live := range []bool{false, true, true} {
			x, err := w.engine.Explain(context.Background(), "Ex.test", live)
			if err != nil {
				t.Fatal(err)
			}
			if x.Key != "ex.test" || x.Level != "dane-only" || x.Source != SourceDANESTS || x.Replies["QUERY"] != "OK dane-only" || x.STS.State != "enforce" || x.STS.ID != "1" ||
				x.DANE.Class != "D1" || len(x.DANE.Hosts) != 1 || !x.DANE.SecureMX {
				t.Errorf("live %t: %+v", live, x)
			}
			h := x.DANE.Hosts[0]
			if h.Name != "n1.ex.test" || h.Preference != 10 || h.Status != "usable" || len(h.TLSA) != 1 || h.Addresses[0] != netip.MustParseAddr("192.0.2.1").String() {
				t.Errorf("%+v", h)
			}
		}
		if n := w.hosts.gets(); n < 2 {
			t.Errorf("--live fetched %d times", n)
		}
		if _, err := w.engine.Explain(context.Background(), "a..b", false); !errors.Is(err, ErrNoDestination) {
			t.Errorf("bad key: %v", err)
		}
	})
}

// TestDANE039_LiveWeakensNothing: evidence whose time is not up outlasts a look-up that
// fails because an administrator looked, as note 8 of the decision table wants;
// what the look brings replaces it.
func TestDANE039_LiveWeakensNothing(t *testing.T) {
	const mx, host, tlsa, txt = "servfail ex.test MX", "servfail n1.ex.test A\nservfail n1.ex.test AAAA", "servfail _25._tcp.n1.ex.test TLSA", "servfail _mta-sts.ex.test TXT"
	for _, c := range []struct {
		name, zone, body string
		floor            Floor
		reply            string
	}{
		{"D1", tlsaZone, "", FloorInherit, "OK dane"},
		{"D1, encrypt", tlsaZone, "", FloorEncrypt, "OK dane-only"},
		{"D1 and enforce", tlsaZone, enforceBody, FloorInherit, "OK dane-only"},
		{"D0 and enforce", signedZone, enforceBody, FloorInherit, secureReply},
	} {
		for _, broken := range []string{mx, host, tlsa, txt, strings.Join([]string{mx, host, tlsa, txt}, "\n")} {
			for _, how := range []string{"explain", "refresh"} {
				t.Run(c.name+", "+broken+", "+how, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := start(t, c.zone, settings(c.floor))
						defer w.stop()
						w.hosts.set("ex.test", c.body)
						w.want("ex.test", c.reply)
						w.dns.Set(broken)
						time.Sleep(time.Minute)
						if how == "refresh" {
							_, _ = w.engine.Refresh(context.Background(), "ex.test")
						} else if x, err := w.engine.Explain(context.Background(), "ex.test", true); err != nil || x.Replies["QUERY"] != c.reply || !strings.Contains(fmt.Sprintf("%+v", x), "SERVFAIL") {
							t.Errorf("%v: %+v", err, x)
						}
						w.want("ex.test", c.reply)
						time.Sleep(3 * time.Minute)
						w.want("ex.test", c.reply)
						w.dns.Set(c.zone)
						w.dns.Set("ad ex.test 300 MX 10 n2.ex.test\nad n2.ex.test 300 A 192.0.2.2\nad nodata n2.ex.test 300 AAAA\nad nx _25._tcp.n2.ex.test 300 TLSA")
						w.dns.Asked()
						if _, err := w.engine.Explain(context.Background(), "ex.test", true); err != nil {
							t.Fatal(err)
						}
						if got, bad := w.ask("ex.test"), c.reply; got == bad {
							t.Errorf("the new MX set does not count: %q", got)
						}
						if n := w.count("MX ex.test"); n != 1 {
							t.Errorf("%d looks at the MX set", n)
						}
					})
				})
			}
		}
	}
}

// TestExplain_LiveEndsInTime: `postseal explain` waits 100 s, whatever hangs.
func TestExplain_LiveEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, tlsaZone, nil)
		defer w.stop()
		w.hosts.set("ex.test", enforceBody)
		w.want("ex.test", "OK dane-only")
		w.dns.Set("hang ex.test MX\nhang n1.ex.test A\nhang n1.ex.test AAAA\nhang _mta-sts.ex.test TXT")
		w.hosts.delay = 5 * time.Minute
		begin := time.Now()
		if _, err := w.engine.Explain(context.Background(), "ex.test", true); err != nil || time.Since(begin) > 90*time.Second {
			t.Errorf("%v, after %v", err, time.Since(begin))
		}
	})
}
