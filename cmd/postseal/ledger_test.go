package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/policy"
)

const reportRules = `
[[rule]]
match = ["partner.test"]
level = "encrypt"
reason = "contract 4711"

[[rule]]
match = ["mx:*.clinic.test"]
level = "secure"

[[rule]]
match = ["past.test"]
level = "encrypt"
until = 2001-01-01
`

// bookKeeping runs a daemon with a control socket and a ledger until end is called, or
// the test ends.
func bookKeeping(t *testing.T, dir, rules string, log *bytes.Buffer) (d *daemon, config string, end func()) {
	t.Helper()
	t.Setenv("PATH", dir) // no postconf
	config = filepath.Join(dir, "postseal.toml")
	text := strings.ReplaceAll(fmt.Sprintf(`
[socketmap]
listen = ["unix:DIR/socketmap"]
drain = "0s"
[delegation]
listen = ["unix:DIR/delegation"]
[milter]
listen = []
[http]
listen = []
[control]
listen = "unix:DIR/control.sock"
[resolver]
servers = ["%s"]
probe = ""
[cache]
path = "DIR/postseal.db"
%s`, nameServer(t), rules), "DIR", dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serving, drain := context.WithCancel(context.Background())
	d, err := newDaemon(context.Background(), &globalOptions{configPath: config, configSet: true}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	d.serving = serving
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.run(serving); err != nil {
			t.Error(err)
		}
	}()
	end = func() { drain(); d.cutConnections(); <-done }
	t.Cleanup(end)
	eventually(t, "the control socket", func() bool { _, err := typed(t, "healthcheck", "--config", config); return err == nil })
	return d, config, end
}

func enforcedOf(t *testing.T, args ...string) (r enforcedReport, code int) {
	t.Helper()
	out, err := typed(t, append([]string{"report", "enforced", "--json"}, args...)...)
	if e := json.Unmarshal([]byte(out), &r); e != nil {
		t.Fatalf("%v, %v\n%s", e, err, out)
	}
	return r, exitCode(err)
}

// What the engine and RCPT tell is in the report at once, from the daemon and, when it
// has ended, from its file.
func TestReportEnforced_DaemonAndFile(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	d, config, end := bookKeeping(t, dir, reportRules, &log)
	r, code := enforcedOf(t, "--config", config)
	if code != exitFine || len(r.Destinations) != 0 || len(r.Rules) != 3 || r.Rules[0].State != ruleUnused || r.Rules[2].State != ruleExpired || r.Proves != proves {
		t.Errorf("before any mail: %d, %+v", code, r)
	}

	var told policy.Observer = d.book
	partner := &d.config().Rules.All()[0]
	told.Answered("partner.test", partner, "encrypt")
	told.Reached("partner.test", partner, policy.Standing{Verdict: policy.ReachNegative, LastSecured: time.Now().Add(-time.Hour), Hosts: []policy.HostReach{
		{Host: "mx.partner.test", Port: 25, Level: "encrypt", Verdict: policy.ReachNegative, Address: "192.0.2.1", At: time.Now(), Text: "TLS is required, but was not offered by host mx.partner.test"},
	}})
	d.book.refused("partner.test", policy.RecipientRefuse)
	d.book.refused("partner.test", policy.RecipientDefer)
	d.book.refused("partner.test", policy.RecipientPass)
	r, code = enforcedOf(t, "--config", config)
	if code != exitFindings || len(r.Destinations) != 1 || r.Rules[0].State != ruleInUse {
		t.Fatalf("%d, %+v", code, r)
	}
	p := r.Destinations[0]
	if p.State != stateUnreachable || p.Refused != 1 || p.Deferred != 1 || p.Rule.Reason != "contract 4711" || p.LastSecured == nil || len(p.Changes) != 1 {
		t.Errorf("%+v", p)
	}
	if got := d.book.secured("partner.test"); got.IsZero() {
		t.Error("nothing is known of when it was secured")
	}
	if got := d.book.witnesses(); !slices.Equal(got, []string{"partner.test"}) {
		t.Errorf("witnesses of our own path: %q", got)
	}
	for _, format := range []string{"", "--csv"} {
		out, err := typed(t, strings.Fields("report enforced --config "+config+" "+format)...)
		if exitCode(err) != exitFindings || !strings.Contains(out, "partner.test") || !strings.Contains(strings.Join(strings.Fields(out), " "), "does not prove each delivery") {
			t.Errorf("%s: %v\n%s", format, err, out)
		}
	}

	end()
	r, code = enforcedOf(t, "--config", config, "--since", "1h")
	if code != exitFindings || len(r.Destinations) != 1 || r.Destinations[0].Refused != 1 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], dir+"/ledger.db") {
		t.Errorf("from the file: %d, %+v", code, r)
	}

	d, _, end = bookKeeping(t, dir, reportRules, &log) // and a new daemon goes on
	d.book.refused("partner.test", policy.RecipientRefuse)
	if r, _ = enforcedOf(t, "--config", config); len(r.Destinations) != 1 || r.Destinations[0].Refused != 2 {
		t.Errorf("from the next daemon: %+v", r)
	}
	end()
	if strings.Contains(log.String(), "level=ERROR") {
		t.Error(log.String())
	}
}

