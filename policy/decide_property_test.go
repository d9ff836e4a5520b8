package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/postfix/tlspolicy/tlspolicytest"
	"github.com/postseal/postseal/policy/dane"
	"github.com/postseal/postseal/policy/mtasts"
)

// versions that understand just what a capability says.
var versions = map[Capability][]string{
	Plain:      {"3.7", "3.8.12", "3.9.9"},
	Attributes: {"3.10.0", "3.10.4"},
	Narrowing:  {"3.10.5", "3.10.13", "3.11.0"},
}

// hosts of the property tests: inside and outside of patterns, at all depths.
var someHosts = []string{"n1.ex.test", "n2.ex.test", "t1.ex.test", "deep.n1.ex.test", "ex.test", "mx.other.test", "xn--bcher-kva.test", "a_b.ex.test", "mx"}

// drawPolicy draws a policy in force from text that nobody is to be trusted with.
func drawPolicy(t *rapid.T) *mtasts.Policy {
	var b strings.Builder
	b.WriteString("version: STSv1\nmode: enforce\nmax_age: 604800\n")
	pattern := rapid.OneOf(rapid.SampledFrom(someHosts), rapid.SampledFrom([]string{"*.ex.test", "*.other.test", "*.deep.n1.ex.test", "*", "192.0.2.1", "MX.Ex.Test.", "*.*.ex.test", "-"}),
		rapid.StringMatching(`(\*\.)?[a-z0-9_-]{1,12}(\.[a-z0-9-]{1,20}){0,3}`), rapid.String())
	for range rapid.IntRange(1, 5).Draw(t, "patterns") {
		fmt.Fprintf(&b, "mx: %s\n", pattern.Draw(t, "pattern"))
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 50, 1500}).Draw(t, "many") {
		fmt.Fprintf(&b, "mx: host-number-%d.some.long.name.ex.test\n", b.Len())
	}
	line := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
		"} { policy_failure = validation-failure", "x: } match=evil.test {", "a, match=evil.test", "{", "}", "x: \\", "x: a=b c=d", "x:\tb", "servername=evil.test", "x: ,,,", "=", "x: é",
	}))
	for range rapid.IntRange(0, 4).Draw(t, "lines") {
		b.WriteString(line.Draw(t, "line") + rapid.SampledFrom([]string{"\n", "\r\n", "\r", " \n"}).Draw(t, "end"))
	}
	p, _, err := mtasts.ParsePolicy([]byte(b.String()))
	if err != nil || p.Mode != mtasts.ModeEnforce {
		return nil
	}
	return &p
}

func drawRule(t *rapid.T, v tlspolicy.Version) *Rule {
	levels := []string{"", "", "", "encrypt", "encrypt", "encrypt protocols=>=TLSv1.2 ciphers=high", "encrypt servername=hostname", "may", "none", "dane", "secure", "verify match=hostname", "dane-only", "exempt"}
	if v.STSAttributes() {
		levels = append(levels, "encrypt policy_type=no-policy-found", "encrypt policy_type=sts policy_domain=x.test mx_host_pattern=a.test policy_ttl=60", "secure match=hostname policy_type=sts mx_host_pattern=*.ex.test")
	}
	level := rapid.SampledFrom(levels).Draw(t, "rule")
	if level == "" {
		return nil
	}
	text := RuleText{Match: []string{"ex.test"}, Level: level, Reason: "test"}
	if level == "exempt" {
		text.Exempt = rapid.SampledFrom([][]string{{"dane"}, {"sts"}, {"dane", "sts"}}).Draw(t, "from")
	}
	r, err := ParseRule(text, v)
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

func drawDANE(t *rapid.T) dane.Evidence {
	e := dane.Evidence{Suspended: rapid.IntRange(0, 9).Draw(t, "suspended") == 0}
	if rapid.IntRange(0, 9).Draw(t, "mx fails") == 0 {
		e.MX.Err = "SERVFAIL"
		return e
	}
	e.MX.Secure, e.MX.Unproven = rapid.Bool().Draw(t, "secure"), rapid.IntRange(0, 9).Draw(t, "unproven") == 0
	e.MX.Truncated = rapid.IntRange(0, 9).Draw(t, "truncated") == 0
	names := rapid.SliceOfNDistinct(rapid.SampledFrom(someHosts), 0, 5, rapid.ID).Draw(t, "mx")
	for _, name := range names {
		e.MX.Hosts = append(e.MX.Hosts, dane.Exchanger{Preference: rapid.Uint16Range(1, 3).Draw(t, "preference"), Name: name})
		h := &dane.Host{Name: name, Status: rapid.SampledFrom([]dane.Status{dane.Failed, dane.Unreachable, dane.None, dane.Unusable, dane.Usable, dane.Usable}).Draw(t, "status")}
		if rapid.IntRange(0, 9).Draw(t, "late") == 0 {
			h = nil
		}
		e.Hosts = append(e.Hosts, h)
	}
	return e
}

// TestDecideIsReadAsMeant: whatever a domain publishes, the asking Postfix reads
// what was decided, and nothing weaker than what is demanded.
func TestPFX06_PFX09_DecideIsReadAsMeant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Floor:      Floor(rapid.IntRange(0, 2).Draw(t, "floor")),
			Main:       MainLevel(rapid.IntRange(0, 2).Draw(t, "main")),
			Capability: Capability(rapid.IntRange(0, 2).Draw(t, "capability")),
		}
		if rapid.IntRange(0, 3).Draw(t, "mandatory") == 0 {
			o.Floor, o.Main, o.Mandatory = FloorEncrypt, MainUpToDANE, true
		}
		v, err := tlspolicy.ParseVersion(rapid.SampledFrom(versions[o.Capability]).Draw(t, "version"))
		if err != nil {
			t.Fatal(err)
		}
		e := Evidence{
			Key: Key{Name: "ex.test", Port: 25}, Rule: drawRule(t, v), AtLeastEncrypt: rapid.IntRange(0, 9).Draw(t, "at least encrypt") == 0,
			DANE: drawDANE(t), Unanswered: rapid.Bool().Draw(t, "unanswered"),
		}
		if rapid.Bool().Draw(t, "sts") {
			e.Policy = drawPolicy(t)
		}
		if rapid.IntRange(0, 3).Draw(t, "last") == 0 {
			last := drawDANE(t)
			e.LastKnown = &last
		}
		d := Decide(e, o)
		checkReply(t, e, o, d, v)
		checkStrength(t, e, o, d)
	})
}

