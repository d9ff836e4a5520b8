package blackbox

import (
	"fmt"
	"strings"
	"testing"
)

// secureFor is the answer for a D0 domain whose enforce policy names mx.DOMAIN.
func secureFor(domain string) string {
	return "OK secure match=mx." + domain + " servername=hostname"
}

const notFound = "NOTFOUND "

// records are the cases of STS-010 to STS-023: TXT record sets, and whether they announce a policy.
var records = []struct {
	name  string
	txt   []string // presentation form
	found bool
}{
	{"STS012_strings_joined", []string{`"v=STSv1; i" "d=abc"`}, true},
	{"STS012_strings_joined_2", []string{`"v=STSv1;" " id=a"`}, true},
	{"STS012_prefix_split", []string{`"v=ST" "Sv1; id=a"`}, true},
	{"STS013_other_records", []string{`"google-site-verification=abc"`, `"v=STSv1; id=1"`}, true},
	{"STS013_two", []string{`"v=STSv1; id=1"`, `"v=STSv1; id=2"`}, false},
	{"STS013_next_version", []string{`"v=STSv1; id=1"`, `"v=STSv2; id=2"`}, true},
	{"STS013_longer_version", []string{`"v=STSv10; id=1"`}, false},
	{"STS013_spf", []string{`"v=spf1 -all"`}, false},
	{"STS014_second_invalid", []string{`"v=STSv1; id=1"`, `"v=STSv1;"`}, false},
	{"STS015_version_field_case", []string{`"V=STSv1; id=1"`}, false},
	{"STS015_version_value_case", []string{`"v=stsv1; id=1"`}, false},
	{"STS015_id_case", []string{`"v=STSv1; ID=1"`}, false},
	{"STS016_missing", []string{`"v=STSv1;"`}, false},
	{"STS016_empty", []string{`"v=STSv1; id="`}, false},
	{"STS016_33", []string{`"v=STSv1; id=` + strings.Repeat("a", 33) + `"`}, false},
	{"STS016_32", []string{`"v=STSv1; id=` + strings.Repeat("a", 32) + `"`}, true},
	{"STS016_1", []string{`"v=STSv1; id=z"`}, true},
	{"STS016_hyphen", []string{`"v=STSv1; id=a-b"`}, false},
	{"STS016_date", []string{`"v=STSv1; id=2024-01-01"`}, false},
	{"STS016_underscore", []string{`"v=STSv1; id=a_b"`}, false},
	{"STS016_inner_space", []string{`"v=STSv1; id=a b"`}, false},
	{"STS016_space_before_value", []string{`"v=STSv1; id= a"`}, false},
	{"STS017_no_space", []string{`"v=STSv1;id=1"`}, true},
	{"STS017_tabs", []string{`"v=STSv1; \009 id=1  \009;"`}, true},
	{"STS017_trailing_delimiter", []string{`"v=STSv1; id=1;"`}, true},
	{"STS017_trailing_delimiter_space", []string{`"v=STSv1; id=1; "`}, true},
	{"STS017_extension_first", []string{`"v=STSv1; x=y; id=1"`}, true},
	{"STS017_leading_space", []string{`" v=STSv1; id=1"`}, false},
	{"STS017_double_delimiter", []string{`"v=STSv1; id=1;;"`}, false},
	{"STS017_no_semicolon", []string{`"v=STSv1 id=1"`}, false},
	{"STS017_version_alone", []string{`"v=STSv1"`}, false},
	{"STS017_version_last", []string{`"id=1; v=STSv1;"`}, false},
	{"STS018_erratum_6285", []string{`"v=STSv1 ; id=1"`}, true},
	{"STS018_literal_first", []string{`"v=STSv1; id=1"`, `"v=STSv1 ;id=2"`}, true},
	{"STS018_two_lenient", []string{`"v=STSv1 ; id=1"`, `"v=STSv1 ;id=2"`}, false},
	{"STS019_duplicate_id", []string{`"v=STSv1; id=1; id=2"`}, true},
	{"STS019_unknown", []string{`"v=STSv1; id=1; foo=bar"`}, true},
	{"STS019_extension_empty", []string{`"v=STSv1; id=1; foo="`}, true},
	{"STS019_extension_equals", []string{`"v=STSv1; id=1; foo==x"`}, true},
	{"STS019_extension_long_name", []string{`"v=STSv1; id=1; ` + strings.Repeat("n", 33) + `=v"`}, true},
	{"STS019_first_id_bad", []string{`"v=STSv1; id=a-b; id=2"`}, false},
	{"STS021_backslash", []string{`"v=STSv1; id=1; x=a\\b"`}, true},
	{"STS021_quote", []string{`"v=STSv1; id=1; x=a\"b"`}, true},
	{"STS021_escaped_letter", []string{`"v=STSv1; id=\0491"`}, true},
	{"STS022_not_ascii", []string{`"v=STSv1; id=1; x=\195\169"`}, false},
	{"STS022_nul", []string{`"v=STSv1; id=1\000"`}, false},
	{"STS013_empty_string", []string{`""`}, false},
	{"STS013_junk_before", []string{`"junk"`, `""`, `"v=STSv1; id=1"`}, true},
}

