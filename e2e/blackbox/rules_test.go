package blackbox

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

const rulesZone = `
d1.rules.test MX 10 mx.d1.rules.test
mx.d1.rules.test A 192.0.2.1
_25._tcp.mx.d1.rules.test TLSA 3 1 1 ` + sum256 + `
d0.rules.test MX 10 mx.d0.rules.test
mx.d0.rules.test A 192.0.2.2
sts.rules.test MX 10 mx.sts.rules.test
mx.sts.rules.test A 192.0.2.3
both.rules.test MX 10 mx.both.rules.test
mx.both.rules.test A 192.0.2.4
_25._tcp.mx.both.rules.test TLSA 3 1 1 ` + sum256 + `
a.sub.rules.test MX 10 mx.d0.rules.test
hosted.rules.test MX 10 acme.mail.provider.test
hosted.rules.test MX 20 acme2.mail.provider.test
acme.mail.provider.test A 192.0.2.5
acme2.mail.provider.test A 192.0.2.6
half.rules.test MX 10 acme.mail.provider.test
half.rules.test MX 20 mx.d0.rules.test
`

// ruleCases: rules of a file, and what keys are answered. Each rule file runs in a daemon of its own, floor inherit.
var ruleCases = []struct {
	name, rules string
	want        map[string]string
}{
	{"CMB000_encrypt_is_a_minimum", "[[rule]]\nmatch = [\".rules.test\"]\nlevel = \"encrypt\"", map[string]string{
		"d1.rules.test": "OK dane-only", "d0.rules.test": "OK encrypt", "sts.rules.test": "OK secure match=mx.sts.rules.test servername=hostname",
		"both.rules.test": "OK dane-only", "rules.test": notFound, ".rules.test": notFound, "[mx.d0.rules.test]:587": notFound}},
	{"CMB000_encrypt_attributes", "[[rule]]\nmatch = [\"d0.rules.test\", \"d1.rules.test\"]\nlevel = \"encrypt protocols=>=TLSv1.2\"", map[string]string{
		"d0.rules.test": "OK encrypt protocols=>=TLSv1.2"}},
	{"CMB000_exempt_sts", "[[rule]]\nmatch = [\"both.rules.test\", \"sts.rules.test\"]\nlevel = \"exempt\"\nexempt = [\"sts\"]\nreason = \"r\"", map[string]string{
		"both.rules.test": "OK dane", "sts.rules.test": notFound}},
	{"CMB000_exempt_dane", "[[rule]]\nmatch = [\"both.rules.test\", \"d1.rules.test\"]\nlevel = \"exempt\"\nexempt = [\"dane\"]\nreason = \"r\"", map[string]string{
		"both.rules.test": "OK secure match=mx.both.rules.test servername=hostname", "d1.rules.test": notFound}},
	{"CMB000_exempt_both", "[[rule]]\nmatch = [\"both.rules.test\"]\nlevel = \"exempt\"\nreason = \"r\"", map[string]string{"both.rules.test": notFound}},
	{"CMB000_may", "[[rule]]\nmatch = [\"both.rules.test\"]\nlevel = \"may\"\nreason = \"r\"", map[string]string{"both.rules.test": "OK may", "d1.rules.test": "OK dane"}},
	{"CMB000_none", "[[rule]]\nmatch = [\"both.rules.test\"]\nlevel = \"none\"\nreason = \"r\"", map[string]string{"both.rules.test": "OK none"}},
	{"CMB000_dane", "[[rule]]\nmatch = [\"both.rules.test\", \"d0.rules.test\"]\nlevel = \"dane\"\nreason = \"r\"", map[string]string{
		"both.rules.test": "OK dane", "d0.rules.test": "OK dane"}},
	{"CMB000_as_written", "[[rule]]\nmatch = [\"d0.rules.test\"]\nlevel = \"secure match=nexthop:dot-nexthop\"\n[[rule]]\nmatch = [\"d1.rules.test\"]\nlevel = \"dane-only\"\n[[rule]]\nmatch = [\"sts.rules.test\"]\nlevel = \"verify match=x.test\"", map[string]string{
		"d0.rules.test": "OK secure match=nexthop:dot-nexthop", "d1.rules.test": "OK dane-only", "sts.rules.test": "OK verify match=x.test"}},
	{"CMB000_first_match", "[[rule]]\nmatch = [\"d0.rules.test\"]\nlevel = \"may\"\nreason = \"r\"\n[[rule]]\nmatch = [\".rules.test\"]\nlevel = \"encrypt\"", map[string]string{
		"d0.rules.test": "OK may", "a.sub.rules.test": "OK encrypt"}},
	{"CMB000_port_and_brackets", "[[rule]]\nmatch = [\"[mx.d0.rules.test]:587\", \"d0.rules.test\"]\nlevel = \"encrypt\"", map[string]string{
		"[mx.d0.rules.test]:587": "OK encrypt", "[mx.d0.rules.test]:submission": "OK encrypt", "[mx.d0.rules.test]": notFound, "[mx.d0.rules.test]:588": notFound,
		"d0.rules.test": "OK encrypt", "d0.rules.test:25": "OK encrypt", "d0.rules.test:2525": "OK encrypt", "[d0.rules.test]": notFound}},
	{"CMB000_mx_raises", "[[rule]]\nmatch = [\"mx:*.mail.provider.test\"]\nlevel = \"encrypt\"", map[string]string{
		"hosted.rules.test": "OK encrypt", "half.rules.test": "OK encrypt", "d0.rules.test": notFound}},
	{"CMB000_mx_lowers", "[[rule]]\nmatch = [\"mx:*.provider.test\"]\nlevel = \"may\"\nreason = \"r\"", map[string]string{
		"hosted.rules.test": "OK may", "half.rules.test": notFound}},
	{"CMB000_mx_unknown", "[[rule]]\nmatch = [\"mx:*.mail.provider.test\"]\nlevel = \"encrypt\"", map[string]string{"broken.rules.test": "OK encrypt"}},
	{"CMB000_expired", "[[rule]]\nmatch = [\"d0.rules.test\"]\nlevel = \"may\"\nreason = \"r\"\nuntil = 2020-01-01", map[string]string{"d0.rules.test": notFound}},
	{"CMB000_until_later", "[[rule]]\nmatch = [\"d0.rules.test\"]\nlevel = \"may\"\nreason = \"r\"\nuntil = 2099-01-01", map[string]string{"d0.rules.test": "OK may"}},
	{"CMB000_monitored", "[[rule]]\nmatch = [\"d0.rules.test\"]\nlevel = \"encrypt\"\nmode = \"monitor\"", map[string]string{"d0.rules.test": notFound}},
	{"STS003_suffix_rule", "[[rule]]\nmatch = [\".rules.test\"]\nlevel = \"may\"\nreason = \"r\"", map[string]string{
		".rules.test": notFound, ".test": notFound, "a.sub.rules.test": "OK may", ".sub.rules.test": notFound}},
	{"STS005_literal_rule", "[[rule]]\nmatch = [\"[192.0.2.1]\", \"[IPv6:2001:db8::1]:25\"]\nlevel = \"encrypt\"", map[string]string{"[192.0.2.1]": "OK encrypt", "[192.0.2.2]": notFound}},
	{"STS006_rule_spelling", "[[rule]]\nmatch = [\"D0.Rules.Test.\", \"bücher.rules.test\"]\nlevel = \"encrypt\"", map[string]string{
		"d0.rules.test": "OK encrypt", "d0.rules.test.": "OK encrypt", "xn--bcher-kva.rules.test": "OK encrypt"}},
}

