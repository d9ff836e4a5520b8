package main

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy"
)

// root is the environment of a daemon that an administrator starts by hand.
func root() environment { return environment{getenv: func(string) string { return "" }, uid: 0} }

// load reads a configuration with this text, in a folder of its own beside files.
func load(t testing.TB, text string, files ...string) (*Config, []warning, error) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(files); i += 2 {
		write(files[i], files[i+1])
	}
	write("postseal.toml", text)
	return configSource{path: filepath.Join(dir, "postseal.toml"), explicit: true, environment: root()}.load()
}

func mustLoad(t testing.TB, text string, files ...string) *Config {
	t.Helper()
	c, _, err := load(t, text, files...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func design(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("testdata/config/design.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestConfig_DesignIsTheDefaults(t *testing.T) {
	c := mustLoad(t, design(t))
	rules := c.Rules.All()
	if len(rules) != 2 {
		t.Fatalf("%d rules", len(rules))
	}
	r := rules[0]
	want := []string{"partner.example", ".gov.example", "[relay.example]:587", "mx:*.mail.protection.outlook.com"}
	if !reflect.DeepEqual(r.Match, want) || r.Line.String() != "encrypt protocols=>=TLSv1.2" || r.Reason != "contract 4711" ||
		!r.Until.Equal(time.Date(2027, 4, 1, 0, 0, 0, 0, time.Local)) || r.Monitor || r.Exempt != 0 || r.Source != "postseal.toml:59" {
		t.Errorf("first rule: %+v", r)
	}
	if r := rules[1]; r.Exempt != policy.ExemptDANE|policy.ExemptSTS || !r.Until.IsZero() {
		t.Errorf("second rule: %+v", r)
	}
	d := defaults(root())
	// A list that is written as empty is not nil; both mean none.
	c.Path, c.Rules = d.Path, d.Rules
	if got, want := c.TOML(), d.TOML(); got != want {
		t.Errorf("the defaults of the interface:\n%s\nbuilt in:\n%s", got, want)
	}
}

// sections cuts the example at its headers.
func sections(t testing.TB) []string {
	return regexp.MustCompile(`(?m)^\[\[?[a-z_.]+\]\]?[^\n]*\n(?:[^\[\n][^\n]*\n|\n)*|\A(?:[^\[\n][^\n]*\n)+`).FindAllString(design(t), -1)
}

func TestConfig_EachSectionAlone(t *testing.T) {
	all := sections(t)
	if len(all) != 18 {
		t.Fatalf("%d sections: %q", len(all), all)
	}
	for _, text := range append(all, "", "# nothing\n", "\ufeffmode = 'monitor'\n") {
		if _, _, err := load(t, text); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

var keyLine = regexp.MustCompile(`^([a-z_]+) *=`)

func TestConfig_EveryKeyMisspelt(t *testing.T) {
	lines := strings.Split(design(t), "\n")
	seen := 0
	for i, line := range lines {
		m := keyLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		seen++
		key := m[1]
		slips := []string{key + "s", key[1:], "x" + key, key[:1] + strings.ToUpper(key[1:2]) + key[2:], key[1:2] + key[:1] + key[2:]}
		for _, slip := range slips {
			if slip == "actions" {
				continue // a section
			}
			changed := append([]string{}, lines...)
			changed[i] = slip + strings.TrimPrefix(line, key)
			_, _, err := load(t, strings.Join(changed, "\n"))
			if err == nil {
				t.Errorf("line %d: %q is taken", i+1, slip)
				continue
			}
			for _, say := range []string{fmt.Sprintf("postseal.toml:%d: ", i+1), slip + ": unknown key", fmt.Sprintf("did you mean %q?", key)} {
				if !strings.Contains(err.Error(), say) {
					t.Errorf("line %d, %q: %v; want %q", i+1, slip, err, say)
				}
			}
		}
	}
	if seen < 35 {
		t.Errorf("only %d keys tried", seen)
	}
}

func TestConfig_EverySectionMisspelt(t *testing.T) {
	lines := strings.Split(design(t), "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "[") {
			continue
		}
		changed := append([]string{}, lines...)
		changed[i] = strings.Replace(line, "]", "x]", 1)
		_, _, err := load(t, strings.Join(changed, "\n"))
		name := strings.Trim(strings.Fields(line)[0], "[]")
		last := name[strings.LastIndexByte(name, '.')+1:]
		for _, say := range []string{fmt.Sprintf("postseal.toml:%d: ", i+1), name + "x: unknown key", fmt.Sprintf("did you mean %q?", last)} {
			if err == nil || !strings.Contains(err.Error(), say) {
				t.Errorf("line %d: %v; want %q", i+1, err, say)
			}
		}
	}
}

// Every key refuses values of every other kind, with its line and its name.
func TestConfig_EveryKeyWithValuesOfAnotherKind(t *testing.T) {
	lines := strings.Split(design(t), "\n")
	for i, line := range lines {
		m := keyLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		values := []string{"42", "true", "1.5", "{ a = 1 }", "[42]", "[[]]", "2027-03-31T10:00:00Z", "10:00:00"}
		if m[1] != "until" {
			values = append(values, "2027-03-31")
		}
		switch {
		case m[1] == "trust_ad":
		case strings.Contains(line, "= ["):
			values = append(values, `"text"`)
		default:
			values = append(values, `["text"]`, "[]")
		}
		own := map[string][]string{"add_header": {"true"}, "window": {"42"}, "connections": {"42"}, "share": {"42", "1.5"}}[m[1]]
		for _, value := range values {
			if slices.Contains(own, value) {
				continue // the key's own kind
			}
			changed := append([]string{}, lines...)
			changed[i] = m[1] + " = " + value
			_, _, err := load(t, strings.Join(changed, "\n"))
			if err == nil {
				t.Errorf("line %d: %s = %s is taken", i+1, m[1], value)
				continue
			}
			for _, say := range []string{fmt.Sprintf("postseal.toml:%d: ", i+1), m[1], "want "} {
				if !strings.Contains(err.Error(), say) {
					t.Errorf("line %d, %s: %v; want %q", i+1, value, err, say)
				}
			}
		}
	}
}

func TestConfig_Values(t *testing.T) {
	c := mustLoad(t, `
mode = "monitor"
[socketmap]
listen = ["inet:[::1]:8463", "unix:/var/spool/postfix/postseal/sock"]
unix_mode = "0660"
unix_group = "postfix"
drain = "0s"
[http]
listen = []
[control]
listen = ""
unix_mode = "660"
[resolver]
servers = ["127.0.0.1", "[::1]:5353", "::1", "192.0.2.1:54"]
trust_ad = ["192.0.2.0/24", "2001:db8::1"]
probe = ""
[tls_policy]
floor = "encrypt"
postfix_version = "3.10"
deadline = "1m30s"
[dane]
mode = "off"
[mta_sts]
allow_networks = ["10.0.0.0/8"]
proxy = "http://user:secret@proxy.example:3128"
[senders]
outgoing = ["authenticated", "192.0.2.7"]
domains = ["Bücher.example", ".example.com"]
forwarders = ["list@example.com", "2001:db8::/32"]
`)
	want := map[string][2]any{
		"mode":        {c.Mode, policy.ModeMonitor},
		"listen":      {c.Socketmap.Listen, []string{"inet:[::1]:8463", "unix:/var/spool/postfix/postseal/sock"}},
		"unix_mode":   {c.Socketmap.UnixMode, fs.FileMode(0o660)},
		"unix_group":  {c.Socketmap.UnixGroup, "postfix"},
		"drain":       {c.Socketmap.Drain, time.Duration(0)},
		"http":        {len(c.HTTP.Listen), 0},
		"control":     {c.Control, ControlConfig{UnixMode: 0o660}},
		"servers":     {c.Resolver.Servers, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:5353"), netip.MustParseAddrPort("[::1]:53"), netip.MustParseAddrPort("192.0.2.1:54")}},
		"trust_ad":    {c.Resolver.TrustAD.String(), "192.0.2.0/24, 2001:db8::1/128"},
		"probe":       {c.Resolver.Probe, ""},
		"floor":       {c.TLSPolicy.Floor, policy.FloorEncrypt},
		"version":     {c.TLSPolicy.PostfixVersion.String(), "3.10.0"},
		"deadline":    {c.TLSPolicy.Deadline, 90 * time.Second},
		"dane":        {c.DANEMode(), policy.ModeOff},
		"mta_sts":     {c.MTASTSMode(), policy.ModeMonitor},
		"own mode":    {c.MTASTS.Mode, policy.ModeEnforce},
		"networks":    {c.MTASTS.AllowNetworks, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		"proxy":       {c.MTASTS.Proxy, "http://user:secret@proxy.example:3128"},
		"outgoing":    {texts(c.Senders.Outgoing), []string{"authenticated", "192.0.2.7/32"}},
		"domains":     {texts(c.Senders.Domains), []string{"xn--bcher-kva.example", ".example.com"}},
		"forwarders":  {texts(c.Senders.Forwarders), []string{"list@example.com", "2001:db8::/32"}},
		"not written": {c.MTASTS.FetchTimeout, time.Minute},
	}
	for name, v := range want {
		if !reflect.DeepEqual(v[0], v[1]) {
			t.Errorf("%s: got %v, want %v", name, v[0], v[1])
		}
	}
	if strings.Contains(c.TOML(), "secret") {
		t.Error("the proxy's password is shown")
	}
}

func TestConfig_Refused(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"mode = 'off'", `postseal.toml:1: mode: "off" is not allowed; write "enforce" or "monitor"`},
		{"\n\nmode = enforce", "postseal.toml:3: "},
		{"mode = 'enforce'\nmode = 'monitor'", "postseal.toml:2: key mode is already defined"},
		{"[http]\n[http]", "postseal.toml:2: "},
		{"mode = '\xff'", "postseal.toml:1: "},
		{"floor = 'dane'", "postseal.toml:1: floor: unknown key; it belongs in [tls_policy]"},
		{"[http]\nmode = 'off'", "postseal.toml:2: http.mode: unknown key; "},
		{"[tls_policy]\nzzzzzzzz = 1", "unknown key; in [tls_policy] there are: deadline, floor, postfix_version, rule_map"},
		{"tls_policy = { floor = 'dnae' }", `postseal.toml:1: tls_policy.floor: "dnae" is not allowed; write "inherit", "dane" or "encrypt"`},
		{"tls_policy.floor = 'dnae'", `postseal.toml:1: tls_policy.floor: "dnae"`},
		{"tls_policy = 'dane'", "postseal.toml:1: tls_policy: want a section [tls_policy], not a string"},
		{"[[tls_policy]]", "tls_policy: want a section [tls_policy], not a list"},
		{"[rule]\nmatch = []", "postseal.toml:1: rule: want [[rule]], in double brackets, not a table"},
		{"rule = [1]", "postseal.toml:1: rule[0]: want a table [[rule]], not an integer"},
		{"[socketmap]\nlisten = ['127.0.0.1:8463']", "postseal.toml:2: socketmap.listen[0]: "},
		{"[socketmap]\nlisten = [\n'inet:127.0.0.1:8463',\n'inet:127.0.0.1',\n]", "postseal.toml:4: socketmap.listen[1]: "},
		{"[socketmap]\nlisten = ['inet::8463']", "no host"},
		{"[socketmap]\nlisten = ['inet:127.0.0.1:84630']", "84630"},
		{"[socketmap]\nlisten = ['unix:postseal/sock']", "must begin with"},
		{"[socketmap]\nlisten = ['unix:/" + strings.Repeat("x", 107) + "']", "107"},
		{"[socketmap]\nunix_mode = '0999'", "socketmap.unix_mode: "},
		{"[socketmap]\nunix_mode = 660", `want a mode such as "0660", in quotes, not an integer`},
		{"[socketmap]\nunix_mode = '0'", "nobody could connect"},
		{"[socketmap]\nunix_group = 'a b'", "no group"},
		{"[socketmap]\ndrain = '2h'", "out of bounds: from 0s to 3600s"},
		{"[socketmap]\ndrain = '-1s'", "out of bounds"},
		{"[socketmap]\ndrain = '105'", `"105" is no duration; write for example "5s"`},
		{"[tls_policy]\ndeadline = '99ms'", "out of bounds: from 100ms to 90s"},
		{"[tls_policy]\ndeadline = '91s'", "out of bounds"},
		{"[tls_policy]\npostfix_version = '3.6.4'", "before 3.7"},
		{"[tls_policy]\npostfix_version = 'new'", `"auto"`},
		{"[tls_policy]\npostfix_version = 3.10", "in quotes, not a number with a fraction"},
		{"[tls_policy]\nrule_map = 'absent'", "postseal.toml:2: tls_policy.rule_map: "},
		{"[mta_sts]\nca_file = '/does/not/exist.pem'", "postseal.toml:2: mta_sts.ca_file: "},
		{"[mta_sts]\nca_file = 'postseal.toml'", "no certificate in PEM form"},
		{"[mta_sts]\nallow_networks = ['10.0.0.1/8']", `write "10.0.0.0/8"`},
		{"[mta_sts]\nallow_networks = ['private']", "no network"},
		{"[mta_sts]\nproxy = 'proxy.example:3128'", "no HTTP proxy"},
		{"[mta_sts]\nproxy = 'socks5://proxy.example'", "no HTTP proxy"},
		{"[mta_sts]\nproxy = 'http://proxy.example/path'", "nothing may follow"},
		{"[mta_sts]\nfetch_timeout = '0s'", "out of bounds"},
		{"[resolver]\nservers = ['resolver.example']", "is not an IP address; write for example"},
		{"[resolver]\nservers = ['127.0.0.1:0']", "not a port from 1"},
		{"[resolver]\nservers = ['127.0.0.1', '127.0.0.1:53']", "postseal.toml:2: resolver.servers: "},
		{"[resolver]\ntrust_ad = []", "\"never\" says so"},
		{"[resolver]\ntrust_ad = 'all'", `write "loopback", "always" or "never", or a list of networks`},
		{"[resolver]\ntrust_ad = ['always']", "resolver.trust_ad[0]: "},
		{"[resolver]\nprobe = '.'", "type:name"},
		{"[resolver]\nprobe = 'ns:a..b'", "postseal.toml:2: resolver.probe: "},
		{"[control]\nlisten = 'inet:127.0.0.1:1'", "no network socket"},
		{"[cache]\npath = ''", "absolute path"},
		{"[cache]\npath = 'postseal.db'", "absolute path"},
		{"[ledger]\npath = '/var/lib/'", "absolute path"},
		{"[cache]\npath = '/a/b.db'\n[ledger]\npath = '/a/b.db'", `postseal.toml:4: ledger.path: "/a/b.db" is that of [cache]`},
		{"[delegation]\nlisten = ['inet:127.0.0.1:8463']", `delegation.listen[0]: "inet:127.0.0.1:8463" is taken by [socketmap]`},
		{"[http]\nlisten = ['inet:127.0.0.1:8463']", `http.listen[0]: "inet:127.0.0.1:8463" is taken by [socketmap]`},
	} {
		_, _, err := load(t, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestConfig_FileAbsent(t *testing.T) {
	s := configSource{path: filepath.Join(t.TempDir(), "postseal.toml"), environment: root()}
	c, warnings, err := s.load()
	if err != nil || warnings != nil {
		t.Fatalf("%v, %v", warnings, err)
	}
	if c.Path != "" || c.TOML() != defaults(root()).TOML() {
		t.Errorf("not the defaults: %+v", c)
	}
	s.explicit = true
	if _, _, err := s.load(); err == nil || !strings.Contains(err.Error(), s.path) {
		t.Errorf("named by the user and absent: %v", err)
	}
	s.path, s.explicit = t.TempDir(), false
	if _, _, err := s.load(); err == nil {
		t.Error("a folder is taken for a file")
	}
}

func TestConfig_Folders(t *testing.T) {
	for _, tt := range []struct {
		name       string
		uid        int
		env        string
		state, run string
	}{
		{"root", 0, "HOME=/root XDG_STATE_HOME=/x XDG_RUNTIME_DIR=/y", "/var/lib/postseal", "/run/postseal"},
		{"systemd", 990, "STATE_DIRECTORY=/var/lib/postseal RUNTIME_DIRECTORY=/run/postseal HOME=/", "/var/lib/postseal", "/run/postseal"},
		{"systemd, several", 0, "STATE_DIRECTORY=/s/a:/s/b RUNTIME_DIRECTORY=/r/a:/r/b", "/s/a", "/r/a"},
		{"user", 1000, "HOME=/home/u XDG_RUNTIME_DIR=/run/user/1000", "/home/u/.local/state/postseal", "/run/user/1000/postseal"},
		{"user with a state folder", 1000, "HOME=/home/u XDG_STATE_HOME=/s XDG_RUNTIME_DIR=/r", "/s/postseal", "/r/postseal"},
		{"user without a runtime folder", 1000, "HOME=/home/u", "/home/u/.local/state/postseal", "/home/u/.local/state/postseal"},
		{"relative XDG paths are ignored", 1000, "HOME=/home/u XDG_STATE_HOME=s XDG_RUNTIME_DIR=r", "/home/u/.local/state/postseal", "/home/u/.local/state/postseal"},
		{"container without a home", 65534, "", "/var/lib/postseal", "/run/postseal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := environment{uid: tt.uid, getenv: func(name string) string {
				for _, v := range strings.Fields(tt.env) {
					if value, ok := strings.CutPrefix(v, name+"="); ok {
						return value
					}
				}
				return ""
			}}
			if state, run := e.folders(); state != tt.state || run != tt.run {
				t.Errorf("got %s, %s; want %s, %s", state, run, tt.state, tt.run)
			}
			c := defaults(e)
			if c.Cache.Path != tt.state+"/postseal.db" || c.Ledger.Path != tt.state+"/ledger.db" || c.Control.Listen != "unix:"+tt.run+"/control.sock" {
				t.Errorf("%s, %s, %s", c.Cache.Path, c.Ledger.Path, c.Control.Listen)
			}
		})
	}
}

// What the configuration means does not change by being shown and read again.
func TestConfig_ShownAndReadAgain(t *testing.T) {
	texts := []string{"", design(t), mailConfig, "[resolver]\nservers=['::1']\ntrust_ad=['192.0.2.1']\n[tls_policy]\npostfix_version='3.10.5'\n" +
		"[[rule]]\nmatch=['a.example']\nlevel='encrypt { ciphers = high }'\nmode='monitor'\nreason=\"\"\"two\nlines \\\"quoted\\\" \\u0007 ü\"\"\"\n" +
		"[[rule]]\nsender=['Boss@a.example', '@B.example', '@.c.example', '\"x y\"@d.example']\nunreachable='refuse'\nrefuse_after='90m'\ntext='\"ask\" us'\nmode='monitor'\n" +
		"[[rule]]\nmatch=['b.example']\nlevel='secure'\nunreachable='defer'\n"}
	for _, text := range texts {
		c := mustLoad(t, text)
		shown := c.TOML()
		again := mustLoad(t, shown)
		if got := again.TOML(); withoutPlaces(got) != withoutPlaces(shown) {
			t.Errorf("shown:\n%s\nread again:\n%s", shown, got)
		}
	}
}

// withoutPlaces drops the comments that say where a rule stands.
func withoutPlaces(text string) string {
	return regexp.MustCompile(`(?m)^# .*\n`).ReplaceAllString(text, "")
}

func FuzzConfig(f *testing.F) {
	f.Add(design(f))
	for _, s := range sections(f) {
		f.Add(s)
	}
	f.Add(mailConfig)
	f.Add("a.b.c = [{x = [[1], {y.z = 2}]}]\n[[rule]]\n[[rule.x]]\n[rule.x.y]\n")
	f.Add("[\"tls_policy\"]\n'floor' = \"\"\"\ndane\"\"\"")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDocument("postseal.toml", []byte(text))
		if err != nil {
			return
		}
		s := configSource{path: "/nonexistent/postseal.toml", environment: root()}
		c, _, err := s.fill(defaults(root()), d)
		if err != nil {
			return
		}
		if c.MTASTS.Proxy != "" {
			return // its password is not shown
		}
		shown := c.TOML()
		if d, err = parseDocument("postseal.toml", []byte(shown)); err != nil {
			t.Fatalf("what is shown is no TOML: %v\n%s", err, shown)
		}
		again, _, err := s.fill(defaults(root()), d)
		if err != nil {
			t.Fatalf("what is shown is refused: %v\n%s", err, shown)
		}
		if got := again.TOML(); withoutPlaces(got) != withoutPlaces(shown) {
			t.Errorf("shown:\n%s\nread again:\n%s", shown, got)
		}
	})
}

func TestConfig_VersionSeenStandsForAuto(t *testing.T) {
	const text = "[[rule]]\nmatch = ['a.example']\nlevel = 'encrypt enable_rpk=yes'\n"
	path := filepath.Join(t.TempDir(), "postseal.toml")
	for _, tt := range []struct {
		seen, written string
		fine          bool
	}{{"", "auto", false}, {"3.9.1", "auto", true}, {"3.7.11", "auto", false}, {"3.7.11", "3.10", true}, {"3.10.5", "3.7", false}} {
		if err := os.WriteFile(path, []byte("[tls_policy]\npostfix_version = '"+tt.written+"'\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := configSource{path: path, environment: root()}
		if tt.seen != "" {
			s.seen, _ = tlspolicy.ParseVersion(tt.seen)
		}
		_, _, err := s.load()
		if fine := err == nil; fine != tt.fine {
			t.Errorf("seen %q, written %q: %v", tt.seen, tt.written, err)
		}
		if err != nil && !strings.Contains(err.Error(), path+":5: rule[0].level: ") {
			t.Errorf("%v", err)
		}
	}
}
