package conf

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// params are a healthy main.cf; overridden by the pairs.
func params(pairs ...string) map[string]string {
	p := map[string]string{
		"smtp_tls_security_level": "dane", "smtp_tls_enforce_peername": "yes", "smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8463:postseal",
		"smtp_tls_CAfile": "/etc/ca.pem", "smtp_dns_support_level": "dnssec", "smtp_host_lookup": "dns", "ignore_mx_lookup_error": "no",
		"smtp_dns_resolver_options": "", "smtp_tls_enforce_sts_mx_patterns": "yes", "smtp_tls_dane_insecure_mx_policy": "dane",
		"smtp_connection_cache_on_demand": "yes", "smtp_mx_address_limit": "0", "smtp_tls_mandatory_protocols": ">=TLSv1",
		"smtp_tls_protocols": ">=TLSv1", "smtp_tls_loglevel": "1", "smtp_tls_wrappermode": "no", "socketmap_max_reply_size": "100000",
	}
	for i := 0; i < len(pairs); i += 2 {
		p[pairs[i]] = pairs[i+1]
	}
	return p
}

// snapshot is one of services with these parameters, all of smtp(8).
func snapshot(version string, services ...map[string]string) *Snapshot {
	v, _ := tlspolicy.ParseVersion(version)
	s := &Snapshot{Version: v, ConfigDir: "/etc/postfix", QueueDirectory: "/var/spool/postfix", Main: services[0],
		bundle: "/etc/bundle.pem", endpoints: ourEndpoints, files: map[string]string{}}
	for i, p := range services {
		sv := &Service{Name: string(rune('a' + i)), Type: "unix", Command: "smtp", Params: p, Overrides: map[string]string{}}
		sv.findOurs(s.endpoints, s.QueueDirectory)
		s.Services = append(s.Services, sv)
	}
	return s
}

func TestCMB15_Level(t *testing.T) {
	for _, c := range []struct {
		name  string
		pairs []string
		want  tlspolicy.Level
		known bool
	}{
		{"level", []string{"smtp_tls_security_level", "Encrypt"}, tlspolicy.Encrypt, true},
		{"level wins over use_tls", []string{"smtp_tls_security_level", "may", "smtp_enforce_tls", "yes"}, tlspolicy.May, true},
		{"empty", []string{"smtp_tls_security_level", ""}, tlspolicy.None, true},
		{"use_tls", []string{"smtp_tls_security_level", "", "smtp_use_tls", "yes"}, tlspolicy.May, true},
		{"enforce_tls", []string{"smtp_tls_security_level", "", "smtp_enforce_tls", "yes"}, tlspolicy.Verify, true},
		{"enforce_tls without names", []string{"smtp_tls_security_level", "", "smtp_enforce_tls", "yes", "smtp_tls_enforce_peername", "no"}, tlspolicy.Encrypt, true},
		{"nonsense", []string{"smtp_tls_security_level", "strong"}, tlspolicy.None, false},
		{"not ours", []string{"smtp_tls_policy_maps", "socketmap:inet:127.0.0.1:1:postseal", "smtp_tls_security_level", "encrypt"}, tlspolicy.None, false},
	} {
		if l, known := snapshot("3.11.7", params(c.pairs...)).Level(); l != c.want || known != c.known {
			t.Errorf("%s: %v %v", c.name, l, known)
		}
	}
	// The strongest of those that ask us counts, and only of those.
	for _, c := range []struct {
		levels [3]string
		want   tlspolicy.Level
	}{
		{[3]string{"may", "dane", "secure"}, tlspolicy.Dane},
		{[3]string{"encrypt", "dane", "secure"}, tlspolicy.Encrypt},
		{[3]string{"dane-only", "encrypt", "none"}, tlspolicy.DaneOnly},
		{[3]string{"nonsense", "may", "none"}, tlspolicy.May},
	} {
		s := snapshot("3.11.7", params("smtp_tls_security_level", c.levels[0]), params("smtp_tls_security_level", c.levels[1]),
			params("smtp_tls_security_level", c.levels[2], "smtp_tls_policy_maps", ""))
		if l, known := s.Level(); l != c.want || !known {
			t.Errorf("%v: %v %v", c.levels, l, known)
		}
	}
}

