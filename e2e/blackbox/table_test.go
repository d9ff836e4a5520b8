package blackbox

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// fixture is one line of the fixtures of docs/decision-table.md.
type fixture struct {
	row, mx          string
	none             map[string]string // by floor, without STS
	narrowed, simple string            // columns E+ and E−
	domain           string
	pattern          string
}

const fixtureHosts = `
t1.ex.test A 192.0.2.1
_25._tcp.t1.ex.test TLSA 3 1 1 1111111111111111111111111111111111111111111111111111111111111111
t2.ex.test AAAA 2001:db8::2
_25._tcp.t2.ex.test TLSA 2 1 1 2222222222222222222222222222222222222222222222222222222222222222
t1.sub.ex.test A 192.0.2.3
_25._tcp.t1.sub.ex.test TLSA 3 1 2 ` + "33333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333" + `
n1.ex.test A 192.0.2.11
n2.ex.test A 192.0.2.12
n1.sub.ex.test A 192.0.2.13
u1.ex.test A 192.0.2.21
_25._tcp.u1.ex.test TLSA 1 1 1 4444444444444444444444444444444444444444444444444444444444444444
e1.ex.test A 192.0.2.31
_25._tcp.e1.ex.test TLSA !servfail
`

// readFixtures reads the last table of the page.
func readFixtures(t *testing.T) []fixture {
	t.Helper()
	page, err := os.ReadFile("../../docs/decision-table.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), "## Fixtures")
	if !ok {
		t.Fatal("no fixtures in docs/decision-table.md")
	}
	var all []fixture
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) != 9 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "row" {
			continue
		}
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		f := fixture{row: cells[1], mx: cells[2], narrowed: cells[6], simple: cells[7], pattern: "*.ex.test",
			none: map[string]string{"inherit": cells[3], "dane": cells[4], "encrypt": cells[5]}}
		if strings.HasPrefix(f.row, "MM") {
			f.pattern = "*.other.test"
		}
		f.domain = fmt.Sprintf("row%02d.test", len(all))
		all = append(all, f)
	}
	if len(all) < 25 {
		t.Fatalf("only %d fixtures were read", len(all))
	}
	return all
}

// needsOther tells the rows that need another resolver than the usual one.
func (f fixture) needsOther() bool { return f.row == "DX" || strings.HasPrefix(f.row, "D4") }

// publish gives the fixture's MX set to a domain.
func (f fixture) publish(t *testing.T, domain string) {
	t.Helper()
	text, flag := f.mx, ""
	if before, after, ok := strings.Cut(f.mx, ": "); ok {
		text = after
		if before == "unsigned MX" {
			flag = "!insecure "
		}
	}
	for word := range strings.SplitSeq(text, ", ") {
		preference, host, ok := strings.Cut(strings.TrimPrefix(word, "never seen, or last: "), " ")
		if !ok {
			continue
		}
		if !strings.Contains(host, ".ex.test") {
			host += ".ex.test"
		}
		flag += "\x00" + preference + " " + host
	}
	parts := strings.Split(flag, "\x00")
	var zone strings.Builder
	for _, mx := range parts[1:] {
		fmt.Fprintf(&zone, "%s MX %s%s\n", domain, parts[0], mx)
	}
	truth.publish(t, zone.String())
}

// expand writes A(x y) out.
func (f fixture) expand(reply, domain string) string {
	head, list, ok := strings.Cut(reply, " A(")
	if !ok {
		return reply
	}
	out := head + " policy_type=sts policy_domain=" + domain
	for pattern := range strings.FieldsSeq(strings.TrimSuffix(list, ")")) {
		out += " mx_host_pattern=" + pattern
	}
	if strings.HasPrefix(head, "OK secure") {
		out += policyStrings(enforce(f.pattern))
	}
	return out
}

func policyStrings(body string) string {
	out := ""
	for line := range strings.Lines(body) {
		out += " { policy_string = " + strings.TrimSpace(line) + " }"
	}
	return out
}

// replies are what the four map names answer for an enforce policy.
func (f fixture) replies(version, domain string) map[string]string {
	reported := f.simple
	if strings.HasPrefix(f.simple, "OK secure") {
		// Attributes without narrowing: the published patterns, for reporting only.
		reported = f.expand(f.simple+" A("+f.pattern+")", domain)
	}
	want := map[string]string{"postseal": f.simple, "QUERY": f.simple, "postfix": f.simple, "QUERYwithTLSRPT": f.simple}
	switch version {
	case "3.10.4":
		want["postseal"], want["QUERYwithTLSRPT"] = reported, reported
	case "3.10.5", "3.11":
		narrowed := f.expand(f.narrowed, domain)
		want["postseal"], want["QUERYwithTLSRPT"] = narrowed, narrowed
	}
	return want
}

var mapNames = []string{"postseal", "QUERY", "postfix", "QUERYwithTLSRPT"}

// TestCMB_Table asks every row of the decision table over the wire: floors × versions × kinds of policy × map names;
// then, after kill -9 and without any sight of the policies, the enforced ones again (STS-095, CCH-03).
func TestCMB_Table(t *testing.T) {
	fixtures := readFixtures(t)
	truth.publish(t, fixtureHosts)
	for _, f := range fixtures {
		for _, kind := range []string{"absent", "testing", "none", "enforce"} {
			domain := kind + "." + f.domain
			f.publish(t, domain)
			switch kind {
			case "absent":
			case "none":
				publishSTS(t, domain, "1", policyText("none"))
			default:
				publishSTS(t, domain, "1", policyText(kind, f.pattern))
			}
		}
	}
	for _, floor := range []string{"inherit", "dane", "encrypt"} {
		for _, version := range []string{"3.7", "3.10.4", "3.10.5", "3.11"} {
			t.Run(floor+"/"+version, func(t *testing.T) {
				t.Parallel()
				tls := fmt.Sprintf("floor = %q\npostfix_version = %q", floor, version)
				d := startDaemon(t, config{"tls_policy": tls})
				checkRows(t, d, fixtures, floor, version, false)
				d.kill()
				d.configure(d.conf.with(config{"resolver": fmt.Sprintf("servers = [%q]", offlineAddress)}))
				d.start()
				checkRows(t, d, fixtures, floor, version, true)
			})
		}
	}
}

