package blackbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// badConfigs are files that are refused, and the line at which.
var badConfigs = []struct {
	name, text string
	line       int
	says       string
}{
	{"unknown_key", "mode = \"enforce\"\n[tls_policy]\nflor = \"dane\"\n", 3, "floor"},
	{"unknown_section", "\n[mtasts]\nmode = \"off\"\n", 2, "mta_sts"},
	{"bad_word", "[tls_policy]\n\nfloor = \"may\"\n", 3, "inherit"},
	{"wrong_type", "[tls_policy]\nfloor = 1\n", 2, "in quotes"},
	{"syntax", "[tls_policy]\nfloor = \"dane\n", 2, ""},
	{"duplicate_key", "[tls_policy]\nfloor = \"dane\"\nfloor = \"encrypt\"\n", 3, ""},
	{"bad_duration", "[tls_policy]\ndeadline = \"5\"\n", 2, "5s"},
	{"bad_version", "[tls_policy]\npostfix_version = \"newest\"\n", 2, "mail_version"},
	{"old_version", "[tls_policy]\npostfix_version = \"3.6\"\n", 2, "3.7"},
	{"bad_listen", "[socketmap]\nlisten = [\"127.0.0.1:8463\"]\n", 2, "inet:"},
	{"listen_string", "[socketmap]\nlisten = \"inet:127.0.0.1:8463\"\n", 2, "list"},
	{"relative_socket", "[socketmap]\nlisten = [\"unix:x.sock\"]\n", 2, ""},
	{"control_network", "[control]\nlisten = \"inet:127.0.0.1:1\"\n", 2, "unix:"},
	{"bad_server", "[resolver]\nservers = [\"localhost\"]\n", 2, "127.0.0.1"},
	{"bad_trust", "[resolver]\ntrust_ad = \"maybe\"\n", 2, "loopback"},
	{"bad_network", "[mta_sts]\nallow_networks = [\"10.0.0.1/8\"]\n", 2, "10.0.0.0/8"},
	{"bad_mode", "[dane]\nmode = \"on\"\n", 2, "enforce"},
	{"bad_probe", "[resolver]\nprobe = \"nonsense\"\n", 2, ""},
	{"may_without_reason", "[[rule]]\nmatch = [\"x.test\"]\nlevel = \"may\"\n", 0, "reason"},
	{"none_without_reason", "[[rule]]\nmatch = [\"x.test\"]\nlevel = \"none\"\n", 0, "reason"},
	{"dane_without_reason", "[[rule]]\nmatch = [\"x.test\"]\nlevel = \"dane\"\n", 0, "reason"},
	{"exempt_without_reason", "[[rule]]\nmatch = [\"x.test\"]\nlevel = \"exempt\"\n", 0, "reason"},
	{"bad_level", "[[rule]]\nmatch = [\"x.test\"]\nlevel = \"strong\"\n", 3, "strong"},
	{"bad_attribute", "[[rule]]\nmatch = [\"x.test\"]\nlevel = \"encrypt foo=bar\"\n", 3, "foo"},
	{"match_at_dane", "[[rule]]\nmatch = [\"x.test\"]\nlevel = \"dane-only match=x\"\n", 3, "match"},
	{"bad_match", "[[rule]]\nmatch = [\"x..test\"]\nlevel = \"encrypt\"\n", 2, "x..test"},
	{"star_match", "[[rule]]\nmatch = [\"*.x.test\"]\nlevel = \"encrypt\"\n", 2, ".x.test"},
	{"no_match", "[[rule]]\nlevel = \"encrypt\"\n", 0, "match"},
	{"empty_match", "[[rule]]\nmatch = []\nlevel = \"encrypt\"\n", 2, "match"},
	{"no_level", "[[rule]]\nmatch = [\"x.test\"]\n", 0, "level"},
	{"bad_until", "[[rule]]\nmatch = [\"x.test\"]\nlevel = \"encrypt\"\nuntil = \"soon\"\n", 4, "date"},
	{"bad_exempt", "[[rule]]\nmatch = [\"x.test\"]\nlevel = \"exempt\"\nexempt = [\"tls\"]\nreason = \"r\"\n", 4, "dane"},
	{"single_brackets", "[rule]\nmatch = [\"x.test\"]\nlevel = \"encrypt\"\n", 1, "[[rule]]"},
	{"missing_rule_map", "[tls_policy]\nrule_map = \"nowhere\"\n", 2, "nowhere"},
	{"missing_ca", "[mta_sts]\nca_file = \"/nowhere.pem\"\n", 0, "nowhere.pem"},
	{"binary", "\x00\x01\x02", 1, ""},
	{"not_utf8", "mode = \"\xff\"\n", 1, ""},
}

