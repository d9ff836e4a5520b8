package tlspolicy_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/postfix/tlspolicy/tlspolicytest"
)

func TestParseAccepts(t *testing.T) {
	for _, c := range []struct{ version, text, want string }{
		{"unknown", "encrypt", "encrypt"},
		{"3.7.11", "ENCRYPT", "encrypt"},
		{"3.7.11", " secure,match=a.example:.b.example,,servername=hostname\t", "secure match=a.example:.b.example servername=hostname"},
		{"3.7.11", "secure", "secure"}, // smtp_tls_secure_cert_match of main.cf holds then
		{"3.7.11", "verify Match=hostname match=nexthop:dot-nexthop", "verify match=hostname match=nexthop:dot-nexthop"},
		{"3.7.11", "fingerprint match=AB:cd:01|abcdef", "fingerprint match=AB:cd:01|abcdef"},
		{"3.7.11", "encrypt protocols=>=TLSv1.2", "encrypt protocols=>=TLSv1.2"},
		{"3.7.11", "encrypt protocols=>=TLSv1.2:<=TLSv1.3", "encrypt protocols=>=TLSv1.2:<=TLSv1.3"},
		{"3.7.11", "encrypt protocols=>=0303", "encrypt protocols=>=0303"},
		{"3.7.11", "encrypt protocols=>=0x0303:<=None", "encrypt protocols=>=0x0303:<=None"},
		{"3.5.1", "encrypt protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1", "encrypt protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1"}, // STS-075
		{"3.7.11", "may ciphers=medium exclude=aNULL:MD5", "may ciphers=medium exclude=aNULL:MD5"},
		{"3.7.11", "may exclude=", "may exclude="},
		{"3.7.11", "dane servername=mx.example connection_reuse=no connection_reuse=yes", "dane servername=mx.example connection_reuse=no connection_reuse=yes"},
		{"3.7.11", "verify tafile=/etc/ta1.pem tafile=/etc/ta2.pem", "verify tafile=/etc/ta1.pem tafile=/etc/ta2.pem"},
		{"3.9.0", "dane enable_rpk=yes", "dane enable_rpk=yes"},
		{"3.10.0", "may {exclude = aNULL, MD5}", "may { exclude = aNULL, MD5 }"},
		{"3.10.0", "secure {policy_string=mode:\tenforce} policy_type=sts", "secure { policy_string = mode: enforce } policy_type=sts"},
		{"3.10.13", "dane-only policy_type=sts policy_domain=x.example mx_host_pattern=*.x.example policy_ttl=86400",
			"dane-only policy_type=sts policy_domain=x.example mx_host_pattern=*.x.example policy_ttl=86400"},
		{"3.11.7", "secure policy_type=STS policy_failure=validation-failure", "secure policy_type=STS policy_failure=validation-failure"},
		{"3.7.11", "none", "none"},
	} {
		line, err := tlspolicy.Parse(c.text, version(t, c.version))
		if err != nil || line.String() != c.want {
			t.Errorf("%s %q: %q, %v", c.version, c.text, line, err)
		}
	}
}

