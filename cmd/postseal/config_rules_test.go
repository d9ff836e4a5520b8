package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/postseal/postseal/policy"
)

// What is wrong with a rule is named at the line of its key, or of the element
// of its list; what is missing, at the line of the header.
func TestCMB00_RuleErrorsNameTheirLine(t *testing.T) {
	const before = "mode = 'monitor'\n[[rule]]\nmatch = ['a.example']\nlevel = 'encrypt'\n\n[[rule]]  # the second\n"
	for _, tt := range []struct{ rule, want string }{
		{"level = 'encrypt'", `postseal.toml:6: rule[1].match: missing; write for example match = ["example.com"], or sender = ["@example.com"] for all that these send`},
		{"match = ['b.example']", "postseal.toml:6: rule[1].level: missing"},
		{"match = ['b.example']\nlevel = 'may'", "postseal.toml:6: rule[1].reason: missing: may can weaken"},
		{"match = ['b.example']\nlevel = 'may'\nreason = ''", "postseal.toml:9: rule[1].reason: missing: may can weaken"},
		{"match = []\nlevel = 'encrypt'", "postseal.toml:7: rule[1].match: missing"},
		{"match = [\n  'b.example',\n  # a comment\n  '*.c.example',\n]\nlevel = 'encrypt'", `postseal.toml:10: rule[1].match[1]: "*.c.example": no wildcards here; write ".c.example"`},
		{"match = ['b.example']\n\nlevel = 'encrypt match=x.example'", "postseal.toml:9: rule[1].level: "},
		{"match = ['b.example']\nlevel = 'exempt'\nexempt = [\n'dane',\n42]\nreason = 'r'", "postseal.toml:11: rule[1].exempt[1]: want mechanisms, in quotes, not an integer"},
		{"match = ['b.example']\nlevel = 'exempt'\nexempt = ['tls']\nreason = 'r'", `postseal.toml:9: rule[1].exempt: "tls" is nothing to be exempt from`},
		{"match = ['b.example']\nlevel = 'encrypt'\nmode = 'off'", `postseal.toml:9: rule[1].mode: "off" is not allowed; write "enforce" or "monitor"`},
		{"match = ['b.example']\nlevel = 'encrypt'\nuntil = '31.3.2027'", `postseal.toml:9: rule[1].until: "31.3.2027" is no date; write a date such as 2027-03-31`},
		{"match = ['b.example']\nlevel = 'encrypt'\nuntil = 2027-03-31T00:00:00", "postseal.toml:9: rule[1].until: want a date such as 2027-03-31, without a time of day"},
		{"match = ['b.example']\nlevel = 'encrypt'\nuntil = 2027-02-30", "postseal.toml:9: impossible date"},
		{"match = ['b.example']\nlevel = 'encrypt'\nreasn = 'r'", `postseal.toml:9: rule[1].reasn: unknown key; did you mean "reason"?`},
		{"match = 'b.example'\nlevel = 'encrypt'", "postseal.toml:7: rule[1].match: want a list of destinations, in square brackets, not a string"},
		{"match = ['b.example']\nlevel = 'encrypt'\nunreachable = 'reject'", `postseal.toml:9: rule[1].unreachable: "reject" is not allowed; write "queue", "defer" or "refuse"`},
		{"match = ['b.example']\nlevel = 'encrypt'\nunreachable = ''", `postseal.toml:9: rule[1].unreachable: "" is not allowed; write "queue", "defer" or "refuse"`},
		{"match = ['b.example']\nlevel = 'may'\nreason = 'r'\nunreachable = 'refuse'", "postseal.toml:10: rule[1].unreachable: refuse is for rules that demand TLS"},
		{"match = ['b.example']\nlevel = 'encrypt'\nrefuse_after = '7d'", `postseal.toml:9: rule[1].refuse_after: "7d" is no duration`},
		{"match = ['b.example']\nlevel = 'encrypt'\nrefuse_after = '169h'", "postseal.toml:9: rule[1].refuse_after: \"169h\" is out of bounds: from 0s to 604800s"},
		{"match = ['b.example']\nlevel = 'encrypt'\nrefuse_after = 3600", "postseal.toml:9: rule[1].refuse_after: want a duration such as \"5s\", in quotes, not an integer"},
		{"match = ['b.example']\nlevel = 'encrypt'\ntext = 'für'", "postseal.toml:9: rule[1].text: character 'ü': it is part of an SMTP reply"},
		{"sender = ['@a.example',\n 'b.example']", `postseal.toml:8: rule[1].sender[1]: "b.example": no address without an @; write "@b.example"`},
		{"match = ['b.example']\nsender = ['@a.example']", "postseal.toml:8: rule[1].sender: beside match: "},
		{"sender = ['@a.example']\nlevel = 'secure'", "postseal.toml:8: rule[1].level: \"secure\": all senders of such rules share the transport"},
		{"sender = '@a.example'", "postseal.toml:7: rule[1].sender: want a list of addresses, in square brackets, not a string"},
		{"match = ['b.example']\nlevel = 'encrypt'\nfloor = 'dane'", "postseal.toml:9: rule[1].floor: unknown key; it belongs in [tls_policy]"},
	} {
		_, _, err := load(t, before+tt.rule+"\n")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot  %v\nwant %s", tt.rule, err, tt.want)
		}
	}
}

