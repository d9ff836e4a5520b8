package blackbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSTS095_Restart: an enforced policy, once answered, survives kill -9 and every outage.
func TestSTS095_Restart(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	publishPlain(t, "kept.test")
	publishSTS(t, "kept.test", "1", enforce("mx.kept.test"))
	d.wants("kept.test", secureFor("kept.test"))
	for _, c := range []struct{ name, address string }{{"offline", offlineAddress}, {"dead", deadAddress}, {"silent", silentAddress}, {"refusing", refusingAddress}, {"nobody", "127.0.0.98"}} {
		d.kill() // at once after the first answer, in the first round
		d.configure(d.conf.with(config{"resolver": fmt.Sprintf("servers = [%q]", c.address), "tls_policy": "postfix_version = \"3.7\"\ndeadline = \"2s\""}))
		d.start()
		start := time.Now()
		if got := d.ask("QUERY", "kept.test"); got != secureFor("kept.test") {
			t.Errorf("%s: got %q", c.name, got)
		}
		if took := time.Since(start); took > 2500*time.Millisecond {
			t.Errorf("%s: answered after %v", c.name, took)
		}
	}
}

// TestSTS044_LiveTrouble: what happens to a domain with a policy that is held.
func TestSTS044_LiveTrouble(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	for _, c := range []struct {
		name   string
		change func(t *testing.T, domain string)
		want   string // "" keeps
	}{
		{"txt_gone", func(t *testing.T, domain string) { truth.publish(t, "_mta-sts."+domain+" TXT") }, ""},
		{"txt_servfail", func(t *testing.T, domain string) { truth.publish(t, "_mta-sts."+domain+" TXT !servfail") }, ""},
		{"txt_two", func(t *testing.T, domain string) {
			truth.publish(t, "_mta-sts."+domain+" TXT \"v=STSv1; id=8\"\n_mta-sts."+domain+" TXT \"v=STSv1; id=9\"")
		}, ""},
		{"new_id_404", func(t *testing.T, domain string) {
			truth.publish(t, "$TTL 1\n_mta-sts."+domain+" TXT \"v=STSv1; id=2\"")
			sites.publish(domain, &site{status: 404})
		}, ""},
		{"new_id_html", func(t *testing.T, domain string) {
			truth.publish(t, "$TTL 1\n_mta-sts."+domain+" TXT \"v=STSv1; id=2\"")
			sites.publish(domain, &site{body: "<html>", header: map[string]string{"Content-Type": "text/html"}})
		}, ""},
		{"new_id_invalid", func(t *testing.T, domain string) {
			truth.publish(t, "$TTL 1\n_mta-sts."+domain+" TXT \"v=STSv1; id=2\"")
			sites.publish(domain, &site{body: "version: STSv1\nmode: enforce\nmax_age: 1000\n"})
		}, ""},
		{"new_id_no_host", func(t *testing.T, domain string) {
			truth.publish(t, "$TTL 1\n_mta-sts."+domain+" TXT \"v=STSv1; id=2\"\nmta-sts."+domain+" A")
			sites.publish(domain, nil)
		}, ""},
		{"STS083_new_id", func(t *testing.T, domain string) {
			truth.publish(t, "$TTL 1\n_mta-sts."+domain+" TXT \"v=STSv1; id=2\"")
			sites.publish(domain, &site{body: enforce("new." + domain)})
		}, "other"},
		{"STS094_none", func(t *testing.T, domain string) {
			truth.publish(t, "$TTL 1\n_mta-sts."+domain+" TXT \"v=STSv1; id=2\"")
			sites.publish(domain, &site{body: "version: STSv1\nmode: none\nmax_age: 86400\n"})
		}, notFound},
		{"testing", func(t *testing.T, domain string) {
			truth.publish(t, "$TTL 1\n_mta-sts."+domain+" TXT \"v=STSv1; id=2\"")
			sites.publish(domain, &site{body: policyText("testing", "mx."+domain)})
		}, notFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := d.in(t)
			domain := strings.ReplaceAll(strings.ToLower(c.name), "_", "-") + ".live.test"
			truth.publish(t, "$TTL 1\n"+domain+" MX 10 mx."+domain+"\nmx."+domain+" A 192.0.2.1\n_mta-sts."+domain+" TXT \"v=STSv1; id=1\"\nmta-sts."+domain+" A "+policyHostAddress)
			sites.publish(domain, &site{body: enforce("mx." + domain)})
			if got := d.ask("QUERY", domain); got != secureFor(domain) {
				t.Fatalf("first: %q", got)
			}
			c.change(t, domain)
			changed := func(got string) bool { return got != secureFor(domain) }
			if c.want == "" {
				asked := truth.asked("_mta-sts."+domain, "TXT")
				for end := time.Now().Add(4 * time.Second); time.Now().Before(end) && truth.asked("_mta-sts."+domain, "TXT") < asked+2; time.Sleep(50 * time.Millisecond) {
					if got := d.ask("QUERY", domain); changed(got) {
						t.Fatalf("then %q", got)
					}
				}
				if truth.asked("_mta-sts."+domain, "TXT") == asked {
					t.Error("STS-083: the record is not looked at again")
				}
				return
			}
			d.await("change", func() bool { return changed(d.ask("QUERY", domain)) })
			if got := d.ask("QUERY", domain); c.want == notFound && got != notFound || c.want == "other" && !strings.HasPrefix(got, "OK secure match=new.") {
				t.Errorf("then %q", got)
			}
		})
	}
}

