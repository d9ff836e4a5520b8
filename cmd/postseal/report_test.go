package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/ledger"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy"
)

var updateReports = flag.Bool("update-reports", false, "rewrite testdata/report")

// reportAt is when the reports of these tests are made.
var reportAt = time.Date(2027, 3, 10, 12, 0, 0, 0, time.UTC)

func rulesOf(t *testing.T, mode policy.Mode, texts ...policy.RuleText) *Config {
	t.Helper()
	var rules []policy.Rule
	for _, text := range texts {
		r, err := policy.ParseRule(text, tlspolicy.Version{})
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	rs, err := policy.NewRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return &Config{Mode: mode, Rules: rs}
}

// under is evidence that was kept of a destination under rule n.
func under(c *Config, n int, destination, level string, hosts ...ledger.Host) ledger.Entry {
	return ledger.Entry{Destination: ledger.Destination{Name: destination, Rule: *keptRule(&c.Rules.All()[n]), Level: level, Hosts: hosts,
		FirstAsked: reportAt.Add(-48 * time.Hour), LastAsked: reportAt.Add(-time.Hour), Changed: reportAt.Add(-24 * time.Hour)}}
}

func at(verdict, host string) ledger.Host {
	h := ledger.Host{Host: host, Port: 25, Level: "encrypt", Verdict: verdict, Address: "192.0.2.1", At: reportAt.Add(-10 * time.Minute)}
	switch verdict {
	case ledger.Positive:
		h.Offered, h.Version, h.Cipher, h.Names, h.Expires = true, "TLSv1.3", "TLS_AES_256_GCM_SHA384", []string{host}, reportAt.Add(9*24*time.Hour+time.Hour)
	case ledger.Negative:
		h.Text = "TLS is required, but was not offered by host " + host + "[192.0.2.1]"
	case ledger.Unknown:
		h.Text = "connect to " + host + "[192.0.2.1]:25: Connection timed out"
	}
	return h
}

func TestEnforcedReport_States(t *testing.T) {
	texts := []policy.RuleText{
		{Match: []string{"a.test"}, Level: "encrypt", Source: "p.toml:1"},
		{Match: []string{"old.test"}, Level: "encrypt", Source: "p.toml:5", Until: reportAt.Add(-24 * time.Hour)},
		{Match: []string{"mx:*.clinic.test"}, Level: "encrypt", Source: "p.toml:9"},
		{Match: []string{"watched.test"}, Level: "encrypt", Mode: "monitor", Source: "p.toml:13"},
		{Match: []string{"weak.test"}, Level: "may", Reason: "broken", Source: "p.toml:17"},
		{Match: []string{"verified.test"}, Level: "verify", Source: "p.toml:21"},
	}
	c := rulesOf(t, policy.ModeEnforce, texts...)
	monitoring := rulesOf(t, policy.ModeMonitor, texts...)
	inert := func(e ledger.Entry) ledger.Entry { e.Inert = "relayhost = [smart.test]"; return e }
	for _, tt := range []struct {
		cfg   *Config
		e     ledger.Entry
		state enforcedState
		why   string
		rule  string
	}{
		{c, under(c, 0, "a.test", "encrypt", at(ledger.Positive, "mx.test"), at(ledger.Negative, "mx2.test")), stateReached, "", "p.toml:1"},
		{c, under(c, 0, "a.test", "dane-only", at(ledger.Negative, "mx.test"), at(ledger.Negative, "mx2.test")), stateUnreachable, "no mail host offers", "p.toml:1"},
		{c, under(c, 0, "a.test", "encrypt", at(ledger.Negative, "mx.test"), at(ledger.Unknown, "mx2.test")), stateUnknown, "", "p.toml:1"},
		{c, under(c, 0, "a.test", "encrypt", at(ledger.Negative, "mx.test"), ledger.Host{Host: "mx2.test", Verdict: ledger.Unknown}), stateUnknown, "", "p.toml:1"},
		{c, under(c, 0, "a.test", "encrypt"), stateNotProbed, `unreachable = "queue"`, "p.toml:1"},
		{c, under(c, 0, "a.test", "NOTFOUND", at(ledger.Positive, "mx.test")), stateNotHeld, "Postfix was told NOTFOUND", "p.toml:1"},
		{c, under(c, 0, "a.test", "dane"), stateNotHeld, "Postfix was told dane", "p.toml:1"},
		{c, under(c, 0, "a.test", levelOfMain), stateNotProbed, "", "p.toml:1"},
		{c, inert(under(c, 0, "a.test", "encrypt", at(ledger.Positive, "mx.test"))), stateInert, "relayhost = [smart.test]", "p.toml:1"},
		{monitoring, under(monitoring, 0, "a.test", "encrypt"), stateNotHeld, `mode = "monitor"`, "p.toml:1"},
		{c, under(c, 3, "watched.test", "NOTFOUND"), stateNotHeld, `mode = "monitor"`, "p.toml:13"},
		{c, under(c, 1, "old.test", "encrypt"), stateExpired, "the rule ended with", "p.toml:5"},
		{c, under(c, 0, "gone.test", "encrypt"), stateNoRule, "", "p.toml:1"},
		{c, under(c, 0, "weak.test", "encrypt"), stateNoRule, "", "p.toml:1"},
		{c, under(c, 2, "b.test", "encrypt", at(ledger.Positive, "mx1.clinic.test")), stateReached, "", "p.toml:9"},
		{c, under(c, 2, "b.test", "encrypt", at(ledger.Positive, "mx1.elsewhere.test")), stateNoRule, "", "p.toml:9"},
		{c, under(c, 2, "b.test", "encrypt"), stateNotProbed, "", "p.toml:9"},
		{c, under(c, 5, "verified.test", "verify", at(ledger.Positive, "mx.test")), stateReached, "the certificate of mx.test ends in 9d1h", "p.toml:21"},
		{c, ledger.Entry{Destination: ledger.Destination{Name: "a.test"}, Count: ledger.Count{Refused: 1}}, stateNotProbed, "", "p.toml:1"},
	} {
		r := newEnforcedReport(ledger.Book{Entries: []ledger.Entry{tt.e}}, tt.cfg, nil, reportAt.Add(-7*24*time.Hour), reportAt)
		if len(r.Destinations) != 1 {
			t.Fatalf("%s: %d destinations", tt.e.Name, len(r.Destinations))
		}
		d := r.Destinations[0]
		if d.State != tt.state || !strings.Contains(d.Why, tt.why) || d.Rule.Source != tt.rule || (r.findings() == 1) != tt.state.finding() {
			t.Errorf("%s %s %v: %s, %q, %s, want %s, %q, %s", tt.e.Name, tt.e.Level, tt.e.Hosts, d.State, d.Why, d.Rule.Source, tt.state, tt.why, tt.rule)
		}
	}
}

// A rule that was changed is still that of its destinations, also where only their mail
// hosts could tell.
func TestEnforcedReport_ChangedRule(t *testing.T) {
	before := rulesOf(t, policy.ModeEnforce, policy.RuleText{Match: []string{"mx:*.clinic.test"}, Level: "encrypt", Source: "p.toml:1"})
	now := rulesOf(t, policy.ModeEnforce, policy.RuleText{Match: []string{"mx:*.more.test", "mx:*.clinic.test"}, Level: "encrypt", Source: "p.toml:4", Reason: "two"})
	r := newEnforcedReport(ledger.Book{Entries: []ledger.Entry{under(before, 0, "b.test", "encrypt")}}, now, nil, time.Time{}, reportAt)
	if d := r.Destinations[0]; d.State != stateNotProbed || d.Rule.Source != "p.toml:4" || d.Rule.Reason != "two" || r.Rules[0].State != ruleInUse {
		t.Errorf("%+v, %+v", d, r.Rules)
	}
}

// exampleReport has something of everything, foreign text that bites included.
func exampleReport(t *testing.T) *enforcedReport {
	t.Helper()
	c := rulesOf(t, policy.ModeEnforce,
		policy.RuleText{Match: []string{"partner.test"}, Level: "encrypt", Source: "postseal.toml:1", Reason: "data-processing contract 4711"},
		policy.RuleText{Match: []string{"old.test"}, Level: "encrypt", Source: "postseal.toml:5", Until: time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC)},
		policy.RuleText{Match: []string{"verified.test"}, Level: "verify", Source: "postseal.toml:9", Reason: "=cmd|'/c calc'!A1"},
		policy.RuleText{Match: []string{"a.test", "b.test", "c.test", "d.test"}, Level: "secure", Source: "postseal.toml:13"},
		policy.RuleText{Match: []string{"quiet.test"}, Level: "encrypt", Source: "postseal.toml:17"},
		policy.RuleText{Match: []string{".relayed.test"}, Level: "encrypt", Source: "postseal.toml:21"},
	)
	lost := at(ledger.Negative, "mx1.partner.test")
	lost.Secured = reportAt.Add(-30 * time.Hour)
	lost.Stripped = "250-XXXXXXXA instead of STARTTLS"
	partner := under(c, 0, "partner.test", "encrypt", lost, at(ledger.Negative, "mx2.partner.test"))
	partner.Secured = lost.Secured
	partner.Count = ledger.Count{Refused: 12, Deferred: 3, Last: reportAt.Add(-5 * time.Minute)}
	partner.Changes = []ledger.Change{{At: reportAt.Add(-24 * time.Hour), What: []string{"mx1.partner.test: negative"}, Rule: partner.Rule, Level: "encrypt", Hosts: partner.Hosts}}
	foreign := at(ledger.Positive, "mx.verified.test")
	foreign.Names = []string{"=HYPERLINK(\"http://x.test\")", "b\x1b[31m", "c", "d"}
	quiet := under(c, 4, "quiet.test", "encrypt")
	quiet.LastAsked, quiet.Changed = reportAt.Add(-20*24*time.Hour), reportAt.Add(-30*24*time.Hour)
	b := ledger.Book{Unreadable: 1, Entries: []ledger.Entry{
		quiet, partner, under(c, 2, "verified.test", "verify", foreign), under(c, 0, "gone.test", "encrypt"),
	}}
	return newEnforcedReport(b, c, map[*policy.Rule]string{&c.Rules.All()[5]: "relayhost = [smart.test]"}, reportAt.Add(-7*24*time.Hour), reportAt)
}

