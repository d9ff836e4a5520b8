package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
)

func emergencyRules(t *testing.T, now time.Time, v tlspolicy.Version, texts ...string) *Rules {
	t.Helper()
	var rules []Rule
	for _, text := range texts {
		match, level, _ := strings.Cut(text, " ")
		level, exempted, _ := strings.Cut(level, "|")
		rt := RuleText{Match: strings.Split(match, ","), Level: level, Reason: "test", Source: "postseal.toml:1"}
		switch exempted {
		case "monitor":
			rt.Mode = "monitor"
		case "expired":
			rt.Until = now.Add(-time.Hour)
		case "":
		default:
			rt.Exempt = []string{exempted}
		}
		r, err := ParseRule(rt, v)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	rs, err := NewRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// TestEmergency: one line per case, with all that a static map can hold.
func TestEmergency(t *testing.T) {
	now := time.Now()
	usable := &LastSeen{At: now, Secure: true, Hosts: []LastSeenHost{{Preference: 10, Name: "a.ex.test", Status: statusText(dane.Usable)}}}
	policies := []HeldPolicy{
		{Domain: "ex.test", Body: enforceBody},
		{Domain: "dane.ex.test", Body: "version: STSv1\nmode: enforce\nmx: *.ex.test\nmax_age: 1\n", LastSeen: usable},
		{Domain: "testing.test", Body: strings.ReplaceAll(enforceBody, "enforce", "testing")},
		{Domain: "old.test", Body: enforceBody, ExpiresAt: now.Add(-time.Minute)},
	}
	known, _ := tlspolicy.ParseVersion("3.11.0")
	static := []string{"dane.ex.test dane-only", "ex.test secure match=.ex.test servername=hostname"}
	for _, c := range []struct {
		name  string
		o     Options
		rules []string
		want  []string
		left  []string // words of what is left out
	}{
		{"policies alone", Options{}, nil, static, []string{"port or in brackets"}},
		{"attributes are never written", Options{Capability: Narrowing}, nil, static, []string{"port"}},
		{"floor", Options{Floor: FloorEncrypt}, []string{"a.test encrypt"}, append([]string{"a.test encrypt"}, static...), []string{"port", "floor = \"encrypt\""}},
		{"rules", Options{}, []string{"ex.test encrypt protocols=>=TLSv1.2", "b.test verify", "c.test may", ".d.test encrypt", "m.test encrypt|monitor", "o.test encrypt|expired"},
			[]string{".d.test encrypt", "b.test verify", "c.test may", "dane.ex.test dane-only", "ex.test secure match=.ex.test servername=hostname protocols=>=TLSv1.2"}, []string{"port"}},
		{"the first rule wins, not the longest key", Options{}, []string{".p.test encrypt", "a.p.test may", ".b.p.test none"},
			append([]string{".b.p.test encrypt", ".p.test encrypt", "a.p.test encrypt"}, static...), []string{"port"}},
		{"a rule as written stands above a policy", Options{}, []string{"ex.test may"}, []string{"dane.ex.test dane-only", "ex.test may"}, []string{"port"}},
		{"brackets and ports", Options{}, []string{"[h.test] encrypt", "[h.test]:587 secure", "p.test:25 encrypt", "[192.0.2.1] may", "[2001:db8::1]:26 encrypt"},
			append([]string{"[192.0.2.1] may", "[192.0.2.1]:25 may", "[IPv6:2001:db8::1]:26 encrypt", "[h.test] encrypt", "[h.test]:25 encrypt", "[h.test]:587 secure", "p.test encrypt", "p.test:25 encrypt"}, static...), []string{"port"}},
		{"exempt", Options{}, []string{"ex.test exempt|sts", ".ex.test encrypt"}, []string{".ex.test encrypt", "dane.ex.test dane-only"}, []string{"port"}},
		{"exempt below a parent", Options{}, []string{"a.z.test exempt", ".z.test encrypt"}, append([]string{".z.test encrypt"}, static...), []string{"a.z.test: the line of .z.test", "port"}},
		{"mail hosts", Options{}, []string{"mx:*.hoster.test secure", "l.test may"}, append(slices.Clone(static), "l.test encrypt"), []string{"mx:*.hoster.test", "port"}},
		{"main.cf is stronger", Options{Main: MainStronger}, []string{"a.test encrypt"}, static, []string{"port"}},
		{"only a newer Postfix", Options{}, []string{"n.test encrypt enable_rpk=yes ciphers=high"}, append(slices.Clone(static), "n.test encrypt ciphers=high"), []string{"n.test: written without", "port"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines, left := Emergency(policies, nil, emergencyRules(t, now, known, c.rules...), c.o, now)
			slices.Sort(c.want)
			if !slices.Equal(lines, c.want) {
				t.Errorf("got  %q\nwant %q", lines, c.want)
			}
			if len(left) != len(c.left) {
				t.Errorf("left %q, want %q", left, c.left)
			}
			for _, word := range c.left {
				if !strings.Contains(strings.Join(left, "\n"), word) {
					t.Errorf("left %q: nothing about %q", left, word)
				}
			}
			oldest, _ := tlspolicy.ParseVersion("3.7")
			for _, line := range lines {
				key, value, _ := strings.Cut(line, " ")
				if _, err := tlspolicy.Parse(value, oldest); err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
}

// TestCCH09_EmergencyByMX: mx: rules are held against the MX sets that are known.
func TestCCH09_EmergencyByMX(t *testing.T) {
	now := time.Now()
	policies := []HeldPolicy{{Domain: "ex.test", Body: enforceBody}}
	published := "ex.test" + strings.TrimPrefix(d4Reply, "OK")
	set := func(secure bool, hosts ...string) KnownMX { return KnownMX{At: now, Secure: secure, Hosts: hosts} }
	for _, c := range []struct {
		name  string
		known map[string]KnownMX
		rules []string
		want  []string
	}{
		{"lowering a policy", map[string]KnownMX{"ex.test": set(true, "a.hoster.test")}, []string{"mx:*.hoster.test may"}, []string{"ex.test may"}},
		{"lowering, insecure", map[string]KnownMX{"ex.test": set(false, "a.hoster.test")}, []string{"mx:*.hoster.test may"}, []string{published}},
		{"lowering, one of two", map[string]KnownMX{"ex.test": set(true, "a.hoster.test", "b.test")}, []string{"mx:*.hoster.test may"}, []string{published}},
		{"raising, elsewhere", map[string]KnownMX{"l.test": set(false, "b.test")}, []string{"mx:*.hoster.test verify", "l.test may"}, []string{published, "l.test may"}},
		{"raising, unknown", nil, []string{"mx:*.hoster.test verify", "l.test may"}, []string{published, "l.test encrypt"}},
		{"raising, no hosts", map[string]KnownMX{"l.test": set(true)}, []string{"mx:*.hoster.test verify", "l.test may"}, []string{published, "l.test encrypt"}},
		{"raising, with a port", map[string]KnownMX{"l.test": set(false, "a.hoster.test")}, []string{"mx:*.hoster.test verify", "l.test:26 may"}, []string{published, "l.test verify", "l.test:26 verify"}},
		{"raising, named nowhere", map[string]KnownMX{"l.test": set(false, "a.hoster.test"), "k.test": set(false, "b.test")}, []string{"mx:*.hoster.test verify"}, []string{published, "l.test verify"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines, _ := Emergency(policies, c.known, emergencyRules(t, now, tlspolicy.Version{}, c.rules...), Options{}, now)
			if !slices.Equal(lines, c.want) {
				t.Errorf("got  %q\nwant %q", lines, c.want)
			}
		})
	}
}

// TestEmergencyWithoutRules: nil stands for none.
func TestEmergencyWithoutRules(t *testing.T) {
	if lines, left := Emergency(nil, nil, nil, Options{}, time.Now()); len(lines)+len(left) > 0 {
		t.Errorf("%q, %q", lines, left)
	}
}