// TestConfig_Refused: a bad file ends serve and the other commands with exit 2, and the error names file, line and key.
func TestConfig_Refused(t *testing.T) {
	t.Parallel()
	for _, c := range badConfigs {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, nil)
			if err := os.WriteFile(d.file, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, command := range [][]string{{"serve"}, {"config", "check"}, {"explain", "x.test"}} {
				if c.name == "missing_ca" && command[0] == "config" {
					continue
				}
				r := d.run(command...)
				place := d.file
				if c.line > 0 {
					place = fmt.Sprintf("%s:%d", d.file, c.line)
				}
				if c.name == "missing_ca" {
					place = ""
				}
				if r.code != 2 || !strings.Contains(r.err, place) || !strings.Contains(r.err, c.says) {
					t.Errorf("%v: exit %d: %s; want %s and %q", command, r.code, r.err, place, c.says)
				}
			}
		})
	}
	t.Run("no_file", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t, nil)
		if err := os.Remove(d.file); err != nil {
			t.Fatal(err)
		}
		if r := d.run("serve"); r.code != 2 || !strings.Contains(r.err, d.file) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("usage", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t, nil)
		for _, c := range [][]string{{"nosuchcommand"}, {"serve", "--nosuchflag"}, {"serve", "x"}, {"cache", "show"}, {"cache", "nosuch"}, {"serve", "--log-format", "xml"}, {"config", "nosuch"}} {
			if r := d.run(c...); r.code != 2 || r.err == "" {
				t.Errorf("%v: %+v", c, r)
			}
		}
	})
}