func TestCMB_Rules(t *testing.T) {
	t.Parallel()
	truth.publish(t, rulesZone+"broken.rules.test MX !servfail\nxn--bcher-kva.rules.test A 192.0.2.9")
	publishSTS(t, "sts.rules.test", "1", enforce("mx.sts.rules.test"))
	publishSTS(t, "both.rules.test", "1", enforce("mx.both.rules.test"))
	for _, c := range ruleCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t, config{"rule": c.rules})
			for key, want := range c.want {
				d.wants(key, want)
			}
			for key := range c.want {
				if !strings.HasPrefix(key, ".") {
					if text := d.must("explain", key); strings.Contains(text, "reason = ") {
						t.Errorf("explain tells the reason: %s", text)
					}
				}
			}
		})
	}
}

// TestCMB_RuleMap: an existing policy file is read as rules.
func TestCMB_RuleMap(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, nil)
	if err := os.WriteFile(d.dir+"/tls_policy", []byte("# a comment\nmapped.rules.test encrypt protocols=>=TLSv1.2\n.below.rules.test secure match=x.test\n[relay.rules.test]:587\tencrypt\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.configure(d.conf.with(config{"tls_policy": "rule_map = \"tls_policy\"", "rule": "[[rule]]\nmatch = [\"a.below.rules.test\"]\nlevel = \"encrypt\""}))
	d.start()
	truth.publish(t, "mapped.rules.test A 192.0.2.1\na.below.rules.test A 192.0.2.1\nb.below.rules.test A 192.0.2.1\nrelay.rules.test A 192.0.2.1")
	d.wants("mapped.rules.test", "OK encrypt protocols=>=TLSv1.2")
	d.wants("a.below.rules.test", "OK encrypt")
	d.wants("b.below.rules.test", "OK secure match=x.test")
	d.wants("[relay.rules.test]:587", "OK encrypt")
}