// PFX-06, PFX-10, PFX-11: what Postfix would answer with 4.7.5 for all mail to a
// destination is refused with the cure.
func TestPFX06_ParseRefuses(t *testing.T) {
	refused, tooNew, unsafe := tlspolicy.ErrRefused, tlspolicy.ErrTooNew, tlspolicy.ErrUnsafe
	for _, c := range []struct {
		version, text string
		kind          error
		want          string
	}{
		{"3.7.11", "", refused, "an empty policy; begin with a level, for example encrypt"},
		{"3.7.11", " ,\t", refused, "an empty policy; begin with a level, for example encrypt"},
		{"3.7.11", "halfdane", refused, "halfdane stands only in Postfix's log; use dane"},
		{"3.7.11", "encrpyt", refused, `"encrpyt" is no TLS security level; did you mean encrypt?`},
		{"3.7.11", "daneonly", refused, `"daneonly" is no TLS security level; did you mean dane-only?`},
		{"3.7.11", "ſecure", unsafe, "0xc5"},
		{"3.7.11", "encrypt match=a.example", refused, "match= is not allowed at level encrypt; use secure, or drop it"},
		{"3.11.7", "dane-only match=a.example", refused, "match= is not allowed at level dane-only; use secure, or drop it"},
		{"3.7.11", "encrypt tafile=/x", refused, "tafile= is not allowed at level encrypt; use secure, or drop it"},
		{"3.7.11", "fingerprint tafile=/x match=ab", refused, "tafile= is not allowed at level fingerprint; use secure, or drop it"},
		{"3.7.11", "secure match=", refused, "match= has no value; list what must match, or drop it"},
		{"3.7.11", "secure match=*.example.com", unsafe, `match="*.example.com" has a "*", which matches nothing; write ".example.com"`},
		{"3.7.11", "secure match=a.example|b.example", unsafe, `separate names by ":"`},
		{"3.7.11", "secure match=a.example:", unsafe, "has an empty name"},
		{"3.7.11", "fingerprint", refused, "fingerprint has no fingerprint to match"},
		{"3.7.11", "fingerprint match=zz|ab", unsafe, `has a malformed digest "zz"`},
		{"3.7.11", "secure policy_type=sts", tooNew, "policy_type= needs Postfix 3.10, this is 3.7.11; leave it out"},
		{"unknown", "secure policy_type=sts", tooNew, "policy_type= needs Postfix 3.10, and the version of this one is unknown"},
		{"3.10-RC1", "secure policy_type=sts", tooNew, "this is 3.10-RC1"},
		{"3.7.11", "dane enable_rpk=yes", tooNew, "enable_rpk= needs Postfix 3.9, this is 3.7.11"},
		{"3.3.9", "secure servername=hostname", tooNew, "servername= needs Postfix 3.4, this is 3.3.9"}, // W-22
		{"3.5.9", "encrypt protocols=>=TLSv1.2", tooNew, "write protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1"},
		{"3.7.11", "may { exclude = aNULL }", tooNew, `needs Postfix 3.10`},
		{"3.7.11", "may exclude={aNULL}", unsafe, "has a brace in its value"},
		{"3.10.1", "secure policy_type=sts policy_string={a b}", unsafe, "write { policy_string = … } without braces inside"},
		{"3.10.1", "secure policy_type=tlsa", refused, "use one of sts, no-policy-found"},
		{"3.10.1", "secure policy_domain=x.example", refused, "policy_domain= needs policy_type=; add policy_type=sts, or drop it"},
		{"3.10.1", "secure policy_type=sts policy_domain=x.example.", refused, "is no host name"},
		{"3.10.1", "secure policy_type=sts mx_host_pattern=.x.example", unsafe, `write "*.x.example"`},
		{"3.10.1", "secure policy_type=sts policy_failure=dane-required", refused, "use one of sts-policy-fetch-error"},
		{"3.10.1", "secure policy_type=sts policy_ttl=-1", refused, "is no number of seconds"},
		{"3.10.1", "secure policy_type=sts policy_ttl=2147483648", refused, "too large"},
		{"3.10.1", "secure {policy_type=sts", refused, `has a "{" without its "}"`},
		{"3.10.1", "secure {policy_type=sts}{policy_type=sts}", refused, `goes on after its "}"`},
		{"3.7.11", "encrypt protocols=TLSv13", refused, `protocols: unknown protocol "TLSv13"; did you mean TLSv1.3?`},
		{"3.7.11", "encrypt protocols=>=TLS1.2", refused, `did you mean TLSv1.2?`},
		{"3.7.11", "encrypt protocols=", unsafe, "lifts every bound"},
		{"3.7.11", "encrypt protocols=>=", unsafe, "has a bound without a protocol"},
		{"3.7.11", "encrypt protocols=>=0500", unsafe, "bounds by a protocol that does not exist"},
		{"3.7.11", "encrypt protocols=!=TLSv1", refused, "unknown protocol"},
		{"3.7.11", "encrypt ciphers=strong", refused, `ciphers="strong" is no cipher grade; use high or medium`},
		{"3.7.11", "encrypt ciphers=invalid", refused, "is no cipher grade"},
		{"3.7.11", "encrypt exclude=!aNULL", refused, "has a modifier"},
		{"3.7.11", "encrypt ciphers=high ciphers=medium", refused, "ciphers= is given twice; keep one"},
		{"3.7.11", "encrypt connection_reuse=maybe", refused, "is neither yes nor no"},
		{"3.7.11", "encrypt servername=*.example", refused, "is no host name"},
		{"3.7.11", "verify tafile=ta.pem", unsafe, "is no absolute path"},
		{"3.7.11", "encrypt protocol=TLSv1.2", refused, `"protocol" is no attribute of a policy; did you mean protocols=?`},
		{"3.7.11", "encrypt color=blue", refused, `"color" is no attribute of a policy; leave it out`},
		{"3.7.11", "encrypt ciphers", refused, `"ciphers" is no name=value`},
		{"3.7.11", "encrypt ciphers = high", refused, `without spaces around the "="`},
		{"3.7.11", "encrypt =high", refused, `has no name before the "="`},
		{"3.10.1", "encrypt { a b = c }", refused, `is no name=value`},
		{"3.7.11", "none protocols=>=TLSv1.2", unsafe, `"protocols=>=TLSv1.2" is ignored at level none, mail goes in clear`},
		{"3.7.11", "encrypt\x00 match", unsafe, "has the byte 0x00 at 7"},
		{"3.7.11", strings.Repeat(" ", tlspolicy.MaxLine) + "may", refused, "more than 100000 bytes"},
	} {
		_, err := tlspolicy.Parse(c.text, version(t, c.version))
		if err == nil || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %.60q: %v\nwant %s", c.version, c.text, err, c.want)
			continue
		}
		if strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 600 {
			t.Errorf("%.60q: the message is no short line: %.200q", c.text, err)
		}
		if _, _, perr := tlspolicytest.Postfix(c.text, version(t, c.version)); perr == nil && c.kind != unsafe && len(c.text) < tlspolicy.MaxLine {
			t.Errorf("%s %q: Postfix takes it", c.version, c.text)
		}
	}
}

