package blackbox

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestDANE001_Trust: whose AD bit counts.
func TestDANE001_Trust(t *testing.T) {
	t.Parallel()
	truth.publish(t, "trust.test MX 10 mx.trust.test\nmx.trust.test A 192.0.2.1\n_25._tcp.mx.trust.test TLSA 3 1 1 "+sum256)
	for _, c := range []struct{ name, resolver, want string }{
		{"loopback", fmt.Sprintf("servers = [%q]", resolverAddress), "OK dane"},
		{"port_given", fmt.Sprintf("servers = [%q]", resolverAddress+":53"), "OK dane"},
		{"elsewhere", fmt.Sprintf("servers = [%q]", private), notFound},
		{"elsewhere_always", fmt.Sprintf("servers = [%q]\ntrust_ad = \"always\"", private), "OK dane"},
		{"elsewhere_network", fmt.Sprintf("servers = [%q]\ntrust_ad = [\"10.77.0.0/16\"]", private), "OK dane"},
		{"elsewhere_other_network", fmt.Sprintf("servers = [%q]\ntrust_ad = [\"10.78.0.0/16\"]", private), notFound},
		{"stub", fmt.Sprintf("servers = [%q]", stubAddress), notFound},
		{"stub_always", fmt.Sprintf("servers = [%q]\ntrust_ad = \"always\"", stubAddress), "OK dane"},
		{"never", fmt.Sprintf("servers = [%q]\ntrust_ad = \"never\"", resolverAddress), notFound},
		{"DANE004_stripping_always", fmt.Sprintf("servers = [%q]\ntrust_ad = \"always\"", strippingAddress), notFound},
		{"not_probed", fmt.Sprintf("servers = [%q]\nprobe = \"\"", resolverAddress), "OK dane"},
		{"other_probe", fmt.Sprintf("servers = [%q]\nprobe = \"mx:trust.test\"", resolverAddress), "OK dane"},
		// Fail-over: the first does not answer, refuses, fails.
		{"first_silent", fmt.Sprintf("servers = [%q, %q]", silentAddress, resolverAddress), "OK dane"},
		{"first_refuses", fmt.Sprintf("servers = [%q, %q]", refusingAddress, resolverAddress), "OK dane"},
		{"first_fails", fmt.Sprintf("servers = [%q, %q]", deadAddress, resolverAddress), "OK dane"},
		{"first_is_nobody", fmt.Sprintf("servers = [%q, %q]", "127.0.0.97", resolverAddress), "OK dane"},
		{"DANE004_first_strips", fmt.Sprintf("servers = [%q, %q]", strippingAddress, resolverAddress), "OK dane"},
		{"DANE004_second_strips", fmt.Sprintf("servers = [%q, %q]", resolverAddress, strippingAddress), "OK dane"},
		{"late", fmt.Sprintf("servers = [%q]", lateAddress), "OK dane"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t, config{"resolver": c.resolver})
			d.wants("trust.test", c.want)
			d.wants("trust.test", c.want)
		})
	}
}