// TestSTS093_Refresh: a new body under the old id counts, and max_age starts anew; a refresh ignores the record (STS-029).
func TestSTS093_Refresh(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	publishPlain(t, "body.test")
	truth.publish(t, "mx2.body.test A 192.0.2.2")
	publishSTS(t, "body.test", "1", enforce("mx.body.test"))
	d.wants("body.test", secureFor("body.test"))
	sites.publish("body.test", &site{body: enforce("mx2.body.test")})
	truth.publish(t, "_mta-sts.body.test TXT !servfail")
	before := d.object("cache", "show", "body.test")
	time.Sleep(1100 * time.Millisecond)
	after := d.object("cache", "refresh", "body.test")
	if fmt.Sprint(after["mx"]) != "[mx2.body.test]" || after["expires_at"] == before["expires_at"] {
		t.Errorf("before %v, after %v", before, after)
	}
	// The policy names none of the mail hosts now: it is answered as published.
	d.wants("body.test", "OK secure match=mx2.body.test servername=hostname")
}

// TestCCH006_MaxAgeZero: one fetch, both answered.
func TestCCH006_MaxAgeZero(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	publishPlain(t, "zero.test")
	publishSTS(t, "zero.test", "1", "version: STSv1\nmode: enforce\nmx: mx.zero.test\nmax_age: 0\n")
	for range 3 {
		d.wants("zero.test", secureFor("zero.test"))
	}
	if n := sites.gets("zero.test"); n != 1 {
		t.Errorf("%d requests", n)
	}
	d.kill()
	d.start()
	d.wants("zero.test", secureFor("zero.test"))
	if n := sites.gets("zero.test"); n != 1 {
		t.Errorf("%d requests after a restart", n)
	}
}

// TestCCH002_Damage: whatever the file holds, the daemon starts and says what it found.
func TestCCH002_Damage(t *testing.T) {
	t.Parallel()
	publishPlain(t, "damage.test")
	publishSTS(t, "damage.test", "1", enforce("mx.damage.test"))
	first := startDaemon(t, nil)
	first.wants("damage.test", secureFor("damage.test"))
	first.terminate()
	whole, err := os.ReadFile(first.dir + "/p.db")
	if err != nil {
		t.Fatal(err)
	}
	flipped := strings.Clone(string(whole))
	damage := map[string]string{
		"empty": "", "garbage": strings.Repeat("not a database\n", 1000), "half": string(whole[:len(whole)/2]), "header_only": string(whole[:100]),
		"one_page": string(whole[:4096]), "odd": string(whole[:len(whole)-1]), "zeroed": strings.Repeat("\x00", len(whole)),
		"zeroed_end": flipped[:len(whole)-2048] + strings.Repeat("\x00", 2048),
	}
	for name, text := range damage {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, nil)
			if err := os.WriteFile(d.dir+"/p.db", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			d.start()
			d.wants("damage.test", secureFor("damage.test"))
			if code, body := d.get("/readyz"); code != 200 {
				t.Errorf("/readyz: %d %s", code, body)
			}
			if name != "empty" && name != "odd" && name != "zeroed_end" {
				d.await("alarm", func() bool {
					return strings.Contains(d.log.String(), "level=ERROR") || strings.Contains(d.log.String(), "level=WARN")
				})
			}
			d.kill()
			d.configure(d.conf.with(config{"resolver": fmt.Sprintf("servers = [%q]", offlineAddress)}))
			d.start()
			d.wants("damage.test", secureFor("damage.test"))
		})
	}
}

