package blackbox

import (
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// fetches are the cases of STS-030 to STS-046: how a policy host behaves, and whether the policy counts.
var fetches = []struct {
	name string
	site site // body: the usual policy unless given
	good bool
}{
	{"STS031_301", site{status: 301, header: map[string]string{"Location": "https://mta-sts.D/.well-known/mta-sts.txt?again"}}, false},
	{"STS031_302", site{status: 302, header: map[string]string{"Location": "http://mta-sts.D/.well-known/mta-sts.txt"}}, false},
	{"STS031_303", site{status: 303, header: map[string]string{"Location": "/other"}}, false},
	{"STS031_307", site{status: 307, header: map[string]string{"Location": "/other"}}, false},
	{"STS031_308", site{status: 308, header: map[string]string{"Location": "/other"}}, false},
	{"STS031_201", site{status: 201}, false},
	{"STS031_203", site{status: 203}, false},
	{"STS031_206", site{status: 206}, false},
	{"STS031_404", site{status: 404}, false},
	{"STS031_410", site{status: 410}, false},
	{"STS031_500", site{status: 500}, false},
	{"STS045_403", site{status: 403}, false},
	{"STS045_503", site{status: 503}, false},
	{"STS033_good", site{}, true},
	{"STS033_wildcard", site{names: "*.D"}, true},
	{"STS033_several_names", site{names: "other.test,mta-sts.D"}, true},
	{"STS033_self_signed", site{cert: "self-signed"}, false},
	{"STS033_expired", site{cert: "expired"}, false},
	{"STS033_not_yet", site{cert: "future"}, false},
	{"STS033_unknown_authority", site{cert: "unknown"}, false},
	{"STS033_no_intermediate", site{cert: "no-intermediate"}, false},
	{"STS033_common_name", site{cert: "cn"}, false},
	{"STS033_partial_wildcard", site{names: "m*.D"}, false},
	{"STS033_inner_wildcard", site{names: "mta-sts.*.test"}, false},
	{"STS033_two_labels_away", site{names: "*.test"}, false},
	{"STS033_domain_only", site{names: "D"}, false},
	{"STS033_alias_target", site{names: "mta-sts.hoster.test"}, false},
	{"STS035_tls11", site{maxTLS: tls.VersionTLS11}, false},
	{"STS035_tls12", site{maxTLS: tls.VersionTLS12}, true},
	{"STS037_charset", site{header: map[string]string{"Content-Type": "text/plain; charset=utf-8"}}, true},
	{"STS037_upper_case", site{header: map[string]string{"Content-Type": "TEXT/PLAIN;charset=iso-8859-1; foo=bar"}}, true},
	{"STS037_empty_charset", site{header: map[string]string{"Content-Type": "text/plain; charset="}}, true},
	{"STS037_html", site{header: map[string]string{"Content-Type": "text/html"}}, false},
	{"STS037_binary", site{header: map[string]string{"Content-Type": "application/octet-stream"}}, false},
	{"STS037_prefix_only", site{header: map[string]string{"Content-Type": "text/plainer"}}, false},
	{"STS037_none", site{header: map[string]string{"Content-Type": ""}}, false},
	{"STS038_65536", site{body: padded(65536)}, true},
	{"STS038_65537", site{body: padded(65537)}, false},
	{"STS038_endless", site{handler: endless}, false},
	{"STS038_gzip", site{handler: gzipped}, false},
	{"STS038_deflate_named", site{header: map[string]string{"Content-Encoding": "deflate"}}, false},
	{"STS038_identity", site{header: map[string]string{"Content-Encoding": "identity"}}, true},
	{"STS038_huge_header", site{header: map[string]string{"X-Pad": strings.Repeat("a", 1<<20)}}, false},
	{"STS038_cut_body", site{handler: cutBody}, false},
	{"STS038_empty_body", site{body: "\n"}, false},
	{"STS032_validators", site{header: map[string]string{"ETag": `"1"`, "Cache-Control": "max-age=86400"}}, true},
}

// padded is the usual policy with an extension that makes it so many bytes long; it is filled in per domain.
func padded(n int) string { return fmt.Sprintf("pad %d", n) }

func endless(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	for line := strings.Repeat("a", 1000) + "\n"; ; {
		if _, err := io.WriteString(w, line); err != nil {
			return
		}
	}
}

func gzipped(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	_, _ = io.WriteString(z, enforce("mx."+domainOf(r.TLS.ServerName)))
	_ = z.Close()
}

func cutBody(w http.ResponseWriter, r *http.Request) {
	body := enforce("mx." + domainOf(r.TLS.ServerName))
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)+100))
	_, _ = io.WriteString(w, body)
}

func (s site) forDomain(domain string) *site {
	s.names = strings.ReplaceAll(s.names, "D", domain)
	usual := enforce("mx." + domain)
	switch {
	case s.body == "":
		s.body = usual
	case strings.HasPrefix(s.body, "pad "):
		var n int
		_, _ = fmt.Sscanf(s.body, "pad %d", &n)
		for s.body = usual; len(s.body) < n-1000; {
			s.body += "pad: " + strings.Repeat("x", 900) + "\n"
		}
		s.body += "pad: " + strings.Repeat("x", n-len(s.body)-5)
	}
	header := map[string]string{}
	for k, v := range s.header {
		header[k] = strings.ReplaceAll(v, ".D/", "."+domain+"/")
	}
	s.header = header
	return &s
}