func TestDANE053_Abilities(t *testing.T) {
	for _, c := range []struct {
		pairs                 []string
		roots, dane, patterns bool
	}{
		{nil, true, true, true},
		{[]string{"smtp_dns_support_level", "DNSSEC", "smtp_host_lookup", "native, dns"}, true, true, true},
		{[]string{"smtp_dns_support_level", ""}, true, false, true},
		{[]string{"smtp_dns_support_level", "enabled"}, true, false, true},
		{[]string{"smtp_host_lookup", "native"}, true, false, true},
		{[]string{"ignore_mx_lookup_error", "yes"}, true, false, true},
		{[]string{"smtp_dns_resolver_options", "res_defnames"}, true, false, true},
		{[]string{"smtp_dns_resolver_options", "res_dnsrch"}, true, false, true},
		{[]string{"smtp_tls_CAfile", ""}, false, true, true},
		{[]string{"smtp_tls_CAfile", "", "smtp_tls_CApath", "/c"}, true, true, true},
		{[]string{"smtp_tls_CAfile", "", "smtp_tls_trust_anchor_file", "/t"}, true, true, true},
		// It only adds to CAfile and CApath.
		{[]string{"smtp_tls_CAfile", "", "tls_append_default_CA", "yes"}, false, true, true},
		{[]string{"smtp_tls_enforce_sts_mx_patterns", "no"}, true, true, false},
		{[]string{"smtp_tls_policy_maps", "", "smtp_tls_CAfile", "", "smtp_dns_support_level", ""}, true, true, true}, // does not ask us
	} {
		for _, s := range []*Snapshot{snapshot("3.11.7", params(c.pairs...)), snapshot("3.11.7", params(), params(c.pairs...))} {
			if s.HasRoots() != c.roots || s.DANEAble() != c.dane || s.EnforcesSTSPatterns() != c.patterns {
				t.Errorf("%q: %v %v %v", c.pairs, s.HasRoots(), s.DANEAble(), s.EnforcesSTSPatterns())
			}
		}
	}
}

// PFX-21: lmtp(8) has parameters of its own, and what it lacks weakens nothing
// for smtp(8).
func TestPFX21_LMTP(t *testing.T) {
	lmtp := map[string]string{}
	for name, value := range params("smtp_tls_CAfile", "", "smtp_dns_support_level", "", "smtp_tls_security_level", "encrypt") {
		lmtp[strings.Replace(name, "smtp_", "lmtp_", 1)] = value
	}
	lmtp["ignore_mx_lookup_error"] = "yes"
	s := snapshot("3.11.7", params(), lmtp)
	sv := s.Services[1]
	sv.Command = "lmtp"
	sv.findOurs(s.endpoints, s.QueueDirectory)
	if !sv.UsesOurMap || sv.Param("smtp_tls_security_level") != "encrypt" || len(s.Ours()) != 2 {
		t.Fatalf("%+v", sv)
	}
	if l, _ := s.Level(); l != tlspolicy.Encrypt {
		t.Errorf("level %v: an answer must not be weaker than what lmtp(8) demands", l)
	}
	if !s.HasRoots() || !s.DANEAble() {
		t.Error("an lmtp(8) beside smtp(8) took its abilities away")
	}
	s.Services = s.Services[1:]
	if s.HasRoots() || s.DANEAble() {
		t.Error("an lmtp(8) alone has no roots and cannot do DANE")
	}
}