// What Postfix was told is kept without anybody else's doing.
func TestReportEnforced_Answered(t *testing.T) {
	var log bytes.Buffer
	d, config, _ := bookKeeping(t, t.TempDir(), reportRules, &log)
	for _, key := range []string{"partner.test", "other.test"} {
		d.engine.ServeSocketmap(t.Context(), nil, []byte("postseal"), []byte(key))
	}
	r, code := enforcedOf(t, "--config", config)
	if code != exitFine || len(r.Destinations) != 1 || r.Destinations[0].Level != "encrypt" || r.Destinations[0].State != stateNotProbed || r.Destinations[0].LastAsked == nil {
		t.Errorf("%d, %+v", code, r.Destinations)
	}
}

// relayed says that the mail of partner.test and clinics goes by a relay.
type relayed struct{ t *testing.T }

func (r relayed) unboundAll(_ context.Context, domains []string) map[string]string {
	if len(domains) != 1 || domains[0] != "partner.test" {
		r.t.Errorf("asked for %q", domains)
	}
	return map[string]string{"partner.test": "relayhost = [smart.test]:587"}
}

func (r relayed) inertRules(_ context.Context, rules *policy.Rules) map[*policy.Rule]string {
	return map[*policy.Rule]string{&rules.All()[1]: "relayhost = [smart.test]:587"}
}

// Where Postfix hands mail elsewhere the rules are told to be inert, also later, from
// the file.
func TestReportEnforced_Inert(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	d, config, end := bookKeeping(t, dir, reportRules, &log)
	d.book.Answered("partner.test", &d.config().Rules.All()[0], "encrypt")
	d.book.Answered("[smart.test]:587", &d.config().Rules.All()[0], "encrypt")
	d.book.routes = relayed{t}
	if r, _ := enforcedOf(t, "--config", config); r.Rules[0].State != ruleInUse || r.Rules[1].State != ruleInert || r.Rules[1].Why == "" {
		t.Errorf("%+v", r.Rules)
	}
	for _, where := range []string{"daemon", "file"} {
		r, code := enforcedOf(t, "--config", config)
		if code != exitFindings || len(r.Destinations) != 2 || r.Destinations[0].State != stateInert || !strings.Contains(r.Destinations[0].Why, "relayhost = [smart.test]:587") {
			t.Errorf("from the %s: %d, %+v", where, code, r.Destinations)
		}
		end()
	}
}

// Main.cf's own level may be stronger than a rule: then NOTFOUND is no weakness.
func TestReportEnforced_MainIsStronger(t *testing.T) {
	var log bytes.Buffer
	d, config, _ := bookKeeping(t, t.TempDir(), reportRules, &log)
	r := &d.config().Rules.All()[0]
	d.book.Answered("partner.test", r, notAnswered)
	if r, code := enforcedOf(t, "--config", config); code != exitFindings || r.Destinations[0].State != stateNotHeld {
		t.Errorf("%d, %+v", code, r.Destinations)
	}
	d.book.stronger = func() bool { return true }
	d.book.Answered("partner.test", r, notAnswered)
	if r, code := enforcedOf(t, "--config", config); code != exitFine || r.Destinations[0].Level != levelOfMain {
		t.Errorf("%d, %+v", code, r.Destinations)
	}
}

// A ledger that cannot be had keeps nothing from working.
func TestLedger_CannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	d, config, end := bookKeeping(t, dir, reportRules+"[ledger]\npath = \""+dir+"/file/ledger.db\"\n", &log)
	d.book.refused("partner.test", policy.RecipientRefuse)
	r, code := enforcedOf(t, "--config", config)
	if code != exitFine || len(r.Destinations) != 1 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "the ledger is not written") {
		t.Errorf("%d, %+v", code, r)
	}
	ready := d.readiness()
	if !ready.Ready || !strings.Contains(strings.Join(ready.Detail, "\n"), "ledger: ") {
		t.Errorf("%+v", ready)
	}
	end()
	if !strings.Contains(log.String(), "no ledger on disk") {
		t.Error(log.String())
	}
	if _, err := typed(t, "report", "enforced", "--config", config); exitCode(err) != exitFailure || !strings.Contains(err.Error(), "no daemon is running, and its ledger cannot be read") {
		t.Error(err)
	}
}

// What does not fit together is wrong usage.
func TestReportEnforced_Usage(t *testing.T) {
	config, dir := worldWithoutDaemon(t)
	for line, want := range map[string]string{
		"report enforced --csv --json":         "--csv or --json, not both",
		"report enforced --since soon":         `--since "soon": write for example`,
		"report enforced --since 2999-01-01":   "lies in the future",
		"report enforced":                      "no daemon is running, and there is no " + dir + "/ledger.db; start one with: postseal serve",
		"report enforcd":                       `did you mean "postseal report enforced"?`,
		"report enforced --since 7d partner.x": "unknown command",
	} {
		if _, err := typed(t, append(strings.Fields(line), "--config", config)...); exitCode(err) != exitFailure || !strings.Contains(err.Error(), want) {
			t.Errorf("postseal %s: %v, want %s", line, err, want)
		}
	}
}

// TestBook_LetsRulesGo: what a reload made void is not kept for as long as the daemon runs.
func TestBook_LetsRulesGo(t *testing.T) {
	var log bytes.Buffer
	d, _, _ := bookKeeping(t, t.TempDir(), reportRules, &log)
	for range 3 {
		d.book.Answered("partner.test", &d.config().Rules.All()[0], "encrypt")
		if err := d.reload(); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	d.book.rules.Range(func(_, _ any) bool { kept++; return true })
	if kept != 0 {
		t.Errorf("%d rules of before are kept", kept)
	}
}