func TestConfig_InlineRules(t *testing.T) {
	_, _, err := load(t, "rule = [\n {match = ['a.example'], level = 'encrypt'},\n {match = ['b.example'], level = 'encrpyt'},\n]\n")
	if err == nil || !strings.Contains(err.Error(), "postseal.toml:3: rule[1].level: ") {
		t.Errorf("got %v", err)
	}
}

func TestConfig_EveryErrorIsReportedInOrder(t *testing.T) {
	_, _, err := load(t, "[[rule]]\nmatch = ['a b']\nlevel = 'x'\nwhy = ''\n[dane]\nmode = 'on'\n[http]\nlisten = 7\n")
	var lines []string
	for _, text := range errorTexts(err) {
		lines = append(lines, strings.Split(text, ":")[1])
	}
	if got, want := strings.Join(lines, " "), "2 3 4 6 8"; got != want {
		t.Errorf("lines %s, want %s:\n%v", got, want, err)
	}
	_, _, err = load(t, strings.Repeat("[[rule]]\n", 25))
	if n := len(errorTexts(err)); n != maxConfigErrors+1 || !strings.Contains(err.Error(), "and 30 more") {
		t.Errorf("%d errors: %v", n, err)
	}
}

const ruleFile = "[[rule]]\nmatch = ['%s']\nlevel = 'encrypt'\n"

func sources(c *Config) []string {
	var list []string
	for _, r := range c.Rules.All() {
		list = append(list, r.Source+" "+r.Match[0])
	}
	return list
}

// A file's own rules come first, then those of the included files, sorted by name
// within a pattern, then those of rule_map.
func TestConfig_OrderOfRules(t *testing.T) {
	c := mustLoad(t, "include = ['last.toml', 'rules.d/*.toml', 'rules.d/10.toml', 'empty.d/*.toml']\n[tls_policy]\nrule_map = 'old/policy'\n"+fmt.Sprintf(ruleFile, "own.example"),
		"rules.d/20.toml", fmt.Sprintf(ruleFile, "b.example"),
		"rules.d/10.toml", "# only comments first\n"+fmt.Sprintf(ruleFile, "a.example"),
		"rules.d/.10.toml.swp.toml", "no toml",
		"rules.d/30.toml~", "no toml",
		"last.toml", fmt.Sprintf(ruleFile, "last.example"),
		"old/policy", "old.example encrypt\n")
	want := []string{"postseal.toml:4 own.example", "last.toml:1 last.example", "rules.d/10.toml:2 a.example", "rules.d/20.toml:1 b.example"}
	got := sources(c)
	if len(got) != 5 || !reflect.DeepEqual(got[:4], want) || !strings.HasSuffix(got[4], "old/policy:1 old.example") {
		t.Errorf("got %q, want %q and the rule map", got, want)
	}
}

func TestConfig_IncludeRefused(t *testing.T) {
	for _, tt := range []struct{ include, file, want string }{
		{"absent.toml", "", "postseal.toml:2: include[0]: "},
		{"", "", "include[0]: empty"},
		{"[", "", "include[0]: \"[\": syntax error in pattern"},
		{"x.toml", "[tls_policy]\nfloor = 'dane'\n", "x.toml:1: tls_policy: an included file may hold only [[rule]]; write it in "},
		{"x.toml", "include = ['y.toml']\n", "x.toml:1: include: an included file may hold only [[rule]]"},
		{"x*", "\n[[rule]]\nmatch = ['a.example']\nlevel = 'none'\n", "x.toml:2: rule[0].reason: missing"},
		{"x*", "[[rule]]\nlevle = 'none'\n", `x.toml:2: rule[0].levle: unknown key; did you mean "level"?`},
		{"x*", "[[rule\n", "x.toml:1: "},
	} {
		_, _, err := load(t, fmt.Sprintf("include = [\n%q]\n", tt.include), "x.toml", tt.file)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q, %q:\ngot  %v\nwant %s", tt.include, tt.file, err, tt.want)
		}
	}
}