// Each problem is seen where it is, and only there; its fix is the command for
// the place where the value comes from.
func TestPFX30_Problems(t *testing.T) {
	all := Wanted{Floor: "inherit", DANE: true, STS: true, MapNames: []string{"postseal", "QUERY", "QUERYwithTLSRPT"}}
	if p := snapshot("3.11.7", params()).Problems(all); len(p) != 0 {
		t.Fatalf("a healthy configuration: %+v", p)
	}
	for _, c := range []struct {
		id, version string
		pairs       []string
		severe      bool
		text, fix   string
	}{
		{"T01", "3.11.7", []string{"smtp_tls_security_level", "none"}, true, "smtp_tls_security_level is none", "postconf -e 'smtp_tls_security_level = dane'"},
		{"T04", "3.11.7", []string{"smtp_tls_CAfile", "", "tls_append_default_CA", "yes"}, true, "tls_append_default_CA = yes does nothing", "postconf -e 'smtp_tls_CAfile = /etc/bundle.pem'"},
		{"T05", "3.11.7", []string{"smtp_host_lookup", "native", "smtp_dns_resolver_options", "res_dnsrch, res_nocookie"}, true,
			"smtp_host_lookup = native, smtp_dns_resolver_options = res_dnsrch, res_nocookie: Postfix cannot do DANE", "postconf -e 'smtp_host_lookup = dns' 'smtp_dns_resolver_options = res_nocookie'"},
		{"T09", "3.11.7", []string{"smtp_tls_policy_maps", "socketmap:inet:localhost:8463:POSTSEAL, hash:/x"}, true, `asks for the map "POSTSEAL"`,
			"postconf -e 'smtp_tls_policy_maps = socketmap:inet:localhost:8463:postseal, hash:/x'"},
		{"T09", "3.9.9", []string{"smtp_tls_policy_maps", "socketmap:inet:127.0.0.1:8463:QUERYwithTLSRPT"}, false, "they are left out",
			"postconf -e 'smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:postseal'"},
		{"T11", "3.11.7", []string{"smtp_tls_mandatory_protocols", ">=TLSv1.2, <=TLSv14"}, true, "aborting TLS session", "postconf -e 'smtp_tls_mandatory_protocols = >=TLSv1'"},
		{"T11", "3.11.7", []string{"smtp_tls_protocols", "!SSLv4"}, true, "smtp_tls_protocols = !SSLv4 is invalid", "postconf -e 'smtp_tls_protocols = >=TLSv1'"},
		{"T12", "3.11.7", []string{"smtp_tls_loglevel", "0"}, false, "smtp_tls_loglevel = 0", "postconf -e 'smtp_tls_loglevel = 1'"},
		{"T20", "3.11.7", []string{"smtp_tls_policy_maps", "proxy:socketmap:inet:127.0.0.1:8463:postseal", "proxy_read_maps", "proxy:unix:passwd.byname"}, true, "is not in proxy_read_maps", "name it in smtp_tls_policy_maps of main.cf"},
		{"T21", "3.11.7", []string{"smtp_tls_policy_maps", "static:may socketmap:inet:127.0.0.1:8463:postseal"}, true, "postseal is never asked", "postconf -e 'smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:postseal'"},
		{"T21", "3.11.7", []string{"smtp_tls_policy_maps", "texthash:/p socketmap:inet:127.0.0.1:8463:postseal"}, false, "texthash:/p is asked before postseal", "postconf -e 'smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:postseal, texthash:/p'"},
		{"T22", "3.11.7", []string{"smtp_tls_security_level", "encrypt"}, false, "smtp_tls_security_level = encrypt for all", "if that is not meant: postconf -e 'smtp_tls_security_level = dane'"},
		{"T24", "3.7.11", []string{"smtp_tls_dane_insecure_mx_policy", "may", "smtp_connection_cache_on_demand", "no"}, false, "are not verified", "postconf -e 'smtp_tls_dane_insecure_mx_policy = dane'"},
		{"T28", "3.11.7", []string{"smtp_tls_connection_reuse", "yes"}, false, "for up to 300 s", "connection_reuse=no"},
		{"T29", "3.10.2", nil, false, "Postfix 3.10.2 reuses an open session", "postconf -e 'smtp_connection_cache_on_demand = no'"},
		{"T30", "3.11.7", []string{"smtp_tls_enforce_sts_mx_patterns", "no"}, false, "does not compare MX names", "postconf -e 'smtp_tls_enforce_sts_mx_patterns = yes'"},
		{"T31", "3.11.7", []string{"smtp_fallback_relay", "[relay.example]:25"}, false, "smtp_fallback_relay = [relay.example]:25", "[[rule]]"},
		{"T32", "3.11.7", []string{"smtp_tls_wrappermode", "yes"}, true, "it is dane: mail is deferred, 4.3.0", "postconf -e 'smtp_tls_security_level = encrypt'"},
		{"T33", "3.11.7", []string{"smtp_tls_security_level", "it's"}, true, "it's is no level: smtp(8) does not start", "postconf -e 'smtp_tls_security_level = dane'"},
		{"T36", "3.11.7", []string{"smtp_tls_servername", "mx.example"}, false, "is sent as SNI", "postconf -e 'smtp_tls_servername = '"},
		{"T39", "3.11.7", []string{"smtp_mx_address_limit", "5"}, false, "smtp_mx_address_limit = 5", "postconf -e 'smtp_mx_address_limit = 0'"},
		{"T40", "3.11.7", []string{"socketmap_max_reply_size", "1000"}, true, "input exceeds size limit", "postconf -e 'socketmap_max_reply_size = 100000'"},
	} {
		p := snapshot(c.version, params(c.pairs...)).Problems(all)
		if len(p) != 1 || p[0].ID != c.id || p[0].Severe != c.severe || p[0].Service != "a/unix" ||
			!strings.Contains(p[0].Text, c.text) || !strings.Contains(p[0].Fix, c.fix) {
			t.Errorf("%s: %+v", c.id, p)
		}
	}
}

