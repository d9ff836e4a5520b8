package policy

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
	"github.com/postseal/postseal/policy/mtasts"
)

// fixture is one row of the last table of docs/decision-table.md.
type fixture struct {
	row, mx                 string
	inherit, dane, encrypt  string
	withAttributes, without string
	evidence                dane.Evidence
	last                    *dane.Evidence
	policy                  mtasts.Policy
}

func fixtures(t *testing.T) []fixture {
	t.Helper()
	text, err := os.ReadFile("../docs/decision-table.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| row | MX | no STS, inherit |")
	if !ok {
		t.Fatal("no table of fixtures in docs/decision-table.md")
	}
	var all []fixture
	for line := range strings.Lines(table) {
		cell := strings.Split(strings.TrimSpace(line), "|")
		if len(cell) != 9 || strings.HasPrefix(cell[1], "-") {
			continue
		}
		for i := range cell {
			cell[i] = strings.Trim(strings.TrimSpace(cell[i]), "`")
		}
		f := fixture{row: cell[1], mx: cell[2], inherit: cell[3], dane: cell[4], encrypt: cell[5], withAttributes: cell[6], without: cell[7]}
		pattern := "*.ex.test"
		if strings.HasPrefix(f.row, "MM") {
			pattern = "*.other.test"
		}
		f.policy = stsPolicy(t, pattern)
		mx := f.mx
		switch {
		case strings.HasPrefix(mx, "MX SERVFAIL; an hour ago: "):
			last := evidenceOf(strings.TrimPrefix(mx, "MX SERVFAIL; an hour ago: "))
			f.last = &last
			f.evidence.MX.Err = "SERVFAIL"
		case strings.HasPrefix(mx, "MX SERVFAIL"):
			last := evidenceOf("10 n1")
			f.last = &last
			f.evidence.MX.Err = "SERVFAIL"
		case strings.HasPrefix(mx, "unsigned MX: "):
			f.evidence = evidenceOf(strings.TrimPrefix(mx, "unsigned MX: "))
			f.evidence.MX.Secure = false
		case strings.HasPrefix(mx, "AD stripped: "):
			f.evidence = evidenceOf(strings.TrimPrefix(mx, "AD stripped: "))
			f.evidence.MX.Secure, f.evidence.Suspended = false, true
		default:
			f.evidence = evidenceOf(mx)
		}
		all = append(all, f)
	}
	if len(all) < 25 {
		t.Fatalf("only %d fixtures read", len(all))
	}
	return all
}