// TestDANE004_Unproven: with the validating server gone, the answers of one that strips AD are look-up errors for DANE,
// never a denial; MTA-STS goes on.
func TestDANE004_Unproven(t *testing.T) {
	t.Parallel()
	const address = "127.0.0.40"
	s, err := startNameServer(truth, address, view{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	truth.publish(t, "first.unproven.test MX 10 mx.first.unproven.test\nmx.first.unproven.test A 192.0.2.1\n_25._tcp.mx.first.unproven.test TLSA 3 1 1 "+sum256)
	truth.publish(t, "then.unproven.test MX 10 mx.then.unproven.test\nmx.then.unproven.test A 192.0.2.1\n_25._tcp.mx.then.unproven.test TLSA 3 1 1 "+sum256)
	publishSTS(t, "then.unproven.test", "1", enforce("mx.then.unproven.test"))
	d := startDaemon(t, config{"resolver": fmt.Sprintf("servers = [%q, %q]", address, strippingAddress), "tls_policy": "floor = \"encrypt\""})
	d.wants("first.unproven.test", "OK dane-only")
	s.set(view{silent: true})
	begin := time.Now()
	d.await("policy", func() bool { return d.ask("QUERY", "then.unproven.test") == secureFor("then.unproven.test") })
	t.Logf("MTA-STS after %v", time.Since(begin))
	x := d.object("explain", "then.unproven.test")
	if class := x["dane"].(map[string]any)["class"]; class != "D4" {
		t.Errorf("class %v", class)
	}
}

// TestDANE039_TTL: what DNS says anew counts when the old answer has run out, which is after 30 s at the earliest.
func TestDANE039_TTL(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	truth.publish(t, "$TTL 1\nttl.test MX 10 mx.ttl.test\nmx.ttl.test A 192.0.2.1\n_25._tcp.mx.ttl.test TLSA 3 1 1 "+sum256)
	truth.publish(t, "$TTL 0\nttl0.test MX 10 mx.ttl0.test\nmx.ttl0.test A 192.0.2.1\n_25._tcp.mx.ttl0.test TLSA 3 1 1 "+sum256)
	d.wants("ttl.test", "OK dane")
	d.wants("ttl0.test", "OK dane")
	truth.publish(t, "$TTL 1\n_25._tcp.mx.ttl.test TLSA")
	truth.publish(t, "$TTL 0\nttl0.test MX 10 mx2.ttl0.test\nmx2.ttl0.test A 192.0.2.2")
	begin := time.Now()
	for _, key := range []string{"ttl.test", "ttl0.test"} {
		for d.ask("QUERY", key) != notFound {
			if time.Since(begin) > 45*time.Second {
				t.Fatalf("%s: still %q", key, d.ask("QUERY", key))
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
}

// TestSTS041_Default: without allow_networks a policy host on loopback is not connected to.
func TestSTS041_Default(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"mta_sts": fmt.Sprintf("ca_file = %q", roots)})
	publishPlain(t, "guard.test")
	publishSTS(t, "guard.test", "1", enforce("mx.guard.test"))
	d.wants("guard.test", notFound)
	if n := sites.connections("guard.test"); n > 0 {
		t.Errorf("%d connections", n)
	}
	if sts := d.object("explain", "guard.test")["sts"].(map[string]any); sts["state"] != "failed" || fmt.Sprint(sts["error"]) == "" {
		t.Errorf("%v", sts)
	}
}

// TestSTS032_Proxy: a proxy that is configured is used, with CONNECT.
func TestSTS032_Proxy(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.30:3128")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				mu.Lock()
				asked = append(asked, r.Method+" "+r.Host)
				mu.Unlock()
				out, err := net.Dial("tcp", policyHostAddress+":443")
				if err != nil {
					return
				}
				defer out.Close()
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
				go func() { _, _ = io.Copy(out, in) }()
				_, _ = io.Copy(conn, out)
			}()
		}
	}()
	t.Cleanup(func() { l.Close() })
	d := startDaemon(t, config{"mta_sts": fmt.Sprintf("ca_file = %q\nproxy = \"http://127.0.0.30:3128\"", roots)})
	publishPlain(t, "proxied.test")
	publishSTS(t, "proxied.test", "1", enforce("mx.proxied.test"))
	d.wants("proxied.test", secureFor("proxied.test"))
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 1 || asked[0] != "CONNECT mta-sts.proxied.test:443" {
		t.Errorf("the proxy was asked %v", asked)
	}
}

// TestPFX023_Versions: which attributes a version gets through which map name.
func TestPFX023_Versions(t *testing.T) {
	t.Parallel()
	publishPlain(t, "version.test")
	body := enforce("*.version.test")
	publishSTS(t, "version.test", "1", body)
	plain := secureFor("version.test")
	attributes := " policy_type=sts policy_domain=version.test mx_host_pattern=*.version.test" + policyStrings(body)
	narrowing := "OK secure match=.version.test servername=hostname" + attributes
	for version, want := range map[string][2]string{ // of postseal and QUERYwithTLSRPT
		"3.7": {plain, plain}, "3.9.9": {plain, plain}, "3.10": {plain + attributes, plain + attributes}, "3.10.4": {plain + attributes, plain + attributes},
		"3.10.5": {narrowing, narrowing}, "3.10.13": {narrowing, narrowing}, "3.11": {narrowing, narrowing}, "3.11.7": {narrowing, narrowing}, "4.0": {narrowing, narrowing},
		"auto": {plain, plain + attributes}, // no Postfix here: unknown
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t, config{"tls_policy": fmt.Sprintf("postfix_version = %q", version)})
			for name, reply := range map[string]string{"postseal": want[0], "QUERYwithTLSRPT": want[1], "QUERY": plain, "postfix": plain} {
				if got := d.ask(name, "version.test"); got != reply {
					t.Errorf("map %s:\n got %s\nwant %s", name, got, reply)
				}
			}
		})
	}
}