// TestCCH009_Place: where the file cannot be, and who else has it.
func TestCCH009_Place(t *testing.T) {
	t.Parallel()
	publishPlain(t, "place.test")
	publishSTS(t, "place.test", "1", enforce("mx.place.test"))
	for name, prepare := range map[string]func(t *testing.T, d *daemon) string{
		"missing_directory": func(_ *testing.T, d *daemon) string { return d.dir + "/not/there/p.db" },
		"directory":         func(_ *testing.T, d *daemon) string { return d.dir },
		"file_in_between": func(t *testing.T, d *daemon) string {
			if err := os.WriteFile(d.dir+"/file", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return d.dir + "/file/p.db"
		},
		"read_only_file_system": func(t *testing.T, d *daemon) string {
			dir := d.dir + "/ro"
			for _, c := range [][]string{{"mkdir", dir}, {"mount", "-t", "tmpfs", "-o", "ro", "ro", dir}} {
				if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %v: %s", c, err, out)
				}
			}
			t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
			return dir + "/p.db"
		},
		"full_file_system": func(t *testing.T, d *daemon) string {
			dir := d.dir + "/full"
			for _, c := range [][]string{{"mkdir", dir}, {"mount", "-t", "tmpfs", "-o", "size=4k", "full", dir}} {
				if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %v: %s", c, err, out)
				}
			}
			_ = os.WriteFile(dir+"/filler", make([]byte, 8192), 0o600)
			t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
			return dir + "/p.db"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, nil)
			d.configure(d.conf.with(config{"cache": fmt.Sprintf("path = %q", prepare(t, d))}))
			d.start()
			d.wants("place.test", secureFor("place.test"))
			d.wants("place.test", secureFor("place.test"))
			code, body := d.get("/readyz")
			if code != 200 {
				t.Errorf("/readyz: %d", code)
			}
			if name != "missing_directory" && !strings.Contains(body, "store") {
				t.Errorf("/readyz does not tell about the store: %s", body)
			}
			if name != "missing_directory" {
				d.await("alarm", func() bool { return strings.Contains(d.log.String(), "level=ERROR") })
			}
		})
	}
	t.Run("read_only_with_policies", func(t *testing.T) { // never forgets
		t.Parallel()
		d := startDaemon(t, nil)
		dir := d.dir + "/disk"
		for _, c := range [][]string{{"mkdir", dir}, {"mount", "-t", "tmpfs", "disk", dir}} {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v: %s", c, err, out)
			}
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
		d.kill()
		d.configure(d.conf.with(config{"cache": fmt.Sprintf("path = %q", dir+"/p.db")}))
		d.start()
		d.wants("place.test", secureFor("place.test"))
		d.terminate()
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		d.configure(d.conf.with(config{"resolver": fmt.Sprintf("servers = [%q]", offlineAddress)}))
		d.start()
		d.wants("place.test", secureFor("place.test"))
		if code, body := d.get("/readyz"); code != 200 || !strings.Contains(body, "store") {
			t.Errorf("/readyz: %d %s", code, body)
		}
	})
	t.Run("two_daemons", func(t *testing.T) {
		t.Parallel()
		one := startDaemon(t, nil)
		two := newDaemon(t, nil)
		two.configure(two.conf.with(config{"cache": one.conf["cache"]}))
		two.launch()
		if code := two.ended(); code != 2 || !strings.Contains(two.log.String(), "p.db") {
			t.Errorf("exit code %d: %s", code, two.log)
		}
		one.wants("place.test", secureFor("place.test"))
	})
}