// golden compares with a file of testdata/report.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "report", name)
	if *updateReports {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: go test -run %s -update-reports rewrites it; got\n%s", path, t.Name(), got)
	}
}

func TestEnforcedReport_Golden(t *testing.T) {
	r := exampleReport(t)
	var text, table, object bytes.Buffer
	if err := r.writeText(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.writeCSV(&table); err != nil {
		t.Fatal(err)
	}
	if err := printJSON(&object, r); err != nil {
		t.Fatal(err)
	}
	golden(t, "enforced.txt", text.Bytes())
	golden(t, "enforced.csv", table.Bytes())
	golden(t, "enforced.json", object.Bytes())
	if bytes.ContainsRune(text.Bytes(), 0x1b) {
		t.Error("an escape sequence of a certificate reaches the terminal")
	}

	rows, err := csv.NewReader(&table).ReadAll()
	if err != nil || len(rows) != 5 {
		t.Fatalf("%v, %d rows", err, len(rows))
	}
	for _, row := range rows[1:] {
		for i, cell := range row {
			if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
				t.Errorf("column %s is a formula: %q", rows[0][i], cell)
			}
		}
	}
	var back enforcedReport
	if err := json.Unmarshal(object.Bytes(), &back); err != nil || strings.Contains(object.String(), "0001-01-01") || strings.Contains(object.String(), ": null,\n      \"hosts\"") {
		t.Errorf("%v", err)
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2027, 3, 10, 12, 0, 0, 0, time.Local)
	for text, want := range map[string]time.Time{
		"24h": now.Add(-24 * time.Hour), "7d": now.Add(-7 * 24 * time.Hour), "2w": now.Add(-14 * 24 * time.Hour), "400d": now.Add(-400 * 24 * time.Hour),
		"9999d": now.Add(-4000 * 24 * time.Hour), "17000w": now.Add(-571 * 7 * 24 * time.Hour), "2027-03-10": time.Date(2027, 3, 10, 0, 0, 0, 0, time.Local), "2020-02-29": time.Date(2020, 2, 29, 0, 0, 0, 0, time.Local),
	} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "0d", "-7d", "+7d", "7", "7m", "7 d", "1.5d", "99999999999999999999d", "2027-03-11", "2027-02-30", "yesterday", "7d3h", "٧d"} {
		if got, err := parseSince(text, now); err == nil || !strings.HasPrefix(err.Error(), "--since ") {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// Whatever is accepted lies in the past.
func FuzzParseSince(f *testing.F) {
	for _, s := range []string{"7d", "24h", "2w", "65535w", "17000w", "2027-03-01", "0d", ""} {
		f.Add(s)
	}
	now := time.Date(2027, 3, 10, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := parseSince(text, now); err == nil && (got.After(now) || len(text) > 10) {
			t.Errorf("%q: %v", text, got)
		}
	})
}

func TestCell(t *testing.T) {
	for text, want := range map[string]string{"": "", "a=b": "a=b", "=1": "'=1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\tx": "'\tx", "\rx": "'\rx", "'=": "'=", "a\x1b[0m\n": "a?[0m\n"} {
		if got := cell(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestReportLastDay: where clocks went forward at midnight a rule ended an hour later, and
// its last day is still the day before.
func TestReportLastDay(t *testing.T) {
	zone := time.FixedZone("forward", 2*60*60)
	for _, hour := range []int{0, 1} {
		until := time.Date(2027, 4, 1, hour, 0, 0, 0, zone)
		rs := &enforcedRules{now: until.Add(time.Minute)}
		if state, why := rs.stand(&ledger.Entry{}, &policy.Rule{Until: until}); state != stateExpired || why != "the rule ended with 2027-03-31" {
			t.Errorf("%s: %s, %q", until, state, why)
		}
	}
}