// checkRows compares all rows but those of class D4; those of DX are asked elsewhere.
func checkRows(t *testing.T, d *daemon, fixtures []fixture, floor, version string, offline bool) {
	for i, f := range fixtures {
		if f.needsOther() {
			continue
		}
		domain := "enforce." + f.domain
		for name, want := range f.replies(version, domain) {
			if got := d.ask(name, domain); got != want {
				t.Errorf("fixture %d, row %s (%s), enforce, map %s, offline %t:\n got %s\nwant %s", i, f.row, f.mx, name, offline, got, want)
			}
		}
		if offline {
			continue
		}
		for _, kind := range []string{"absent", "testing", "none"} {
			name := mapNames[i%len(mapNames)]
			if got := d.ask(name, kind+"."+f.domain); got != f.none[floor] {
				t.Errorf("fixture %d, row %s (%s), %s, map %s:\n got %s\nwant %s", i, f.row, f.mx, kind, name, got, f.none[floor])
			}
		}
	}
}

// TestCMB_TableD4 asks after the MX look-up broke: with a class last seen, and without.
func TestCMB_TableD4(t *testing.T) {
	truth.publish(t, fixtureHosts)
	for _, f := range readFixtures(t) {
		if !strings.HasPrefix(f.row, "D4") {
			continue
		}
		for _, floor := range []string{"inherit", "dane", "encrypt"} {
			for _, version := range []string{"3.7", "3.10.4", "3.11"} {
				t.Run(f.row+"/"+floor+"/"+version, func(t *testing.T) {
					t.Parallel()
					domain := strings.ToLower(strings.NewReplacer("/", "-", ".", "").Replace(t.Name())) + ".d4.test"
					domain = strings.TrimPrefix(domain, "testcmb_tabled4-")
					f.publish(t, domain)
					f.publish(t, "absent."+domain)
					publishSTS(t, domain, "1", enforce(f.pattern))
					d := startDaemon(t, config{"tls_policy": fmt.Sprintf("floor = %q\npostfix_version = %q", floor, version)})
					d.ask("postseal", domain)
					d.await("class kept", func() bool { // the class is a hint that outlives the daemon
						return strings.Contains(d.must("cache", "list", "--json"), `"class"`)
					})
					d.terminate()
					d.configure(d.conf.with(config{"resolver": fmt.Sprintf("servers = [%q]", deadAddress)}))
					d.start()
					for name, want := range f.replies(version, domain) {
						if got := d.ask(name, domain); got != want {
							t.Errorf("map %s:\n got %s\nwant %s", name, got, want)
						}
					}
					if got := d.ask("postseal", "absent."+domain); got != f.none[floor] {
						t.Errorf("no STS: got %q, want %q", got, f.none[floor])
					}
				})
			}
		}
	}
}

// TestCMB_TableDX asks through a resolver that does not validate (DANE-004), one that may not be believed (DANE-001), and
// with DANE off or only monitored (CMB-16): the same row, with or without the alarm.
func TestCMB_TableDX(t *testing.T) {
	truth.publish(t, fixtureHosts)
	var f fixture
	for _, x := range readFixtures(t) {
		if x.row == "DX" {
			f = x
		}
	}
	f.publish(t, "absent.dx.test")
	f.publish(t, "enforce.dx.test")
	publishSTS(t, "enforce.dx.test", "1", enforce(f.pattern))
	for name, c := range map[string]struct {
		conf  config
		alarm bool
	}{
		"stripping":  {config{"resolver": fmt.Sprintf("servers = [%q]", strippingAddress)}, true},
		"docker":     {config{"resolver": fmt.Sprintf("servers = [%q]", stubAddress)}, true},
		"never":      {config{"resolver": fmt.Sprintf("servers = [%q]\ntrust_ad = \"never\"", resolverAddress)}, true},
		"off":        {config{"dane": `mode = "off"`}, false},
		"monitor":    {config{"dane": `mode = "monitor"`}, false},
		"trust_list": {config{"resolver": fmt.Sprintf("servers = [%q]\ntrust_ad = [\"192.0.2.0/24\"]", resolverAddress)}, true},
	} {
		for _, floor := range []string{"inherit", "dane", "encrypt"} {
			for _, version := range []string{"3.7", "3.11"} {
				t.Run(name+"/"+floor+"/"+version, func(t *testing.T) {
					t.Parallel()
					d := startDaemon(t, c.conf.with(config{"tls_policy": fmt.Sprintf("floor = %q\npostfix_version = %q", floor, version)}))
					for name, want := range f.replies(version, "enforce.dx.test") {
						if got := d.ask(name, "enforce.dx.test"); got != want {
							t.Errorf("map %s:\n got %s\nwant %s", name, got, want)
						}
					}
					if got := d.ask("postseal", "absent.dx.test"); got != f.none[floor] {
						t.Errorf("no STS: got %q, want %q", got, f.none[floor])
					}
					_, ready := d.get("/readyz")
					if alarm := strings.Contains(ready, "DANE is out of action"); alarm != c.alarm {
						t.Errorf("alarm in /readyz is %t, want %t: %s", alarm, c.alarm, ready)
					}
				})
			}
		}
	}
}