func checkReply(t *rapid.T, e Evidence, o Options, d Decision, v tlspolicy.Version) {
	reply := d.String()
	if again := Decide(e, o).String(); again != reply {
		t.Fatalf("the same evidence gave %q and %q", reply, again)
	}
	if len(reply) > 100_000 || strings.ContainsFunc(reply, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Fatalf("reply of %d bytes, or not printable ASCII: %.200q", len(reply), reply)
	}
	if d.NotFound {
		if reply != "NOTFOUND " {
			t.Fatalf("got %q", reply)
		}
		return
	}
	level, attrs, err := tlspolicytest.Postfix(strings.TrimPrefix(reply, "OK "), v)
	if err != nil {
		t.Fatalf("Postfix %s refuses %.300q: %v", v, reply, err)
	}
	if level != d.Line.Level.String() || !slices.Equal(attrs, d.Line.Attrs) {
		t.Fatalf("Postfix %s reads %s %.500q, meant was %s %.500q", v, level, attrs, d.Line.Level, d.Line.Attrs)
	}
	ruled := e.Rule != nil && o.asWritten(e.Rule)
	for _, a := range attrs {
		switch a.Name {
		case "match":
			if d.Line.Level != tlspolicy.Secure && d.Line.Level != tlspolicy.Verify {
				t.Fatalf("match= at %s", level)
			}
			if !ruled {
				checkMatch(t, e, a.Value)
			}
		case "servername", "protocols", "ciphers":
		case "policy_type", "policy_domain", "mx_host_pattern", "policy_ttl":
			if e.Rule != nil && slices.Contains(e.Rule.Line.Attrs, a) && o.Capability != Plain && (ruled || e.Policy == nil) {
				continue // the operator's own
			}
			if e.Policy == nil || o.Capability == Plain {
				t.Fatalf("%s without a policy, or for an old Postfix: %.300q", a.Name, reply)
			}
			if a.Name == "policy_domain" && a.Value != e.Key.Name {
				t.Fatalf("policy_domain=%s", a.Value)
			}
		case "policy_string":
			if e.Policy == nil || !slices.Contains(e.Policy.Lines, a.Value) || d.Line.Level != tlspolicy.Secure {
				t.Fatalf("policy_string %q was not published", a.Value)
			}
		default:
			t.Fatalf("attribute %s", a.Name)
		}
	}
}

// checkMatch: each name of match= is one that the policy allows.
func checkMatch(t *rapid.T, e Evidence, match string) {
	if match == noSuchHost {
		return // nobody can be delivered to
	}
	names := strings.Split(match, ":")
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Fatalf("match=%s: not sorted, or twice", match)
	}
	for _, name := range names {
		pattern := name
		if strings.HasPrefix(name, ".") {
			pattern = "*" + name
		}
		if e.Policy == nil || !slices.Contains(e.Policy.MX, pattern) && !e.Policy.Match(name) {
			t.Fatalf("match=%s: the policy does not allow %s", match, name)
		}
	}
}

// checkStrength: never weaker than rule, policy, DANE and main.cf demand.
func checkStrength(t *rapid.T, e Evidence, o Options, d Decision) {
	lowered := e.Rule != nil && o.asWritten(e.Rule) && !(e.AtLeastEncrypt && e.Rule.Lowers())
	if lowered {
		if d.String() != "OK "+e.Rule.Line.String() {
			t.Fatalf("rule %q answered %q", e.Rule.Level(), d)
		}
		return
	}
	if e.Policy != nil && d.Line.Level != tlspolicy.Secure && d.Line.Level != tlspolicy.DaneOnly {
		t.Fatalf("an enforce policy is in force, answered %q", d)
	}
	stronger := d.NotFound && o.Main == MainStronger && o.Floor == FloorInherit
	if e.raised() && !stronger && (d.NotFound || d.Line.Level < tlspolicy.Encrypt) {
		t.Fatalf("a rule demands encrypt, answered %q", d)
	}
	if o.Floor == FloorEncrypt && (d.NotFound || d.Line.Level < tlspolicy.Encrypt) {
		t.Fatalf("floor encrypt, answered %q", d)
	}
	if o.Floor == FloorInherit && o.Main != MainUpToDANE && !d.NotFound && d.Line.Level < tlspolicy.Encrypt {
		t.Fatalf("main.cf demands at least encrypt, answered %q", d)
	}
	if e.Rule == nil && !d.NotFound && d.Line.Level < tlspolicy.Dane {
		t.Fatalf("no rule, answered %q", d)
	}
	if d.Line.Level == tlspolicy.DaneOnly && e.DANE.Suspended && !d.NotFound {
		t.Fatalf("DANE is suspended, answered %q", d)
	}
}