func TestConfig_RuleMapRefused(t *testing.T) {
	_, _, err := load(t, "[tls_policy]\nrule_map = 'policy'\n", "policy", "a.example encrypt\nb.example encrypt match=x.example\n")
	if err == nil || !strings.Contains(err.Error(), "policy:2: ") || !strings.Contains(err.Error(), "match= is not allowed at level encrypt") {
		t.Errorf("got %v", err)
	}
}

func TestConfig_Warnings(t *testing.T) {
	_, warnings, err := load(t, `
[socketmap]
listen = ["inet:0.0.0.0:8463", "inet:localhost:8464", "inet:[::1]:8463", "unix:/run/x"]
[[rule]]
match = ["a.example", "b.example"]
level = "encrypt"
until = 2020-02-29
[[rule]]
match = [".example"]
level = "encrypt"
[[rule]]
match = ["a.example"]
level = "secure"
until = "2999-12-31"
[[rule]]
sender = ["@a.example"]
text = "ask postmaster"
until = 2020-02-29
[[rule]]
sender = ["@b.example"]
[[rule]]
sender = ["a@b.example"]
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"postseal.toml:4: warning: the rule for a.example and 1 more ended on 2020-02-29 and is ignored",
		"postseal.toml:15: warning: the rule for @a.example ended on 2020-02-29 and is ignored",
		`postseal.toml:11: warning: match "a.example" is never reached: postseal.toml:8 matches it before`,
		`postseal.toml:15: warning: text is shown to nobody without unreachable = "defer" or "refuse"`,
		`postseal.toml:21: warning: sender "a@b.example" is never reached: postseal.toml:19 matches it before`,
		`postseal.toml: warning: socketmap.listen: "inet:0.0.0.0:8463" can be reached from other hosts, and the protocol has no passwords`,
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.String())
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// configCommand runs `postseal config` with a file of this text.
func configCommand(t *testing.T, text string, json bool, args ...string) (out, errOut, path string, err error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "postseal.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := newConfigCommand(&globalOptions{configPath: path, configSet: true, json: json})
	var o, e bytes.Buffer
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err = cmd.Execute()
	return o.String(), e.String(), path, err
}

func TestConfigCheck(t *testing.T) {
	out, errOut, path, err := configCommand(t, "[[rule]]\nmatch = ['a.example']\nlevel = 'encrypt'\nuntil = 2020-01-01\n", false, "check")
	if err != nil || out != path+": fine, 1 rules\n" || !strings.HasPrefix(errOut, "postseal.toml:1: warning: ") {
		t.Errorf("out %q, err %q, %v", out, errOut, err)
	}
	out, _, _, err = configCommand(t, "mdoe = 'monitor'\n", false, "check")
	if err == nil || out != "" || !strings.Contains(err.Error(), `postseal.toml:1: mdoe: unknown key; did you mean "mode"?`) {
		t.Errorf("out %q, %v", out, err)
	}
	var exit *exitError
	if errors.As(err, &exit) {
		t.Errorf("exit %d, want that of a failure", exit.code)
	}
}

func TestConfigCheck_JSON(t *testing.T) {
	for _, tt := range []struct {
		text             string
		ok               bool
		rules            int
		warnings, errors int
	}{
		{"[[rule]]\nmatch = ['a.example']\nlevel = 'encrypt'\nuntil = 2020-01-01\n", true, 1, 1, 0},
		{"mdoe = 'monitor'\nmode = 'off'\n", false, 0, 0, 2},
	} {
		out, _, _, err := configCommand(t, tt.text, true, "check")
		var r configReport
		if e := json.Unmarshal([]byte(out), &r); e != nil {
			t.Fatalf("%v in %s", e, out)
		}
		if (err == nil) != tt.ok || r.OK != tt.ok || r.Rules != tt.rules || len(r.Warnings) != tt.warnings || len(r.Errors) != tt.errors {
			t.Errorf("%s%v", out, err)
		}
		if strings.Contains(out, "null") {
			t.Errorf("lists are never null: %s", out)
		}
	}
}

func TestConfigShow(t *testing.T) {
	out, _, _, err := configCommand(t, design(t), false, "show")
	if err != nil || !strings.Contains(out, "[[rule]]\nmatch = [\"partner.example\"") || !strings.Contains(out, "until = 2027-03-31\n") || !strings.Contains(out, "drain = \"105s\"\n") {
		t.Errorf("%s%v", out, err)
	}
	out, _, _, err = configCommand(t, design(t), true, "show")
	var v map[string]any
	if e := json.Unmarshal([]byte(out), &v); err != nil || e != nil {
		t.Fatalf("%v, %v", err, e)
	}
	if v["tls_policy"].(map[string]any)["floor"] != policy.FloorInherit.String() || v["rule"].([]any)[0].(map[string]any)["until"] != "2027-03-31" {
		t.Errorf("%s", out)
	}
}