// TestPFX014_EndWhileBusy: a policy host or name server that hangs does not keep the daemon from ending.
func TestPFX014_EndWhileBusy(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": "deadline = \"500ms\""})
	publishPlain(t, "hang.test")
	publishSTS(t, "hang.test", "1", "")
	sites.publish("hang.test", &site{delay: time.Minute})
	truth.publish(t, "hang2.test MX !silent\n_mta-sts.hang2.test TXT !silent")
	d.wants("hang.test", notFound)
	d.wants("hang2.test", notFound)
	begin := time.Now()
	if code := d.terminate(); code != 0 || time.Since(begin) > 8*time.Second {
		t.Errorf("exit code %d after %v", code, time.Since(begin))
	}
}

// TestSTS097_Import: what is imported never lengthens a lifetime, nor replaces what is held.
func TestSTS097_Import(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	for _, domain := range []string{"future.import.test", "past.import.test", "held.import.test", "odd.import.test"} {
		publishPlain(t, domain)
	}
	publishSTS(t, "held.import.test", "1", enforce("mx.held.import.test"))
	d.wants("held.import.test", secureFor("held.import.test"))
	policy := func(domain string, fetched time.Time) map[string]any {
		return map[string]any{"domain": domain, "mode": "enforce", "id": "7", "mx": []string{"mx." + domain}, "max_age": 604800,
			"fetched_at": fetched, "expires_at": fetched.Add(604800 * time.Second), "body": enforce("mx." + domain)}
	}
	now := time.Now().UTC()
	held := policy("held.import.test", now.Add(-time.Hour))
	held["body"] = policyText("none")
	odd := policy("odd.import.test", now.Add(-time.Hour))
	odd["max_age"], odd["expires_at"] = 31557600, now.Add(1000*time.Hour)
	text, err := json.Marshal([]any{policy("future.import.test", now.Add(1000*time.Hour)), policy("past.import.test", now.Add(-200*time.Hour)), held, odd})
	if err != nil {
		t.Fatal(err)
	}
	if r := d.runIn(string(text), "cache", "import", "-"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	d.wants("held.import.test", secureFor("held.import.test"))
	d.wants("past.import.test", notFound)
	expires := func(domain string) time.Time {
		v, err := time.Parse(time.RFC3339, fmt.Sprint(d.object("cache", "show", domain)["expires_at"]))
		if err != nil {
			t.Error(err)
		}
		return v
	}
	if e := expires("future.import.test"); e.After(time.Now().Add(604800*time.Second + time.Minute)) {
		t.Errorf("future: expires %v", e)
	}
	if e := expires("odd.import.test"); e.After(now.Add(604800 * time.Second)) {
		t.Errorf("odd: expires %v", e)
	}
	if !strings.Contains(d.must("cache", "list"), "odd.import.test") {
		t.Error("not listed")
	}
}

// TestSTS096_Flood: very many new names do not push an enforced policy out, nor keep others waiting.
func TestSTS096_Flood(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	publishPlain(t, "safe.test")
	publishSTS(t, "safe.test", "1", enforce("mx.safe.test"))
	d.wants("safe.test", secureFor("safe.test"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c, err := dial("tcp", d.socketmap())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for j := range 500 {
				if got, err := c.ask("QUERY", fmt.Sprintf("f%d-%d.flood.test", i, j)); got != notFound || err != nil {
					t.Errorf("%q, %v", got, err)
					return
				}
			}
		})
	}
	worst := time.Duration(0)
	for range 50 {
		begin := time.Now()
		d.wants("safe.test", secureFor("safe.test"))
		worst = max(worst, time.Since(begin))
		time.Sleep(10 * time.Millisecond)
	}
	wg.Wait()
	if worst > time.Second {
		t.Errorf("a cached answer took %v", worst)
	}
	d.wants("safe.test", secureFor("safe.test"))
}
