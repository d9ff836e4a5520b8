package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/milter"
)

// mailConfig has every key of [senders] and [milter].
const mailConfig = `[senders]
outgoing = ["authenticated", "local", "10.1.0.0/16"]
domains = ["example.com", ".example.org"]
forwarders = ["lists@example.com", "192.0.2.99"]
egress = ["192.0.2.10", "2001:db8::10", "::ffff:192.0.2.11"]

[[senders.allow]]
login = ["newsletter@example.com"]
client = ["10.1.0.0/16"]
from = ["example.com", "News@Example.org"]

[[senders.allow]]
client = ["10.2.0.1"]
from = [".shop.example.org"]

[milter]
action = "hold"
add_header = true
[milter.actions]
unsigned = "tempfail"
from-foreign = "reject"
fragile-8bit = "monitor"
[milter.breaker]
window = 50
share = 0.25
`

func TestConfig_SendersAndMilter(t *testing.T) {
	c := mustLoad(t, mailConfig)
	s := c.Senders
	for name, v := range map[string][2]any{
		"outgoing":   {texts(s.Outgoing), []string{"authenticated", "local", "10.1.0.0/16"}},
		"domains":    {texts(s.Domains), []string{"example.com", ".example.org"}},
		"forwarders": {texts(s.Forwarders), []string{"lists@example.com", "192.0.2.99/32"}},
		"egress":     {texts(s.Egress), []string{"192.0.2.10", "2001:db8::10", "192.0.2.11"}},
		"login":      {texts(s.Allow[0].Logins), []string{"newsletter@example.com"}},
		"client":     {texts(s.Allow[0].Clients), []string{"10.1.0.0/16"}},
		"from":       {texts(s.Allow[0].From), []string{"example.com", "news@example.org"}},
		"source":     {s.Allow[1].Source, "postseal.toml:12"},
		"action":     {c.Milter.Action, milter.Hold},
		"add_header": {c.Milter.AddHeader, true},
		"actions":    {c.Milter.Actions, map[string]milter.Action{"unsigned": milter.Tempfail, "from-foreign": milter.Reject, "fragile-8bit": milter.Monitor}},
		"breaker":    {c.Milter.Breaker, milter.Breaker{Window: 50, Share: 0.25}},
	} {
		if !reflect.DeepEqual(v[0], v[1]) {
			t.Errorf("%s: got %v, want %v", name, v[0], v[1])
		}
	}
	anna := sender.Client{Login: "anna", Addr: netip.MustParseAddr("10.1.0.1")}
	want := sender.Verdict{Use: sender.Reserved, Named: "example.com", Source: "postseal.toml:7"}
	if got := s.Policy.MayUse(anna, "anna@example.com"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Services ask the policy in force; there is one without a file too.
func TestConfig_SendersByDefault(t *testing.T) {
	for _, c := range []*Config{defaults(root()), mustLoad(t, "")} {
		p := c.Senders.Policy
		if p == nil || !p.Outgoing(sender.Client{Login: "anna"}) || !p.Outgoing(sender.Client{Local: true}) || p.Outgoing(sender.Client{}) {
			t.Errorf("%+v", p)
		}
		if c.Milter.Action != milter.Monitor || c.Milter.AddHeader || len(c.Milter.Actions) != 0 || c.Milter.Breaker != (milter.Breaker{Window: 200, Share: 0.5}) {
			t.Errorf("%+v", c.Milter)
		}
	}
	if mustLoad(t, "[senders]\noutgoing = []").Senders.Policy.Outgoing(sender.Client{Login: "anna"}) {
		t.Error("an empty list is taken for the default")
	}
}

func TestConfig_SendersRefused(t *testing.T) {
	const entry = "[[senders.allow]]\nlogin = ['a']\nfrom = ['example.com']\n"
	for _, tt := range []struct{ text, want string }{
		{"[senders]\noutgoing = ['everybody']", `postseal.toml:2: senders.outgoing[0]: "everybody" is not allowed; write "authenticated", "local" or a network`},
		{"[senders]\noutgoing = ['10.0.0.1/8']", `write "10.0.0.0/8"`},
		{"[senders]\ndomains = ['a@b.example']", "no domain"},
		{"[senders]\ndomains = ['*.b.example']", `write ".b.example" for the subdomains`},
		{"[senders]\nforwarders = ['a b']", "neither a login nor a network"},
		{"[senders]\nforwarders = ['local']", `"local" is a word of outgoing`},
		{"[senders]\negress = ['mail.example.com']", "postseal.toml:2: senders.egress[0]: \"mail.example.com\" is no address that mail leaves from"},
		{"[senders]\negress = ['192.0.2.0/24']", "no address"},
		{"[senders]\negress = ['0.0.0.0']", "no address"},
		{"[senders]\negress = ['fe80::1%eth0']", "no address"},
		{"[senders]\negress = [" + strings.Repeat("'192.0.2.1',", maxEgress+1) + "]", "postseal.toml:2: senders.egress: 65 elements, at most 64"},
		{"[senders]\ndomains = [" + strings.Repeat("'a.example',", sender.MaxElements+1) + "]", "postseal.toml:2: senders.domains: 1001 elements, at most 1000"},
		{strings.Repeat(entry, sender.MaxAllow+1), "senders.allow: 1001 elements, at most 1000"},
		{"[senders.allow]\nlogin = ['a']", "postseal.toml:1: senders.allow: want [[senders.allow]], in double brackets, not a table"},
		{"[senders]\nallow = ['a']", "postseal.toml:2: senders.allow[0]: want a table [[senders.allow]], not a string"},
		{entry + "[[senders.allow]]\nfrom = ['example.com']", "postseal.toml:4: senders.allow[1]: nobody is named who may use it; write login, client or both"},
		{entry + "[[senders.allow]]\nlogin = []\nclient = []\nfrom = ['example.com']", "postseal.toml:4: senders.allow[1]: nobody is named"},
		{entry + "[[senders.allow]]\nlogin = ['a']", "postseal.toml:4: senders.allow[1].from: missing"},
		{entry + "[[senders.allow]]\nlogin = ['a']\nfrom = []", "postseal.toml:6: senders.allow[1].from: missing"},
		{entry + "[[senders.allow]]\nlogin = ['a']\nfrom = [\n'example.com',\n'@example.org']", `postseal.toml:8: senders.allow[1].from[1]: "@example.org": a domain is written without @; write "example.org"`},
		{"[[senders.allow]]\nclient = ['a']\nfrom = ['example.com']", "postseal.toml:2: senders.allow[0].client[0]: \"a\" is no network"},
		{"[[senders.allow]]\nlogin = ['10.1.0.0/16']\nfrom = ['example.com']", "postseal.toml:2: senders.allow[0].login[0]: \"10.1.0.0/16\" is no login; a network stands in client"},
		{"[[senders.allow]]\nlogin = 'a'\nfrom = ['example.com']", "postseal.toml:2: senders.allow[0].login: want a list of logins, in square brackets, not a string"},
		{"[[senders.allow]]\nlogins = ['a']\nfrom = ['example.com']", `postseal.toml:2: senders.allow[0].logins: unknown key; did you mean "login"?`},
		{"[[senders.allow]]\nlogin = ['a']\nfrom = ['example.com']\ndomains = []", "unknown key; it belongs in [senders]"},
	} {
		_, _, err := load(t, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.200s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

// One bad entry does not hide the next, nor is it blamed for what was refused.
func TestConfig_EverySendersErrorIsReportedOnce(t *testing.T) {
	_, _, err := load(t, "[senders]\nallow = [\n'x',\n{ login = ['a b'], from = ['*'] },\n{ login = ['a'] },\n{ from = ['example.com'] },\n{ client = ['10.0.0.1'], from = ['example.com'] },\n]\n")
	var got []string
	for _, text := range errorTexts(err) {
		f := strings.SplitN(text, ": ", 3)
		got = append(got, f[1])
	}
	want := []string{"senders.allow[0]", "senders.allow[1].login[0]", "senders.allow[1].from[0]", "senders.allow[2].from", "senders.allow[3]"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q:\n%v", got, want, err)
	}
}

func TestConfig_MilterRefused(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"[milter]\naction = 'defer'", `postseal.toml:2: milter.action: "defer" is not allowed; write "monitor", "hold", "tempfail" or "reject"`},
		{"[milter]\nadd_header = 'yes'", "postseal.toml:2: milter.add_header: want true or false, without quotes, not a string"},
		{"[milter]\nunix_mode = '0'", "nobody could connect"},
		{"[milter.actions]\nunsigned = 'accept'", `postseal.toml:2: milter.actions.unsigned: "accept" is not allowed; write "monitor", "hold", "tempfail" or "reject"`},
		{"[milter.actions]\nunsigned = true", "postseal.toml:2: milter.actions.unsigned: want an action, in quotes, not a boolean"},
		{"[milter.actions]\nunsigend = 'hold'", `postseal.toml:2: milter.actions.unsigend: unknown key; did you mean "unsigned"?`},
		{"[milter.actions]\nfrom_foreign = 'hold'", `did you mean "from-foreign"?`},
		{"[milter.actions]\nUnsigned = 'hold'", `did you mean "unsigned"?`},
		{"[milter.actions]\nspam = 'hold'", "unknown key; in [milter.actions] there are: alignment-differs, body-invalid, "},
		{"[milter.actions]\nwindow = 7", "unknown key; it belongs in [milter.breaker]"},
		{"[milter]\nunsigned = 'hold'", "unknown key; it belongs in [milter.actions]"},
		{"[milter]\nactions = 'hold'", "postseal.toml:2: milter.actions: want a section [milter.actions], not a string"},
		{"[[milter.actions]]\nunsigned = 'hold'", "milter.actions: want a section [milter.actions], not a list"},
		{"[milter.breaker]\nwindow = 0", "postseal.toml:2: milter.breaker.window: 0 is out of bounds: from 1 to 100000"},
		{"[milter.breaker]\nwindow = 100001", "out of bounds"},
		{"[milter.breaker]\nwindow = -9223372036854775808", "out of bounds"},
		{"[milter.breaker]\nwindow = 200.0", "want a whole number from 1 to 100000, without quotes, not a number with a fraction"},
		{"[milter.breaker]\nshare = 0", "postseal.toml:2: milter.breaker.share: 0 is out of bounds: above 0 and at most 1; one half is 0.5"},
		{"[milter.breaker]\nshare = 0.0", "out of bounds"},
		{"[milter.breaker]\nshare = 1.0001", "out of bounds"},
		{"[milter.breaker]\nshare = 50", "50 is out of bounds"},
		{"[milter.breaker]\nshare = nan", "out of bounds"},
		{"[milter.breaker]\nshare = inf", "out of bounds"},
		{"[milter.breaker]\nshare = -0.5", "out of bounds"},
		{"[milter.breaker]\nshare = '50 %'", "want a share above 0 and at most 1, without quotes, not a string"},
	} {
		_, _, err := load(t, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestConfig_MilterTakesEveryFindingAndAction(t *testing.T) {
	for _, finding := range milter.Actionable() {
		for _, action := range []milter.Action{milter.Monitor, milter.Hold, milter.Tempfail, milter.Reject} {
			c := mustLoad(t, "[milter.actions]\n"+finding+" = '"+action.String()+"'\n")
			if want := map[string]milter.Action{finding: action}; !reflect.DeepEqual(c.Milter.Actions, want) {
				t.Errorf("got %v, want %v", c.Milter.Actions, want)
			}
		}
	}
	for text, want := range map[string]milter.Breaker{
		"window = 1\nshare = 1":         {Window: 1, Share: 1},
		"window = 100000\nshare = 1e-9": {Window: 100000, Share: 1e-9},
		"share = 1.0":                   {Window: 200, Share: 1},
	} {
		c := mustLoad(t, "[milter.breaker]\n"+text+"\n")
		if c.Milter.Breaker != want {
			t.Errorf("%s: %+v", text, c.Milter.Breaker)
		}
		if again := mustLoad(t, c.TOML()); again.Milter.Breaker != want {
			t.Errorf("%s: shown as\n%s", text, c.TOML())
		}
	}
}

func TestConfig_MailWarnings(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"[senders]\noutgoing = []\n", []string{"postseal.toml: warning: senders.outgoing: empty: no mail is outgoing, and all passes unseen"}},
		{"[senders]\negress = ['192.0.2.1', '10.0.0.1', '::1', 'fe80::1']\n", []string{
			`postseal.toml: warning: senders.egress: "10.0.0.1" is private: receivers see the address that it is translated to`,
			`postseal.toml: warning: senders.egress: "::1" is private: receivers see the address that it is translated to`,
			`postseal.toml: warning: senders.egress: "fe80::1" is private: receivers see the address that it is translated to`,
		}},
		{"[[senders.allow]]\nlogin = ['a']\nfrom = ['exmaple.com']\n", nil},
		{"[senders]\ndomains = ['example.com', '.example.com']\n[[senders.allow]]\nlogin = ['a']\nfrom = ['a@example.com', '.b.example.com', 'exmaple.com']\n",
			[]string{`postseal.toml:3: warning: senders.allow: "exmaple.com" is not among senders.domains; only those whom the entry names may use it`}},
		{"[milter.actions]\nfrom-foreign = 'reject'\nsender-not-allowed = 'reject'\nspf-egress = 'hold'\n", []string{
			"postseal.toml: warning: milter.actions.sender-not-allowed: never found, for senders.allow is empty",
			"postseal.toml: warning: milter.actions.spf-egress: never found, for senders.egress is empty",
		}},
		{"[milter.breaker]\nshare = 1\n", []string{"postseal.toml: warning: milter.breaker.share: no share is more than 1, so the breaker never acts"}},
		{design(t), nil},
	} {
		_, warnings, err := load(t, tt.text)
		if err != nil {
			t.Errorf("%s%v", tt.text, err)
		}
		var got []string
		for _, w := range warnings {
			if text := w.String(); !strings.Contains(text, "match ") && !strings.Contains(text, "exempt") {
				got = append(got, text)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s\ngot\n%s\nwant\n%s", tt.text, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}

// What docs/operations.md says of its example holds.
func TestConfig_SendersOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```toml\n[senders]")
	text, _, found := strings.Cut(text, "```")
	if !found {
		t.Fatal("docs/operations.md has no example of [senders]")
	}
	c, warnings, err := load(t, "[senders]"+text)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0].Text, `"news@example.org" is not among senders.domains`) {
		t.Errorf("%v", warnings)
	}
	p, inside := c.Senders.Policy, netip.MustParseAddr("10.1.0.1")
	list, anna := sender.Client{Login: "newsletter@example.com", Addr: inside}, sender.Client{Login: "anna@example.com", Addr: inside}
	if p.MayUse(list, "news@example.org").Use != sender.Allowed || p.MayUse(anna, "news@example.org").Use != sender.Reserved ||
		p.MayUse(anna, "anna@shop.example.org").Use != sender.Allowed || p.MayUse(anna, "anna@example.net").Use != sender.Foreign {
		t.Error("the example does not mean what the page says")
	}
}

// Every key is shown.
func TestConfigShow_SendersAndMilter(t *testing.T) {
	out, _, _, err := configCommand(t, mailConfig, true, "show")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Senders struct {
			Egress []string
			Allow  []struct{ Login, Client, From []string }
		}
		Milter struct {
			Action    string
			AddHeader bool `json:"add_header"`
			Actions   map[string]string
			Breaker   struct {
				Window int
				Share  float64
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	s, m := got.Senders, got.Milter
	if len(s.Egress) != 3 || len(s.Allow) != 2 || !slices.Equal(s.Allow[0].From, []string{"example.com", "news@example.org"}) || s.Allow[1].Login != nil ||
		m.Action != "hold" || !m.AddHeader || len(m.Actions) != 3 || m.Actions["unsigned"] != "tempfail" || m.Breaker.Window != 50 || m.Breaker.Share != 0.25 {
		t.Errorf("%s", out)
	}
}