// TestCMB016_Modes: monitor looks and keeps, off does not look.
func TestCMB016_Modes(t *testing.T) {
	t.Parallel()
	truth.publish(t, "modes.test MX 10 mx.modes.test\nmx.modes.test A 192.0.2.1\n_25._tcp.mx.modes.test TLSA 3 1 1 "+sum256)
	publishSTS(t, "modes.test", "1", enforce("mx.modes.test"))
	secure := secureFor("modes.test")
	for name, c := range map[string]struct {
		conf config
		mta  string // mode of [mta_sts]
		want string
		held bool
	}{
		"all":             {nil, "enforce", "OK dane-only", true},
		"sts_monitor":     {nil, "monitor", "OK dane", true},
		"sts_off":         {nil, "off", "OK dane", false},
		"dane_off":        {config{"dane": `mode = "off"`}, "enforce", secure, true},
		"dane_monitor":    {config{"dane": `mode = "monitor"`}, "enforce", secure, true},
		"both_off":        {config{"dane": `mode = "off"`}, "off", notFound, false},
		"global_monitor":  {config{"": `mode = "monitor"`}, "enforce", notFound, true},
		"global_and_rule": {config{"": `mode = "monitor"`, "rule": "[[rule]]\nmatch=[\"modes.test\"]\nlevel=\"encrypt\""}, "enforce", notFound, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, c.conf)
			d.configure(d.conf.with(config{"mta_sts": d.conf["mta_sts"] + fmt.Sprintf("\nmode = %q", c.mta)}))
			d.start()
			d.wants("modes.test", c.want)
			held := func() bool { return strings.Contains(d.must("cache", "list"), "modes.test") }
			if c.held {
				d.await("policy", held)
			} else if held() {
				t.Error("a policy is held")
			}
		})
	}
}

// TestCMB_RulesTakeEffectAtReload: evidence is kept, verdicts are not.
func TestCMB_RulesTakeEffectAtReload(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	publishPlain(t, "turn.test")
	conn := d.dial()
	ask := func(want string) {
		t.Helper()
		if got, err := conn.ask("QUERY", "turn.test"); got != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	ask(notFound)
	asked := len(truth.questions("turn.test"))
	d.configure(d.conf.with(config{"rule": "[[rule]]\nmatch = [\"turn.test\"]\nlevel = \"encrypt\""}))
	d.must("reload")
	ask("OK encrypt")
	if n := len(truth.questions("turn.test")); n != asked {
		t.Errorf("%d questions, before %d", n, asked)
	}
	good := d.conf
	d.configure(good.with(config{"tls_policy": `flor = "dane"`}))
	if r := d.run("reload"); r.code != 2 || !strings.Contains(r.err, "p.toml:") || !strings.Contains(r.err, "flor") {
		t.Errorf("bad file: %+v", r)
	}
	ask("OK encrypt")
	d.configure(good.with(config{"tls_policy": `floor = "dane"`, "rule": ""}))
	d.signal(syscall.SIGHUP)
	d.await("new floor", func() bool {
		got, err := conn.ask("QUERY", "turn.test")
		return err == nil && got == "OK dane"
	})
	d.configure(good.with(config{"tls_policy": `floor = "nonsense"`}))
	d.signal(syscall.SIGHUP)
	d.await("error", func() bool { return strings.Contains(d.log.String(), "the old one stays") })
	ask("OK dane")
}