func TestSTS_Records(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	for i, c := range records {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := d.in(t)
			domain := fmt.Sprintf("txt%d.test", i)
			publishPlain(t, domain)
			publishSTS(t, domain, "x", enforce("mx."+domain))
			var zone strings.Builder
			for _, s := range c.txt {
				fmt.Fprintf(&zone, "_mta-sts.%s TXT %s\n", domain, s)
			}
			truth.publish(t, zone.String())
			want := notFound
			if c.found {
				want = secureFor(domain)
			}
			if got := d.ask("QUERY", domain); got != want {
				t.Errorf("TXT %s: got %q, want %q", c.txt, got, want)
			}
			if n := sites.gets(domain); (n == 1) != c.found {
				t.Errorf("%d requests for the policy", n)
			}
		})
	}
}

// discoveries are cases about where the record is looked for and what DNS answers. D stands for the domain.
var discoveries = []struct {
	name  string
	zone  string
	found bool
}{
	{"STS011_cname", "_mta-sts.D CNAME rec.D\nrec.D TXT \"v=STSv1; id=1\"", true},
	{"STS011_cname_chain", "_mta-sts.D CNAME a.D\na.D CNAME b.D\nb.D CNAME c.D\nc.D TXT \"v=STSv1; id=1\"", true},
	{"STS011_cname_loop", "_mta-sts.D CNAME a.D\na.D CNAME _mta-sts.D", false},
	{"STS011_cname_nowhere", "_mta-sts.D CNAME gone.D", false},
	{"STS002_parent", "sub.D A 192.0.2.1", false},
	{"STS020_servfail", "_mta-sts.D TXT !servfail", false},
	{"STS020_refused", "_mta-sts.D TXT !refused", false},
	{"STS020_notimp", "_mta-sts.D TXT !notimp", false},
	{"STS020_formerr", "_mta-sts.D TXT !formerr", false},
	{"STS020_silent", "_mta-sts.D TXT !silent", false},
	{"STS020_nodata", "_mta-sts.D AAAA ::1", false},
	{"STS020_wrong_id", "_mta-sts.D TXT !id \"v=STSv1; id=1\"", false},
	{"STS020_wrong_question", "_mta-sts.D TXT !question \"v=STSv1; id=1\"", false},
	{"STS020_cut_message", "_mta-sts.D TXT !short \"v=STSv1; id=1\"", false},
	{"STS020_wrong_owner", "_mta-sts.D TXT !owner \"v=STSv1; id=1\"", false},
	{"STS020_no_response", "_mta-sts.D TXT !query \"v=STSv1; id=1\"", false},
	{"STS013_foreign_records_beside", "_mta-sts.D TXT !extra \"v=STSv1; id=1\"", true},
	{"STS041_nat64", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A 0.0.0.0\nmta-sts.D AAAA 64:ff9b::7f00:2", false},
	{"STS041_six_to_four", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A 0.0.0.0\nmta-sts.D AAAA 2002:0a4d:0001::1", false},
	{"STS041_shared", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A 100.64.0.1", false},
	{"STS041_multicast", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A 224.0.0.1", false},
	{"STS041_unique_local", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A 0.0.0.0\nmta-sts.D AAAA fd00::1", false},
	{"STS023_truncated", "_mta-sts.D TXT !tcp \"v=STSv1; id=1\"", true},
	{"STS023_truncated_no_tcp", "_mta-sts.D TXT !tcpbroken \"v=STSv1; id=1\"", false},
	{"STS010_insecure_is_enough", "D !insecure\n_mta-sts.D TXT \"v=STSv1; id=1\"", true},
	{"STS040_policy_host_cname", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D CNAME hoster.D\nhoster.D A " + policyHostAddress, true},
	{"STS043_no_policy_host", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A !servfail\nmta-sts.D AAAA !servfail", false},
	{"STS043_connection_refused", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A 127.0.0.99", false},
	{"STS046_dead_aaaa", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D AAAA 2001:db8::dead", true},
	{"STS046_aaaa_servfail", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D AAAA !servfail", true},
	{"STS046_second_address", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A 127.0.0.99\nmta-sts.D A " + policyHostAddress, true},
	{"STS041_loopback_v6", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A 0.0.0.0\nmta-sts.D AAAA ::1", false},
	{"STS041_private", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A " + private, false},
	{"STS041_mapped", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A 192.0.2.1\nmta-sts.D AAAA ::ffff:10.77.0.1", false},
	{"STS041_link_local", "_mta-sts.D TXT \"v=STSv1; id=1\"\nmta-sts.D A 169.254.169.254", false},
}

func TestSTS_Discovery(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, config{"tls_policy": "postfix_version = \"3.7\"\ndeadline = \"3s\""})
	for i, c := range discoveries {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := d.in(t)
			domain := fmt.Sprintf("disc%d.test", i)
			publishPlain(t, domain)
			if !strings.Contains(c.zone, "mta-sts.D A ") && !strings.Contains(c.zone, "mta-sts.D CNAME h") {
				truth.publish(t, "mta-sts."+domain+" A "+policyHostAddress)
			}
			truth.publish(t, inDomain(c.zone, domain))
			sites.publish(domain, &site{body: enforce("mx." + domain)})
			want := notFound
			if c.found {
				want = secureFor(domain)
			}
			if got := d.ask("QUERY", domain); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if strings.HasPrefix(c.name, "STS041") && sites.connections(domain) != 0 {
				t.Error("connected to an address that is refused")
			}
		})
	}
}

// inDomain puts the domain in the place of the word D, which stands behind a dot, at the start of a line or alone.
func inDomain(zone, domain string) string {
	var out strings.Builder
	for line := range strings.Lines(zone) {
		words := strings.Fields(line)
		for i, w := range words {
			if w == "D" {
				words[i] = domain
			} else if rest, ok := strings.CutSuffix(w, ".D"); ok {
				words[i] = rest + "." + domain
			}
		}
		out.WriteString(strings.Join(words, " ") + "\n")
	}
	return out.String()
}

// TestSTS_Discovery_Names holds which names are asked for.
func TestSTS_Discovery_Names(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	t.Run("STS001_next_hop_domain", func(t *testing.T) {
		truth.publish(t, "nexthop.test MX 10 mx.hoster.test\nmx.hoster.test A 192.0.2.1")
		publishSTS(t, "hoster.test", "1", enforce("mx.hoster.test"))
		d.wants("nexthop.test", notFound)
		if truth.asked("_mta-sts.nexthop.test", "TXT") == 0 || truth.asked("_mta-sts.hoster.test", "TXT") > 0 {
			t.Error("the policy domain is the next hop's, not the MX host's")
		}
	})
	t.Run("STS002_no_inheritance", func(t *testing.T) {
		publishPlain(t, "parent.test")
		publishPlain(t, "sub.parent.test")
		publishSTS(t, "parent.test", "1", enforce("*.parent.test"))
		d.wants("sub.parent.test", notFound)
		if truth.asked("_mta-sts.parent.test", "TXT") > 0 {
			t.Error("the parent was asked")
		}
	})
	t.Run("STS010_a_label", func(t *testing.T) {
		publishPlain(t, "xn--bcher-kva.test")
		publishSTS(t, "xn--bcher-kva.test", "1", enforce("mx.xn--bcher-kva.test"))
		for _, key := range []string{"bücher.test", "BÜCHER.test", "xn--bcher-kva.test", "bücher。test"} {
			d.wants(key, secureFor("xn--bcher-kva.test"))
		}
		if n := truth.asked("_mta-sts.xn--bcher-kva.test", "TXT"); n != 1 {
			t.Errorf("%d questions, want one entry for all spellings", n)
		}
	})
	t.Run("STS023_many_records", func(t *testing.T) {
		publishPlain(t, "junk.test")
		publishSTS(t, "junk.test", "1", enforce("mx.junk.test"))
		var zone strings.Builder
		for i := range 40 {
			fmt.Fprintf(&zone, "_mta-sts.junk.test TXT \"junk-%d-%s\"\n", i, strings.Repeat("x", 100))
		}
		truth.publish(t, zone.String()+"_mta-sts.junk.test TXT \"v=STSv1; id=1\"")
		d.wants("junk.test", secureFor("junk.test"))
	})
	t.Run("STS011_policy_from_own_host", func(t *testing.T) {
		publishPlain(t, "cnamed.test")
		truth.publish(t, "_mta-sts.cnamed.test CNAME _mta-sts.provider.test\n_mta-sts.provider.test TXT \"v=STSv1; id=1\"\nmta-sts.cnamed.test A "+policyHostAddress)
		sites.publish("cnamed.test", &site{body: enforce("mx.cnamed.test")})
		d.wants("cnamed.test", secureFor("cnamed.test"))
		if sites.connections("provider.test") > 0 {
			t.Error("the policy of the alias's target was asked for")
		}
	})
	t.Run("STS007_no_policy_host_possible", func(t *testing.T) {
		long := strings.Repeat(strings.Repeat("a", 60)+".", 4) + "test"
		for _, key := range []string{"localhost", "single", "x.invalid", "x.onion", "x.local", long} {
			if got := d.ask("QUERY", key); got != notFound {
				t.Errorf("Q %s: %q", key, got)
			}
			if n := truth.asked("_mta-sts."+key, "TXT"); n != 0 {
				t.Errorf("%s: %d questions", key, n)
			}
		}
	})
}