// agree holds Parse to what Postfix does with the same text.
func agree(t interface {
	Helper()
	Fatalf(string, ...any)
}, text string, v tlspolicy.Version) {
	t.Helper()
	line, err := tlspolicy.Parse(text, v)
	level, attrs, perr := tlspolicytest.Postfix(text, v)
	switch {
	case err == nil && perr != nil:
		t.Fatalf("%s: Parse takes %q, Postfix does not: %v", v, text, perr)
	case err == nil:
		if line.Level.String() != level || len(attrs)+len(line.Attrs) > 0 && !reflect.DeepEqual(line.Attrs, attrs) {
			t.Fatalf("%s: %q is %q for us, %s %q for Postfix", v, text, line, level, attrs)
		}
		again, _, err := tlspolicytest.Postfix(line.String(), v)
		if err != nil || again != level {
			t.Fatalf("%s: %q rendered as %q: %v", v, text, line, err)
		}
	case perr == nil && !errors.Is(err, tlspolicy.ErrUnsafe):
		t.Fatalf("%s: Postfix takes %q, we do not: %v", v, text, err)
	case errors.Is(err, tlspolicy.ErrTooNew):
		if _, err := tlspolicy.Parse(text, newest); errors.Is(err, tlspolicy.ErrTooNew) {
			t.Fatalf("%q is too new for every version: %v", text, err)
		}
	}
}

func TestParseTakesWhatPostfixTakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		level := rapid.SampledFrom([]string{"none", "may", "encrypt", "Dane", "dane-only", "fingerprint", "verify", "secure", "halfdane", ""})
		piece := rapid.Custom(func(t *rapid.T) string {
			name, value := rapid.SampledFrom(names).Draw(t, "name"), rapid.SampledFrom(values).Draw(t, "value")
			return rapid.SampledFrom([]string{name + "=" + value, "{ " + name + " = " + value + " }", "{" + name + "=" + value + "}",
				name, "=" + value, "{ " + name + " = " + value, name + " = " + value, "}", "{}", "{}x", name + "=={" + value}).Draw(t, "form")
		})
		text := level.Draw(t, "level")
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			text += rapid.SampledFrom([]string{" ", ",", "\t", "  ", ", ", "\r\n", "", "\v"}).Draw(t, "gap") + piece.Draw(t, "piece")
		}
		agree(t, text, drawVersion(t))
	})
}

func FuzzParse(f *testing.F) {
	f.Add("secure match=.example.net:mail.example.com servername=hostname policy_type=sts { policy_string = version: STSv1 }", 3)
	f.Add("encrypt protocols=>=TLSv1.2,<=0304 exclude=aNULL", 2)
	f.Add("fingerprint match=ab:cd|ef", 0)
	versions := []string{"unknown", "3.5.6", "3.7.11", "3.9.0", "3.10.13", "3.11.7"}
	f.Fuzz(func(t *testing.T, text string, at int) {
		agree(t, text, version(t, versions[uint(at)%uint(len(versions))]))
	})
}