// TestCCH009_Commands: the commands about the memory, with and without a daemon.
func TestCCH009_Commands(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": `postfix_version = "3.11"`})
	truth.publish(t, "tlsa.cmd.test MX 10 mx.tlsa.cmd.test\nmx.tlsa.cmd.test A 192.0.2.1\n_25._tcp.mx.tlsa.cmd.test TLSA 3 1 1 "+sum256)
	for _, domain := range []string{"a.cmd.test", "b.cmd.test", "test.cmd.test"} {
		publishPlain(t, domain)
	}
	publishSTS(t, "a.cmd.test", "1", enforce("mx.a.cmd.test"))
	publishSTS(t, "b.cmd.test", "2", enforce("*.b.cmd.test"))
	publishSTS(t, "tlsa.cmd.test", "3", enforce("*.tlsa.cmd.test"))
	publishSTS(t, "test.cmd.test", "4", policyText("testing", "mx.test.cmd.test"))
	for _, domain := range []string{"a.cmd.test", "b.cmd.test", "tlsa.cmd.test", "test.cmd.test"} {
		d.ask("postseal", domain)
	}
	list := func() (domains []string) {
		var all []map[string]any
		if err := json.Unmarshal([]byte(d.must("cache", "list", "--json")), &all); err != nil {
			t.Fatal(err)
		}
		for _, h := range all {
			domains = append(domains, fmt.Sprint(h["domain"]))
		}
		return domains
	}
	const four = "[a.cmd.test b.cmd.test test.cmd.test tlsa.cmd.test]"
	if got := fmt.Sprint(list()); got != four {
		t.Errorf("list: %s", got)
	}
	show := d.object("cache", "show", "b.cmd.test")
	if show["mode"] != "enforce" || show["id"] != "2" || fmt.Sprint(show["mx"]) != "[*.b.cmd.test]" || show["max_age"] != float64(604800) {
		t.Errorf("show: %v", show)
	}
	if text := d.must("cache", "show", "B.cmd.test."); !strings.Contains(text, "mode: enforce") {
		t.Errorf("show: %s", text)
	}
	if r := d.run("cache", "show", "unknown.test"); r.code != 1 || r.err == "" {
		t.Errorf("show of nothing: %+v", r)
	}
	if r := d.run("cache", "refresh", "nosts.cmd.test"); r.code == 0 || r.err == "" {
		t.Errorf("refresh of nothing: %+v", r)
	}
	exported := d.must("cache", "export")
	for _, line := range []string{"a.cmd.test secure match=mx.a.cmd.test servername=hostname", "b.cmd.test secure match=", "tlsa.cmd.test dane-only"} {
		if !strings.Contains("\n"+exported, "\n"+line) {
			t.Errorf("export has no %q:\n%s", line, exported)
		}
	}
	if strings.Contains(exported, "\ntest.cmd.test") || strings.Contains(exported, "policy_type") {
		t.Errorf("export:\n%s", exported)
	}
	saved := d.must("cache", "export", "--json")

	d.must("cache", "flush", "a.cmd.test")
	if got := fmt.Sprint(list()); got != "[b.cmd.test test.cmd.test tlsa.cmd.test]" {
		t.Errorf("after flush: %s", got)
	}
	if r := d.run("cache", "flush", "unknown.test"); r.code == 2 {
		t.Errorf("flush of nothing: %+v", r)
	}
	truth.publish(t, "_mta-sts.a.cmd.test TXT !servfail")
	d.await("flushed", func() bool { return d.ask("QUERY", "a.cmd.test") == notFound })
	if r := d.runIn(saved, "cache", "import", "-"); r.code != 0 {
		t.Errorf("import: %+v", r)
	}
	d.wants("a.cmd.test", secureFor("a.cmd.test"))
	if got := fmt.Sprint(list()); got != four {
		t.Errorf("after import: %s", got)
	}
	for _, bad := range []string{"", "{}", "[1]", "[{\"domain\":\"x\"", "null-ish", `[{"domain":"x.test","body":"nonsense","fetched_at":"2026-01-01T00:00:00Z"}]`} {
		if r := d.runIn(bad, "cache", "import", "-"); r.code != 2 && !strings.Contains(bad, "nonsense") || r.code == 0 && !strings.Contains(r.out, "0 of 1") {
			t.Errorf("import of %q: %+v", bad, r)
		}
	}

	d.terminate()
	if got := fmt.Sprint(list()); got != four {
		t.Errorf("list without a daemon: %s", got)
	}
	if got := d.must("cache", "export"); dropComments(got) != dropComments(exported) {
		t.Errorf("export without a daemon:\n%s\nwith one:\n%s", got, exported)
	}
	if got := d.object("cache", "show", "b.cmd.test"); got["id"] != "2" {
		t.Errorf("show without a daemon: %v", got)
	}
	d.must("cache", "flush", "A.cmd.test.")
	if got := fmt.Sprint(list()); got != "[b.cmd.test test.cmd.test tlsa.cmd.test]" {
		t.Errorf("after flush without a daemon: %s", got)
	}
	if r := d.runIn(saved, "cache", "import", "-"); r.code != 0 || fmt.Sprint(list()) != four {
		t.Errorf("import without a daemon: %+v", r)
	}
	for _, c := range [][]string{{"cache", "import", d.file}, {"cache", "flush", ".."}, {"reload"}, {"healthcheck"}} {
		if r := d.run(c...); r.code != 2 || r.err == "" {
			t.Errorf("%v without a daemon: %+v", c, r)
		}
	}
}

func dropComments(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			out.WriteString(line)
		}
	}
	return out.String()
}