func TestCMB15_FloorDaneBelowMainCf(t *testing.T) {
	s := snapshot("3.11.7", params("smtp_tls_security_level", "encrypt"))
	p := s.Problems(Wanted{Floor: "dane", DANE: true, STS: true})
	if len(p) != 1 || p[0].ID != "T22" || !p[0].Severe || !strings.Contains(p[0].Fix, `floor = "inherit"`) {
		t.Errorf("%+v", p)
	}
}

func TestProblemsOfOtherPlaces(t *testing.T) {
	w := Wanted{Floor: "inherit", DANE: true, STS: true}
	// A socket of ours that is not on loopback.
	s := snapshot("3.11.7", params("smtp_tls_policy_maps", "socketmap:inet:192.0.2.1:8463:postseal"))
	s.endpoints = []string{"inet:0.0.0.0:8463"}
	s.Services[0].findOurs(s.endpoints, s.QueueDirectory)
	if p := s.Problems(w); len(p) != 1 || p[0].ID != "T38" || p[0].Severe {
		t.Errorf("T38: %+v", p)
	}
	// Another instance, an option of the service's own, another service without us.
	s = snapshot("3.11.7", params(), params("smtp_tls_CAfile", ""), params("smtp_tls_policy_maps", ""))
	s.ConfigDir = "/etc/postfix-out"
	s.Services[2].Overrides["smtp_tls_policy_maps"] = ""
	p := s.Problems(w)
	if len(p) != 2 || p[0].ID != "T04" || p[0].Fix != "postconf -c '/etc/postfix-out' -P 'b/unix/smtp_tls_CAfile = /etc/bundle.pem'" ||
		p[1].ID != "T21" || p[1].Service != "c/unix" || p[1].Fix != "postconf -PX 'c/unix/smtp_tls_policy_maps'" {
		t.Errorf("%+v", p)
	}
	// What is the same for several services is said once.
	s = snapshot("3.11.7", params("smtp_tls_loglevel", "0"), params("smtp_tls_loglevel", "0"))
	if p := s.Problems(w); len(p) != 1 || p[0].Service != "a/unix, b/unix" {
		t.Errorf("%+v", p)
	}
	// A mechanism that does not count makes no problem.
	s = snapshot("3.11.7", params("smtp_tls_CAfile", "", "smtp_dns_support_level", "", "smtp_tls_security_level", "may"))
	if p := s.Problems(Wanted{Floor: "inherit"}); len(p) != 0 {
		t.Errorf("%+v", p)
	}
	// Without socketmap tables nothing works.
	s = snapshot("3.11.7", params())
	s.tableTypes = []string{"hash", "static"}
	if p := s.Problems(w); len(p) != 1 || p[0].ID != "T21" || !p[0].Severe {
		t.Errorf("%+v", p)
	}
}

func TestT29_RepairedBranches(t *testing.T) {
	for version, bad := range map[string]bool{"3.7.16": true, "3.7.17": false, "3.8.11": true, "3.8.12": false, "3.9.5": true, "3.9.6": false,
		"3.10.2": true, "3.10.3": false, "3.11.0": false, "3.6.19": true, "3.12-20260821": false, "unknown": false} {
		found := false
		for _, p := range snapshot(version, params()).Problems(Wanted{Floor: "inherit", DANE: true, STS: true}) {
			found = found || p.ID == "T29"
		}
		if found != bad {
			t.Errorf("%s: %v", version, found)
		}
	}
}