func stsPolicy(t *testing.T, patterns ...string) mtasts.Policy {
	t.Helper()
	body := "version: STSv1\nmode: enforce\n"
	for _, p := range patterns {
		body += "mx: " + p + "\n"
	}
	p, _, err := mtasts.ParsePolicy([]byte(body + "max_age: 604800\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// evidenceOf reads "10 t1, 20 n1": the first letter of a host is its status.
func evidenceOf(mx string) dane.Evidence {
	e := dane.Evidence{MX: dane.MXSet{Secure: true}}
	for item := range strings.SplitSeq(mx, ", ") {
		var preference uint16
		var name string
		fmt.Sscanf(item, "%d %s", &preference, &name)
		status := map[byte]dane.Status{'t': dane.Usable, 'n': dane.None, 'u': dane.Unusable, 'e': dane.Failed, 'g': dane.Unreachable}[name[0]]
		if !strings.HasSuffix(name, ".test") {
			name += ".ex.test"
		}
		e.MX.Hosts = append(e.MX.Hosts, dane.Exchanger{Preference: preference, Name: name})
		e.Hosts = append(e.Hosts, &dane.Host{Name: name, Port: 25, Status: status})
	}
	return e
}

var macro = regexp.MustCompile(` A\(([^)]*)\)`)

// expand writes out the macro A(…) of the table.
func expand(text string, p mtasts.Policy) string {
	return macro.ReplaceAllStringFunc(text, func(m string) string {
		out := " policy_type=sts policy_domain=ex.test"
		for pattern := range strings.FieldsSeq(macro.FindStringSubmatch(m)[1]) {
			out += " mx_host_pattern=" + pattern
		}
		if strings.HasPrefix(text, "OK secure") {
			for _, line := range p.Lines {
				out += " { policy_string = " + line + " }"
			}
		}
		return out
	})
}

// TestDecisionTable holds Decide to every row, floor and column of the table.
func TestDecisionTable_CMB00_CMB06_CMB08(t *testing.T) {
	for _, f := range fixtures(t) {
		e := Evidence{Key: Key{Name: "ex.test", Port: 25}, DANE: f.evidence, LastKnown: f.last}
		for floor, want := range map[Floor]string{FloorInherit: f.inherit, FloorDANE: f.dane, FloorEncrypt: f.encrypt} {
			if want == "NOTFOUND" {
				want = "NOTFOUND "
			}
			for c := Plain; c <= Narrowing; c++ {
				o := Options{Floor: floor, Capability: c}
				if got := Decide(e, o).String(); got != want {
					t.Errorf("row %s, MX %s, no STS, floor %s: got %q, want %q", f.row, f.mx, floor, got, want)
				}
			}
			sts := e
			sts.Policy = &f.policy
			for c, want := range map[Capability]string{Narrowing: expand(f.withAttributes, f.policy), Plain: f.without, Attributes: reported(f)} {
				d := Decide(sts, Options{Floor: floor, Capability: c})
				if got := d.String(); got != want {
					t.Errorf("row %s, MX %s, enforce, capability %d: got %q, want %q", f.row, f.mx, c, got, want)
				}
				if row := string(d.Row); row != f.row {
					t.Errorf("MX %s: decided by row %s, want %s", f.mx, row, f.row)
				}
			}
		}
	}
}

// reported is the column between E+ and E−: E−, with the published patterns
// appended to secure answers for reports.
func reported(f fixture) string {
	if !strings.HasPrefix(f.without, "OK secure") {
		return f.without
	}
	return f.without + expand(" A("+strings.Join(f.policy.MX, " ")+")", f.policy)[:0] + reportedAttributes(f.policy)
}

func reportedAttributes(p mtasts.Policy) string {
	return strings.TrimPrefix(expand("OK secure A("+strings.Join(p.MX, " ")+")", p), "OK secure")
}

// TestCMB15_InheritKnowsMainCF: column encrypt with its encrypt replies as
// NOTFOUND under encrypt, NOTFOUND throughout under anything stronger.
func TestCMB15_InheritKnowsMainCF(t *testing.T) {
	for _, f := range fixtures(t) {
		e := Evidence{Key: Key{Name: "ex.test", Port: 25}, DANE: f.evidence, LastKnown: f.last}
		want := f.encrypt
		if want == "OK encrypt" {
			want = "NOTFOUND "
		}
		if got := Decide(e, Options{Main: MainEncrypt}).String(); got != want {
			t.Errorf("row %s, main.cf encrypt: got %q, want %q", f.row, got, want)
		}
		if got := Decide(e, Options{Main: MainStronger}).String(); got != "NOTFOUND " {
			t.Errorf("row %s, main.cf secure: got %q, want NOTFOUND", f.row, got)
		}
		if got := Decide(e, Options{Floor: FloorEncrypt, Main: MainStronger}).String(); got != f.encrypt {
			t.Errorf("row %s: an explicit floor must not ask main.cf: got %q, want %q", f.row, got, f.encrypt)
		}
		e.Policy = &f.policy
		for _, main := range []MainLevel{MainEncrypt, MainStronger} {
			if got := Decide(e, Options{Main: main}).String(); got != f.without {
				t.Errorf("row %s, enforce, main.cf %d: got %q, want %q", f.row, main, got, f.without)
			}
		}
	}
}

func encryptRule(attrs ...tlspolicy.Attr) *Rule {
	return &Rule{Match: []string{"ex.test"}, Line: tlspolicy.Line{Level: tlspolicy.Encrypt, Attrs: attrs}, Source: "test:1"}
}

// TestCMB00_EncryptRuleIsAMinimum: for all evidence a rule encrypt gives the
// column floor = encrypt, never less.
func TestCMB00_EncryptRuleIsAMinimum(t *testing.T) {
	protocols := tlspolicy.Attr{Name: "protocols", Value: ">=TLSv1.2"}
	for _, f := range fixtures(t) {
		for _, floor := range []Floor{FloorInherit, FloorDANE, FloorEncrypt} {
			e := Evidence{Key: Key{Name: "ex.test", Port: 25}, DANE: f.evidence, LastKnown: f.last, Rule: encryptRule()}
			if got := Decide(e, Options{Floor: floor}).String(); got != f.encrypt {
				t.Errorf("row %s, floor %s: got %q, want %q", f.row, floor, got, f.encrypt)
			}
			if got := Decide(e, Options{Floor: FloorInherit, Main: MainEncrypt}).String(); got != f.encrypt {
				t.Errorf("row %s, main.cf encrypt: got %q, want %q", f.row, got, f.encrypt)
			}
			e.Rule = encryptRule(protocols)
			if got := Decide(e, Options{Floor: floor}).String(); got != f.encrypt+" protocols=>=TLSv1.2" {
				t.Errorf("row %s: the rule's attribute is lost: %q", f.row, got)
			}
			e.Policy = &f.policy
			if got := Decide(e, Options{Floor: floor}).String(); got != f.without+" protocols=>=TLSv1.2" {
				t.Errorf("row %s, enforce: got %q, want %q and the rule's attribute", f.row, got, f.without)
			}
		}
	}
}

func TestCMB00_AsWritten(t *testing.T) {
	policy := stsPolicy(t, "*.ex.test")
	for _, text := range []string{"none", "may", "dane", "dane-only", "fingerprint match=aa:bb", "verify match=hostname", "secure match=mx.ex.test:nexthop"} {
		line, err := tlspolicy.Parse(text, tlspolicy.Version{})
		if err != nil {
			t.Fatal(err)
		}
		r := &Rule{Line: line, Reason: "because"}
		for _, f := range fixtures(t) {
			e := Evidence{Key: Key{Name: "ex.test", Port: 25}, DANE: f.evidence, Rule: r, Policy: &policy}
			if got := Decide(e, Options{Floor: FloorEncrypt}).String(); got != "OK "+text {
				t.Errorf("rule %q, row %s: got %q", text, f.row, got)
			}
		}
	}
}

func TestSTS005_Literals(t *testing.T) {
	for _, text := range []string{"[192.0.2.1]", "[192.0.2.1]:25", "[IPv6:2001:db8::1]:25", "[2001:db8::1]"} {
		k, err := ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, floor := range []Floor{FloorInherit, FloorDANE, FloorEncrypt} {
			if got := Decide(Evidence{Key: k}, Options{Floor: floor}).String(); got != "NOTFOUND " {
				t.Errorf("%s, floor %s: %q", text, floor, got)
			}
		}
		if got := Decide(Evidence{Key: k, Rule: encryptRule()}, Options{}).String(); got != "OK encrypt" {
			t.Errorf("%s with a rule: %q", text, got)
		}
	}
}

// TestRPT013_Order is the example of RFC 8461 §3.2.
func TestRPT013_Order(t *testing.T) {
	body := "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmx: backupmx.example.com\nmax_age: 604800\n"
	p, _, err := mtasts.ParsePolicy([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	e := Evidence{Key: Key{Name: "example.com", Port: 25}, Policy: &p, DANE: evidenceOf("10 n1")}
	e.DANE.MX.Hosts[0].Name = "mail.example.com"
	want := "OK secure match=.example.net:backupmx.example.com:mail.example.com servername=hostname policy_type=sts policy_domain=example.com mx_host_pattern=mail.example.com mx_host_pattern=*.example.net mx_host_pattern=backupmx.example.com { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mail.example.com } { policy_string = mx: *.example.net } { policy_string = mx: backupmx.example.com } { policy_string = max_age: 604800 }"
	for range 3 { // PFX-16: same evidence, same bytes
		if got := Decide(e, Options{Capability: Narrowing}).String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestSTS061_LongPolicies: a reply stays below Postfix's limit, and secure.
func TestSTS061_LongPolicies(t *testing.T) {
	var patterns []string
	for i := range 2000 {
		patterns = append(patterns, fmt.Sprintf("mail%04d.ex.test", i))
	}
	p := stsPolicy(t, patterns...)
	for _, mx := range []string{"10 n1, 20 n2", "10 mail0001.ex.test"} {
		ev := evidenceOf(mx)
		for i := range ev.Hosts {
			ev.Hosts[i].Status = dane.None
		}
		for c := Plain; c <= Narrowing; c++ {
			for _, evidence := range []dane.Evidence{ev, {MX: dane.MXSet{Err: "SERVFAIL"}}} {
				got := Decide(Evidence{Key: Key{Name: "ex.test", Port: 25}, Policy: &p, DANE: evidence}, Options{Capability: c}).String()
				if len(got) > 100000 || !strings.HasPrefix(got, "OK secure match=m") {
					t.Errorf("capability %d: %d bytes, %.60q", c, len(got), got)
				}
			}
		}
	}
}

// TestSTS072_DeepSubdomainWithoutNarrowing: a Postfix that takes .ex.test for any
// depth is not told a pattern that the excluded host's own certificate satisfies.
func TestSTS072_DeepSubdomainWithoutNarrowing(t *testing.T) {
	for _, c := range []struct {
		mx, want string
		patterns []string
	}{
		{"10 nfoo.bar.ex.test", "mx-not-in-policy.invalid", []string{"*.ex.test"}},
		{"10 nfoo.bar.ex.test", ".other.test:mail.ex.test", []string{"*.ex.test", "*.other.test", "mail.ex.test"}},
		{"10 nevil.other.test", "mail.ex.test", []string{"mail.ex.test"}},
		{"10 nevil.other.test", ".ex.test", []string{"*.ex.test"}},
		{"10 nfoo.bar.ex.test, 20 n1", "n1.ex.test", []string{"*.ex.test"}},
	} {
		p := stsPolicy(t, c.patterns...)
		e := Evidence{Key: Key{Name: "ex.test", Port: 25}, Policy: &p, DANE: evidenceOf(c.mx)}
		if got, want := Decide(e, Options{}).String(), "OK secure match="+c.want+" servername=hostname"; got != want {
			t.Errorf("MX %s, policy %q: got %q, want %q", c.mx, c.patterns, got, want)
		}
	}
}

// TestPFX06_RuleWithSTSAttributes: a rule's word about a policy gives way to the
// policy that is enforced, and leaves maps without attributes alone.
func TestPFX06_RuleWithSTSAttributes(t *testing.T) {
	v, _ := tlspolicy.ParseVersion("3.11")
	policy := &mtasts.Policy{Mode: mtasts.ModeEnforce, MX: []string{"*.ex.test"}}
	mx := dane.Evidence{MX: dane.MXSet{Hosts: []dane.Exchanger{{Preference: 10, Name: "n1.ex.test"}}}, Hosts: []*dane.Host{{Name: "n1.ex.test", Status: dane.None}}}
	for _, c := range []struct {
		level      string
		policy     *mtasts.Policy
		capability Capability
		want       string
	}{
		{"encrypt policy_type=no-policy-found ciphers=high", nil, Narrowing, "OK encrypt policy_type=no-policy-found ciphers=high"},
		{"encrypt policy_type=no-policy-found ciphers=high", nil, Plain, "OK encrypt ciphers=high"},
		{"encrypt policy_type=no-policy-found ciphers=high", policy, Plain, "OK secure match=n1.ex.test servername=hostname ciphers=high"},
		{"encrypt policy_type=sts policy_domain=x.test mx_host_pattern=a.test ciphers=high", policy, Narrowing, "OK secure match=.ex.test servername=hostname ciphers=high policy_type=sts policy_domain=ex.test mx_host_pattern=*.ex.test"},
		{"secure match=hostname policy_type=sts mx_host_pattern=*.ex.test", policy, Narrowing, "OK secure match=hostname policy_type=sts mx_host_pattern=*.ex.test"},
		{"secure match=hostname policy_type=sts mx_host_pattern=*.ex.test", policy, Plain, "OK secure match=hostname"},
	} {
		r, err := ParseRule(RuleText{Match: []string{"ex.test"}, Level: c.level}, v)
		if err != nil {
			t.Fatal(err)
		}
		e := Evidence{Key: Key{Name: "ex.test", Port: 25}, Rule: &r, Policy: c.policy, DANE: mx}
		if got := Decide(e, Options{Capability: c.capability}).String(); got != c.want {
			t.Errorf("%s, capability %d:\n%s\nwant\n%s", c.level, c.capability, got, c.want)
		}
	}
}