func TestSTS_Fetch(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	for i, c := range fetches {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := d.in(t)
			domain := fmt.Sprintf("get%d.test", i)
			publishPlain(t, domain)
			publishSTS(t, domain, "1", "")
			sites.publish(domain, c.site.forDomain(domain))
			want := notFound
			if c.good {
				want = secureFor(domain)
			}
			if got := d.ask("QUERY", domain); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if n := sites.gets(domain); n > 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestSTS030_Request looks at what the policy host receives.
func TestSTS030_Request(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	d.env = append(d.env, "HTTPS_PROXY=http://127.0.0.99:1")
	d.kill()
	d.start()
	publishPlain(t, "request.test")
	publishSTS(t, "request.test", "1", enforce("mx.request.test"))
	d.wants("request.test", secureFor("request.test"))
	d.must("cache", "refresh", "request.test")
	received := sites.received("request.test")
	if len(received) != 2 {
		t.Fatalf("%d requests, want two", len(received))
	}
	for _, r := range received {
		if r.Method != "GET" || r.RequestURI != "/.well-known/mta-sts.txt" || r.Host != "mta-sts.request.test" || r.TLS.ServerName != "mta-sts.request.test" {
			t.Errorf("%s %s, Host %s, SNI %s", r.Method, r.RequestURI, r.Host, r.TLS.ServerName)
		}
		for _, name := range []string{"Cookie", "Authorization", "Referer", "If-None-Match", "If-Modified-Since"} {
			if v := r.Header.Get(name); v != "" {
				t.Errorf("%s: %s", name, v)
			}
		}
		if v := r.Header.Get("Accept-Encoding"); v != "" && v != "identity" {
			t.Errorf("STS-038: Accept-Encoding: %s", v)
		}
		if !strings.Contains(strings.ToLower(r.UserAgent()), "postseal") {
			t.Errorf("STS-045: User-Agent %q", r.UserAgent())
		}
	}
}

// TestSTS039_SlowPolicyHost: the answer keeps to the deadline, the fetch goes on.
func TestSTS039_SlowPolicyHost(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": "postfix_version = \"3.7\"\ndeadline = \"1s\""})
	publishPlain(t, "slow.test")
	publishSTS(t, "slow.test", "1", "")
	sites.publish("slow.test", &site{body: enforce("mx.slow.test"), delay: 2 * time.Second})
	start := time.Now()
	d.wants("slow.test", notFound)
	if took := time.Since(start); took > 1500*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
	d.await("policy", func() bool { return d.ask("QUERY", "slow.test") == secureFor("slow.test") })
	if n := sites.gets("slow.test"); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestSTS038_FetchTimeout: one byte at a time is a failure at fetch_timeout.
func TestSTS038_FetchTimeout(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	d.configure(d.conf.with(config{"mta_sts": d.conf["mta_sts"] + "\nfetch_timeout = \"1s\""}))
	d.must("reload")
	publishPlain(t, "drip.test")
	publishSTS(t, "drip.test", "1", "")
	sites.publish("drip.test", &site{handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		for _, b := range []byte(enforce("mx.drip.test")) {
			if _, err := w.Write([]byte{b}); err != nil || r.Context().Err() != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(200 * time.Millisecond)
		}
	}})
	d.wants("drip.test", notFound)
	if x := d.object("explain", "drip.test"); x["sts"].(map[string]any)["state"] != "failed" {
		t.Errorf("explain: %v", x["sts"])
	}
}

// TestSTS042_OneFlight: many askers of one name cause one look-up and one request; a failed fetch is not tried again for
// the same id, but at once for another.
func TestSTS042_OneFlight(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	truth.publish(t, "$TTL 1")
	publishPlain(t, "crowd.test")
	publishSTS(t, "crowd.test", "1", "")
	sites.publish("crowd.test", &site{body: enforce("mx.crowd.test"), delay: 300 * time.Millisecond})
	replies := make(chan string, 100)
	for range cap(replies) {
		go func() {
			reply, err := d.try("QUERY", "crowd.test")
			if err != nil {
				reply = err.Error()
			}
			replies <- reply
		}()
	}
	for range cap(replies) {
		if got := <-replies; got != secureFor("crowd.test") {
			t.Errorf("got %q", got)
		}
	}
	if txt, gets := truth.asked("_mta-sts.crowd.test", "TXT"), sites.gets("crowd.test"); txt != 1 || gets != 1 {
		t.Errorf("%d TXT questions, %d requests", txt, gets)
	}

	publishPlain(t, "again.test")
	publishSTS(t, "again.test", "1", "")
	sites.publish("again.test", &site{status: 500})
	truth.publish(t, "$TTL 1\n_mta-sts.again.test TXT \"v=STSv1; id=1\"")
	d.wants("again.test", notFound)
	time.Sleep(1100 * time.Millisecond) // the record's TTL
	d.wants("again.test", notFound)
	if n := sites.gets("again.test"); n != 1 {
		t.Errorf("%d requests with the same id", n)
	}
	sites.publish("again.test", &site{body: enforce("mx.again.test")})
	truth.publish(t, "$TTL 1\n_mta-sts.again.test TXT \"v=STSv1; id=2\"")
	d.await("the new id's policy", func() bool { return d.ask("QUERY", "again.test") == secureFor("again.test") })
}