func TestT25_T26_CAFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"):         "does not exist",
		write("text", "not a certificate"): "holds no certificate in PEM",
		write("good.pem", rootPEM):         "",
		dir:                                "is no file",
	} {
		if got := judgeCAFile(path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	for path, want := range map[string]string{filepath.Join(dir, "none"): "does not exist", empty: "is empty", dir: ""} {
		if got := judgeCAFolder(path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	// In a chroot the folder is the one in the jail, the file is read before.
	s := snapshot("3.11.7", params("smtp_tls_CAfile", filepath.Join(dir, "none")), params("smtp_tls_CAfile", "", "smtp_tls_CApath", empty))
	s.QueueDirectory = dir
	s.Services[1].Chroot = true
	s.readFiles()
	p := s.Problems(Wanted{Floor: "inherit", DANE: true, STS: true})
	if len(p) != 2 || p[0].ID != "T25" || !p[0].Severe || p[1].ID != "T26" || !strings.Contains(p[1].Text, filepath.Join(dir, empty)) {
		t.Errorf("%+v", p)
	}
}

// rootPEM is a self-signed certificate of no one.
const rootPEM = `-----BEGIN CERTIFICATE-----
MIIBgDCCASWgAwIBAgIUM/F27RYNSBOgdud78t8hNGiZQMIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJcm9vdC50ZXN0MCAXDTI2MTEyMTA5MTI1MFoYDzIxMjYxMDI4
MDkxMjUwWjAUMRIwEAYDVQQDDAlyb290LnRlc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATuoVQ6Odn2yu1NuSDSe8SINZh1LuZN8knFRGz+rBIIq9IUkE3+KugK
y2Szxue9T/pYiw7bCpXLlldCmGpZ3LDco1MwUTAdBgNVHQ4EFgQUHv4fvOIAjCRQ
Q6VXOtrB3IJTtPswHwYDVR0jBBgwFoAUHv4fvOIAjCRQQ6VXOtrB3IJTtPswDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEA09I5BNp1Eo7THab5GEW2
W+QCCc4TMhRbU5N58BgM984CIQCv/dv0uTGM9sc+MmlOyd65dIMUVOt2jhzub7sP
HBVLvQ==
-----END CERTIFICATE-----
`

func TestTableOfOurs(t *testing.T) {
	const queue = "/var/spool/postfix"
	for _, c := range []struct {
		maps, endpoint string
		chroot, ours   bool
		name           string
	}{
		{"socketmap:inet:127.0.0.1:8463:postseal", "inet:127.0.0.1:8463", false, true, "postseal"},
		{"socketmap:inet:localhost:8463:QUERY", "inet:127.0.0.1:8463", false, true, "QUERY"},
		{"socketmap:inet:[::1]:8463:QUERY", "inet:127.0.0.1:8463", false, true, "QUERY"},
		{"socketmap:inet:mx.example:8463:QUERY", "inet:MX.example:8463", false, true, "QUERY"},
		{"socketmap:inet:127.0.0.1:8462:QUERY", "inet:127.0.0.1:8463", false, false, ""},
		{"socketmap:inet:10.0.0.1:8463:QUERY", "inet:127.0.0.1:8463", false, false, ""},
		{"socketmap:inet:10.0.0.1:8463:QUERY", "inet:[::]:8463", false, true, "QUERY"},
		{"hash:/a, proxy:socketmap:inet:127.0.0.1:8463:postseal", "inet:127.0.0.1:8463", false, true, "postseal"},
		{"debug:proxy:socketmap:inet:127.0.0.1:8463:postseal", "inet:127.0.0.1:8463", false, true, "postseal"},
		{"inline:{ a.example=may, b.example=none },socketmap:inet:127.0.0.1:8463:postseal", "inet:127.0.0.1:8463", false, true, "postseal"},
		{"unionmap:{static:may, socketmap:inet:127.0.0.1:8463:postseal}", "inet:127.0.0.1:8463", false, true, "postseal"},
		{"socketmap:unix:/run/postseal/s:postseal", "unix:/run/postseal/s", false, true, "postseal"},
		{"socketmap:unix:/run//postseal/./s:postseal", "unix:/run/postseal/s", true, true, "postseal"},
		{"socketmap:unix:postseal/s:postseal", "unix:/var/spool/postfix/postseal/s", true, true, "postseal"},
		{"socketmap:unix:/postseal/s:postseal", "unix:/var/spool/postfix/postseal/s", true, true, "postseal"},
		{"socketmap:unix:/postseal/s:postseal", "unix:/var/spool/postfix/postseal/s", false, false, ""},
		{"socketmap:unix:/run/postseal/s:postseal", "inet:127.0.0.1:8463", false, false, ""},
		{"socketmap:postseal", "inet:127.0.0.1:8463", false, false, ""},
		{"tcp:127.0.0.1:8463", "inet:127.0.0.1:8463", false, false, ""},
		{"", "inet:127.0.0.1:8463", false, false, ""},
		{"{}:,,}{", "inet:127.0.0.1:8463", false, false, ""},
	} {
		sv := &Service{Command: "smtp", Chroot: c.chroot, Params: map[string]string{"smtp_tls_policy_maps": c.maps}}
		sv.findOurs([]string{"inet:192.0.2.9:1", c.endpoint}, queue)
		if sv.UsesOurMap != c.ours || sv.MapName != c.name {
			t.Errorf("%q for %q: %v %q", c.maps, c.endpoint, sv.UsesOurMap, sv.MapName)
		}
	}
}

func TestT20_ChrootedAbsolutePath(t *testing.T) {
	for named, want := range map[string]string{
		"socketmap:unix:/var/spool/postfix/postseal/socketmap:postseal": "postconf -e 'smtp_tls_policy_maps = socketmap:unix:postseal/socketmap:postseal'",
		"socketmap:unix:postseal/socketmap:postseal":                    "",
		"socketmap:unix:/postseal/socketmap:postseal":                   "", // found below queue_directory
		"socketmap:unix:/run/postseal/socketmap:postseal":               "postconf -e 'smtp_tls_policy_maps = proxy:socketmap:unix:/run/postseal/socketmap:postseal'",
	} {
		s := snapshot("3.11.7", params("smtp_tls_policy_maps", named))
		s.endpoints = append(s.endpoints, "unix:/run/postseal/socketmap")
		s.Services[0].Chroot = true
		s.Services[0].findOurs(s.endpoints, s.QueueDirectory)
		p := s.Problems(Wanted{Floor: "inherit", DANE: true, STS: true})
		if want == "" && len(p) != 0 || want != "" && (len(p) != 1 || p[0].ID != "T20" || !p[0].Severe || p[0].Fix != want) {
			t.Errorf("%s: %+v", named, p)
		}
	}
}

// Odd output must not be taken for a service, and never panics.
func FuzzAnswers(f *testing.F) {
	f.Add("smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:postseal\nx", "smtp/unix/command = smtp -v\nsmtp/unix/chroot = y\n", "smtp/unix/smtp_tls_CAfile = $service_name\n")
	f.Add("a=b\n=\n", "/unix/command = smtp\nx/y/z", "smtp//x = 1\n")
	f.Fuzz(func(t *testing.T, main, fields, overrides string) {
		s := &Snapshot{Main: parseParams(main), ConfigDir: "/etc/postfix", files: map[string]string{}, endpoints: ourEndpoints}
		s.QueueDirectory = s.Main["queue_directory"]
		s.Services = master(fields, overrides, false)
		for _, sv := range s.Services {
			if sv.Name == "" || sv.Type == "" || strings.Contains(sv.Type, "/") || sv.Command != "smtp" && sv.Command != "lmtp" {
				t.Errorf("%+v", sv)
			}
			if n := len(sv.options()); n != 2*len(sv.Overrides) {
				t.Errorf("%d options for %d overrides", n, len(sv.Overrides))
			}
			sv.Params = maps.Clone(s.Main)
			sv.findOurs(s.endpoints, s.QueueDirectory)
			if sv.UsesOurMap && sv.ours().mapName != sv.MapName {
				t.Errorf("%q is not %q", sv.ours().mapName, sv.MapName)
			}
		}
		for _, p := range s.Problems(Wanted{Floor: "dane", DANE: true, STS: true, MapNames: []string{"postseal"}}) {
			if p.ID == "" || p.Text == "" || p.Fix == "" {
				t.Errorf("%+v", p)
			}
		}
		s.Level()
	})
}