// TestConfig_Good: what a good file looks like to config check and show; included files.
func TestConfig_Good(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, nil)
	if err := os.MkdirAll(d.dir+"/rules.d", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.dir+"/rules.d/one.toml", []byte("[[rule]]\nmatch = [\"inc.good.test\"]\nlevel = \"encrypt\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.configure(d.conf.with(config{"": `include = ["rules.d/*.toml"]`}))
	if r := d.run("config", "check"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if text := d.must("config", "show"); !strings.Contains(text, "postfix_version") {
		t.Errorf("%s", text)
	}
	var shown map[string]any
	if err := json.Unmarshal([]byte(d.must("config", "show", "--json")), &shown); err != nil {
		t.Errorf("config show --json: %v", err)
	}
	d.start()
	truth.publish(t, "inc.good.test A 192.0.2.1")
	d.wants("inc.good.test", "OK encrypt")
	if v := d.object("version"); v["version"] == nil {
		t.Errorf("version: %v", v)
	}
}

// TestOperation_HTTP: /healthz, /readyz, /metrics, and healthcheck.
func TestOperation_HTTP(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	publishPlain(t, "http.test")
	d.wants("http.test", notFound)
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/": 404, "/policies": 404, "/debug/pprof/": 404} {
		if code, body := d.get(path); code != want {
			t.Errorf("%s: %d %.200s", path, code, body)
		}
	}
	if _, text := d.get("/metrics"); !strings.Contains(text, "postseal_") || strings.Contains(text, "http.test") {
		t.Error("metrics: none of ours, or a domain in a label")
	}
	if r := d.run("healthcheck"); r.code != 0 {
		t.Errorf("healthcheck: %+v", r)
	}
	if v := d.object("healthcheck"); v["ready"] != true {
		t.Errorf("healthcheck --json: %v", v)
	}
	// Trouble with DNS is detail, not unreadiness.
	d.configure(d.conf.with(config{"resolver": fmt.Sprintf("servers = [%q]", silentAddress)}))
	d.must("reload")
	if code, _ := d.get("/readyz"); code != 200 {
		t.Errorf("/readyz without DNS: %d", code)
	}
}

// TestOperation_Bind: the socketmap must be there, the others are tried on; a changed listen takes effect at reload.
func TestOperation_Bind(t *testing.T) {
	t.Parallel()
	t.Run("socketmap_taken", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t, nil)
		l, err := net.Listen("tcp", d.socketmap())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if r := d.run("serve"); r.code != 2 || !strings.Contains(r.err, d.socketmap()) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("http_taken", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t, nil)
		l, err := net.Listen("tcp", d.ip+":8466")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d.start()
		publishPlain(t, "taken.test")
		d.wants("taken.test", notFound)
		if r := d.run("healthcheck"); r.code != 1 || !strings.Contains(r.out+r.err, "http") {
			t.Errorf("healthcheck: %+v", r)
		}
	})
	t.Run("reload", func(t *testing.T) {
		t.Parallel()
		d := startDaemon(t, nil)
		publishPlain(t, "moved.test")
		conn := d.dial()
		if got, err := conn.ask("QUERY", "moved.test"); got != notFound || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		d.configure(d.conf.with(config{"socketmap": fmt.Sprintf("listen = [%q, %q]\ndrain = \"1s\"", "inet:"+d.socketmap(), "inet:"+d.ip+":9463"), "http": "listen = []"}))
		d.must("reload")
		second, err := dial("tcp", d.ip+":9463")
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if got, err := second.ask("QUERY", "moved.test"); got != notFound || err != nil {
			t.Errorf("new socket: %q, %v", got, err)
		}
		if got, err := conn.ask("QUERY", "moved.test"); got != notFound || err != nil {
			t.Errorf("PFX-14: the open connection: %q, %v", got, err)
		}
		d.await("closed http", func() bool {
			c, err := net.Dial("tcp", d.ip+":8466")
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		d.configure(d.conf.with(config{"socketmap": fmt.Sprintf("listen = [%q]\ndrain = \"1s\"", "inet:"+d.ip+":9463")}))
		d.must("reload")
		if got, err := conn.ask("QUERY", "moved.test"); got != notFound || err != nil {
			t.Errorf("PFX-14: a connection of the socket that is no longer wanted: %q, %v", got, err)
		}
	})
	t.Run("reload_to_a_taken_socket", func(t *testing.T) {
		t.Parallel()
		d := startDaemon(t, nil)
		publishPlain(t, "stays.test")
		l, err := net.Listen("tcp", d.ip+":9463")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d.configure(d.conf.with(config{"socketmap": fmt.Sprintf("listen = [%q]\ndrain = \"1s\"", "inet:"+d.ip+":9463")}))
		if r := d.run("reload"); r.code != 2 || !strings.Contains(r.err, "9463") {
			t.Errorf("%+v", r)
		}
		d.wants("stays.test", notFound) // the old configuration stays
	})
}

// TestOperation_Control: who may talk to the control socket.
func TestOperation_Control(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	info, err := os.Stat(d.dir + "/c.sock")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for _, dir := range []string{d.dir, filepath.Dir(program)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range [][]string{{"explain", "x.test"}, {"cache", "list"}, {"cache", "flush", "x.test"}, {"reload"}, {"healthcheck"}} {
		cmd := exec.Command(program, append(c, "--config", d.file)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Env = d.environment()
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "permission denied") {
			t.Errorf("%v as nobody: %v: %s", c, err, out)
		}
	}
	conn, err := net.Dial("unix", d.dir+"/c.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "nonsense\r\n\r\n")
	if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if r := d.run("healthcheck"); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

// TestOperation_Container: no resolv.conf, an empty one, no /etc at all, no Postfix: it starts, and is ready.
func TestOperation_Container(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"empty_resolv_conf": `PATH=/usr/sbin:/usr/bin:/sbin:/bin; mount --bind /dev/null /etc/resolv.conf && exec "$@"`,
		"no_etc":            `PATH=/usr/sbin:/usr/bin:/sbin:/bin; mkdir -p "$EMPTY" && mount --bind "$EMPTY" /etc && exec "$@"`,
		"bad_resolv_conf":   `PATH=/usr/sbin:/usr/bin:/sbin:/bin; echo "nameserver nonsense" > "$EMPTY.conf" && mount --bind "$EMPTY.conf" /etc/resolv.conf && exec "$@"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, config{"resolver": "", "tls_policy": "deadline = \"1s\""})
			d.env = []string{"EMPTY=" + d.dir + "/empty"}
			d.wrap = []string{"/usr/bin/unshare", "--mount", "/bin/sh", "-c", script, "sh"}
			d.start()
			publishPlain(t, "container.test")
			if got := d.ask("QUERY", "container.test"); got != notFound {
				t.Errorf("%q", got)
			}
			if code, body := d.get("/readyz"); code != 200 {
				t.Errorf("/readyz: %d %s", code, body)
			}
		})
	}
	t.Run("default_configuration", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t, nil)
		d.configure(config{"": ""})
		d.ip = "127.0.0.1"
		d.env = []string{"STATE_DIRECTORY=" + d.dir, "RUNTIME_DIRECTORY=" + d.dir}
		d.start()
		publishPlain(t, "defaults.test")
		d.ask("QUERY", "defaults.test")
		if _, err := os.Stat(d.dir + "/postseal.db"); err != nil {
			t.Error(err)
		}
		if r := d.run("healthcheck"); r.code != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// TestCMB015_MainCf: floor = "inherit" knows the level of main.cf, where a real postconf can be asked.
func TestCMB015_MainCf(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/usr/sbin/postconf"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Logf("no Postfix on this machine: %v", err)
		return
	}
	truth.publish(t, `d0.main.test MX 10 mx.d0.main.test
mx.d0.main.test A 192.0.2.1
d1.main.test MX 10 mx.d1.main.test
mx.d1.main.test A 192.0.2.1
_25._tcp.mx.d1.main.test TLSA 3 1 1 `+sum256+`
d2.main.test MX 10 mx.d1.main.test
d2.main.test MX 20 mx.d0.main.test
d5.main.test MX !insecure 10 mx.d1.main.test
sts.main.test MX 10 mx.sts.main.test
mx.sts.main.test A 192.0.2.1`)
	publishSTS(t, "sts.main.test", "1", enforce("mx.sts.main.test"))
	for _, c := range []struct{ level, d0, d1, d2, d5 string }{
		{"may", notFound, "OK dane", "OK dane", "OK dane"},
		{"dane", notFound, "OK dane", "OK dane", "OK dane"},
		{"encrypt", notFound, "OK dane-only", "OK dane-only", notFound},
		{"secure", notFound, notFound, notFound, notFound},
		{"verify", notFound, notFound, notFound, notFound},
	} {
		t.Run(c.level, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, config{"tls_policy": ""})
			dir := d.dir + "/etc"
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			main := fmt.Sprintf("compatibility_level = 3.6\nsmtp_tls_security_level = %s\nsmtp_tls_policy_maps = socketmap:inet:%s:postseal\nsmtp_dns_support_level = dnssec\nsmtp_host_lookup = dns\nsmtp_tls_CAfile = %s\n", c.level, d.socketmap(), roots)
			for name, text := range map[string]string{"main.cf": main, "master.cf": "smtp unix - - n - - smtp\nrelay unix - - n - - smtp\n"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			d.env = []string{"MAIL_CONFIG=" + dir}
			d.start()
			for domain, want := range map[string]string{"d0": c.d0, "d1": c.d1, "d2": c.d2, "d5": c.d5, "sts": "OK secure match=mx.sts.main.test servername=hostname"} {
				d.wants(domain+".main.test", want)
			}
		})
	}
}
