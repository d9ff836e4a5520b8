package blackbox

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	sum256 = "1111111111111111111111111111111111111111111111111111111111111111"
	sum512 = sum256 + sum256
	spki   = "3059301306072a8648ce3d020106082a8648ce3d03010703420004a5cd7d3cbf9a06cd6b1ed9bd3a5ea2c79ef8bf6d5c3e2f8e4b8c5b4cf4e4d2b10b1fbd16d8f0cde9ec7b8f2a6ff5fdb0c6f9f0c1f7e3a5f1f5e0a6b8c9d0e1f2"
)

// destinations are cases of section 2: a zone, and the class that explain shows. D stands for the domain; a line with
// the word TLSA may use S for a SHA-256 sum.
var destinations = []struct {
	name, zone, class string
}{
	{"DANE003_insecure_nodata", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA !insecure", "D0"},
	{"DANE003_insecure_tlsa", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA !insecure 3 1 1 S", "D0"},
	{"DANE003_servfail", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA !servfail", "D3"},
	{"DANE003_refused", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA !refused", "D3"},
	{"DANE003_notimp", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA !notimp", "D3"},
	{"DANE003_formerr", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA !formerr", "D3"},
	{"DANE003_silent", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA !silent", "D3"},
	{"DANE003_malformed", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA !short 3 1 1 S", "D3"},
	{"DANE003_no_tcp", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA !tcpbroken 3 1 1 S", "D3"},
	{"DANE003_mx_servfail", "D MX !servfail", "D4"},
	{"DANE003_mx_silent", "D MX !silent", "D4"},
	{"DANE006_cname_secure", "D MX 10 mx.D\nmx.D CNAME host.D\nhost.D A 192.0.2.1\n_25._tcp.host.D TLSA 3 1 1 S", "D1"},
	{"DANE006_cname_target_insecure", "D MX 10 mx.D\ninsec.D !insecure\nmx.D CNAME host.insec.D\nhost.insec.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S", "D1"},
	{"DANE025_cname_first_insecure", "D MX 10 mx.D\nmx.D CNAME !insecure host.D\nhost.D A 192.0.2.1\n_25._tcp.host.D TLSA 3 1 1 S\n_25._tcp.mx.D TLSA 3 1 1 S", "D0"},
	{"DANE025_intermediate_only", "D MX 10 a.D\na.D CNAME b.D\nb.D CNAME c.D\nc.D A 192.0.2.1\n_25._tcp.b.D TLSA 3 1 1 S", "D0"},
	{"DANE025_original_only", "D MX 10 a.D\na.D CNAME c.D\nc.D A 192.0.2.1\n_25._tcp.a.D TLSA 3 1 1 S", "D1"},
	{"DANE025_expanded_unusable_wins", "D MX 10 a.D\na.D CNAME c.D\nc.D A 192.0.2.1\n_25._tcp.c.D TLSA 1 1 1 S\n_25._tcp.a.D TLSA 3 1 1 S", "D2u"},
	{"DANE028_error_at_expanded", "D MX 10 a.D\na.D CNAME c.D\nc.D A 192.0.2.1\n_25._tcp.c.D TLSA !servfail\n_25._tcp.a.D TLSA 3 1 1 S", "D3"},
	{"DANE008_thirty_over_tcp", "D MX 10 mx.D\nmx.D A 192.0.2.1\n" + strings.Repeat("_25._tcp.mx.D TLSA !tcp 3 1 1 S\n", 1), "D1"},
	{"DANE012_cname_of_domain", "D CNAME real.D\nreal.D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S", "D1"},
	{"DANE012_insecure_cname_of_domain", "D CNAME !insecure real.D\nreal.D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S", "D5"},
	{"DANE013_implicit_mx", "D A 192.0.2.1\n_25._tcp.D TLSA 3 1 1 S", "D1"},
	{"DANE013_implicit_mx_plain", "D AAAA 2001:db8::1", "D0"},
	{"DANE013_implicit_insecure", "D !insecure\nD A 192.0.2.1", "D0"},
	{"DANE014_null_mx", "D MX 0 .", "D0"},
	{"DANE014_null_mx_among_others", "D MX 0 .\nD MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S", "D1"},
	{"DANE016_literal_exchange", "D MX 5 192.0.2.1.\nD MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S", "D1"},
	{"DANE016_only_literals", "D MX 5 192.0.2.1.", "D0"},
	{"DANE021_gone_host", "D MX 10 mx.D\nD MX 20 gone.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S", "D1"},
	{"DANE021_gone_host_insecure", "D MX 10 mx.D\nD MX 20 gone.other.D\nother.D !insecure\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S", "D1"},
	{"DANE022_insecure_address", "D MX 10 mx.D\nmx.D A !insecure 192.0.2.1\nmx.D AAAA !insecure\n_25._tcp.mx.D TLSA !servfail", "D0"},
	{"DANE023_one_secure_family", "D MX 10 mx.D\nmx.D A !insecure 192.0.2.1\nmx.D AAAA 2001:db8::1\n_25._tcp.mx.D TLSA 3 1 1 S", "D1"},
	{"DANE023_aaaa_servfail", "D MX 10 mx.D\nmx.D A 192.0.2.1\nmx.D AAAA !servfail\n_25._tcp.mx.D TLSA 3 1 1 S", "D1"},
	{"DANE023_both_servfail", "D MX 10 mx.D\nmx.D A !servfail\nmx.D AAAA !servfail", "D3"},
	{"DANE024_one_host_fails", "D MX 10 mx.D\nD MX 20 mx2.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S\nmx2.D A !servfail\nmx2.D AAAA !servfail", "D3"},
	{"DANE027_tlsa_cname", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D CNAME tlsa._dane.D\ntlsa._dane.D TLSA 3 1 1 S", "D1"},
	{"DANE027_tlsa_cname_insecure", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D CNAME !insecure tlsa._dane.D\ntlsa._dane.D TLSA 3 1 1 S", "D0"},
	{"DANE011_insecure_mx", "D MX !insecure 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S", "D5"},
	{"DANE011_unsigned_zone", "D !insecure\nD MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S", "D0"},
	{"DANE030_311", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 S", "D1"},
	{"DANE030_311_short", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 1 1111", "D2u"},
	{"DANE030_312", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 2 SS", "D1"},
	{"DANE030_312_short", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 2 S", "D2u"},
	{"DANE030_300_garbage", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 0 0 deadbeef", "D2u"},
	{"DANE030_201", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 2 0 1 S", "D1"},
	{"DANE030_001", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 0 0 1 S", "D2u"},
	{"DANE030_111", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 1 1 1 S", "D2u"},
	{"DANE030_401", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 4 0 1 S", "D2u"},
	{"DANE030_255", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 255 1 1 S", "D2u"},
	{"DANE030_321", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 2 1 S", "D2u"},
	{"DANE030_313", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 3 1 3 S", "D2u"},
	{"DANE031_one_usable", "D MX 10 mx.D\nmx.D A 192.0.2.1\n_25._tcp.mx.D TLSA 1 1 1 S\n_25._tcp.mx.D TLSA 3 1 1 S", "D1"},
	{"DANE025_mx_cname_loop", "D MX 10 a.D\na.D CNAME b.D\nb.D CNAME a.D", "D3"},
	{"CMB01_mixed", "D MX 10 plain.D\nD MX 20 mx.D\nplain.D A 192.0.2.1\nmx.D A 192.0.2.2\n_25._tcp.mx.D TLSA 3 1 1 S", "D2"},
}

var classFloor = map[string][2]string{ // replies without STS for the floors inherit and encrypt
	"D0": {notFound, "OK encrypt"}, "D1": {"OK dane", "OK dane-only"}, "D2": {"OK dane", "OK dane-only"}, "D2u": {"OK dane", "OK encrypt"},
	"D3": {"OK dane", ""}, "D4": {notFound, "OK encrypt"}, "D5": {"OK dane", "OK encrypt"},
}

func daneZone(zone, domain string) string {
	var out strings.Builder
	for line := range strings.Lines(zone) {
		line = replaceD(line, domain)
		if strings.Contains(line, "TLSA") {
			line = strings.Replace(strings.Replace(line, " SS", " "+sum512, 1), " S\n", " "+sum256+"\n", 1)
			if l, ok := strings.CutSuffix(line, " S"); ok {
				line = l + " " + sum256
			}
		}
		out.WriteString(line)
	}
	return out.String()
}

func TestDANE_Classes(t *testing.T) {
	t.Parallel()
	inherit := startDaemon(t, config{"tls_policy": "deadline = \"4s\""})
	mandatory := startDaemon(t, config{"tls_policy": "deadline = \"4s\"\nfloor = \"encrypt\""})
	for i, c := range destinations {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			inherit, mandatory := inherit.in(t), mandatory.in(t)
			domain := fmt.Sprintf("dane%d.test", i)
			truth.publish(t, daneZone(c.zone, domain))
			want := classFloor[c.class]
			inherit.wants(domain, want[0])
			if want[1] != "" {
				mandatory.wants(domain, want[1])
			}
			x := inherit.object("explain", domain)
			if got := x["dane"].(map[string]any)["class"]; got != c.class {
				t.Errorf("explain: class %v, want %s: %v", got, c.class, x["dane"])
			}
			if strings.HasPrefix(c.name, "DANE022") && truth.asked("_25._tcp.mx."+domain, "TLSA") > 0 {
				t.Error("TLSA was asked behind an insecure address")
			}
			if strings.HasPrefix(c.name, "DANE014_null_mx") && truth.asked("_25._tcp", "TLSA") > 0 {
				t.Error("TLSA of the root was asked")
			}
		})
	}
}

// TestDANE_Limits: very many hosts and records.
func TestDANE_Limits(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": `floor = "encrypt"`})
	var zone strings.Builder
	for i := range 60 {
		fmt.Fprintf(&zone, "wide.dane.test MX 10 h%d.wide.dane.test\nh%d.wide.dane.test A 192.0.2.1\n_25._tcp.h%d.wide.dane.test TLSA 3 1 1 %s\n", i, i, i, sum256)
	}
	truth.publish(t, zone.String())
	if x := d.object("explain", "wide.dane.test"); x["dane"].(map[string]any)["class"] != "D3" {
		t.Errorf("DANE-016: 60 hosts: %v", x["dane"].(map[string]any)["class"])
	}
	for n, class := range map[int]string{30: "D1", 101: "D3"} {
		domain := fmt.Sprintf("tlsa%d.dane.test", n)
		zone.Reset()
		fmt.Fprintf(&zone, "%s MX 10 mx.%s\nmx.%s A 192.0.2.1\n", domain, domain, domain)
		for i := range n {
			fmt.Fprintf(&zone, "_25._tcp.mx.%s TLSA 3 1 1 %064x\n", domain, i)
		}
		truth.publish(t, zone.String())
		if x := d.object("explain", domain); x["dane"].(map[string]any)["class"] != class {
			t.Errorf("DANE-042: %d records: %v, want %s", n, x["dane"].(map[string]any)["class"], class)
		}
	}
}

// TestCMB013_Questions: only the questions that can change the answer, and none within the TTL.
func TestCMB013_Questions(t *testing.T) {
	t.Parallel()
	dane := startDaemon(t, config{"tls_policy": `floor = "dane"`})
	inherit := startDaemon(t, nil)
	truth.publish(t, "few.test MX 10 mx.few.test\nmx.few.test A 192.0.2.1\n_25._tcp.mx.few.test TLSA 3 1 1 "+sum256)
	dane.wants("few.test", "OK dane")
	if asked := truth.questions("few.test"); len(asked) != 1 || !strings.HasPrefix(asked[0], "_mta-sts.few.test. TXT") {
		t.Errorf("floor = dane asked %v", asked)
	}
	inherit.wants("few.test", "OK dane")
	before := len(truth.questions("few.test"))
	n := nameServers[resolverAddress].zone.asked("few.test", "MX")
	for range 10 {
		inherit.wants("few.test", "OK dane")
	}
	if truth.asked("few.test", "MX") != n || len(truth.questions("few.test")) != before {
		t.Error("asked again within the TTL")
	}
}

// TestCMB017_Deadline: what is not there at the deadline counts as failed, the answer comes in time.
func TestCMB017_Deadline(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": "deadline = \"1s\""})
	truth.publish(t, `stallmx.test MX !silent
stalltlsa.test MX 10 mx.stalltlsa.test
mx.stalltlsa.test A 192.0.2.1
_25._tcp.mx.stalltlsa.test TLSA !silent
stalltxt.test MX 10 mx.stalltxt.test
mx.stalltxt.test A 192.0.2.1
_25._tcp.mx.stalltxt.test TLSA 3 1 1 `+sum256+`
_mta-sts.stalltxt.test TXT !silent`)
	for key, want := range map[string]string{"stallmx.test": notFound, "stalltlsa.test": "OK dane", "stalltxt.test": "OK dane"} {
		for range 2 { // later askers are answered at once
			start := time.Now()
			d.wants(key, want)
			if took := time.Since(start); took > 1100*time.Millisecond {
				t.Errorf("%s: answered after %v", key, took)
			}
		}
	}
}
