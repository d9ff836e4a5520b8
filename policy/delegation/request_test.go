package delegation_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postseal/postseal/policy/delegation"
)

// usual is a request at RCPT as Postfix 3.11 sends it, with a login.
var usual = []string{
	"request", "smtpd_access_policy", "protocol_state", "RCPT", "protocol_name", "ESMTP",
	"client_address", "192.0.2.7", "client_name", "app.example.org", "client_port", "51234",
	"reverse_client_name", "app.example.org", "server_address", "192.0.2.1", "server_port", "587",
	"helo_name", "app.example.org", "sender", "News@Example.org", "recipient", "a@plain.test", "recipient_count", "0",
	"queue_id", "", "instance", "4d2.6750c3a1.5e1a3.0", "size", "12345", "etrn_domain", "", "stress", "",
	"sasl_method", "PLAIN", "sasl_username", "alice@example.org", "sasl_sender", "",
	"ccert_subject", "", "ccert_issuer", "", "ccert_fingerprint", "", "ccert_pubkey_fingerprint", "",
	"encryption_protocol", "TLSv1.3", "encryption_cipher", "TLS_AES_256_GCM_SHA384", "encryption_keysize", "256",
	"policy_context", "submission", "compatibility_level", "3.11", "mail_version", "3.11.7",
}

// request is the usual request with other values, or further attributes.
func request(changes ...string) string {
	all := append([]string{}, usual...)
next:
	for i := 0; i < len(changes); i += 2 {
		for j := 0; j < len(all); j += 2 {
			if all[j] == changes[i] {
				all[j+1] = changes[i+1]
				continue next
			}
		}
		all = append(all, changes[i], changes[i+1])
	}
	var b strings.Builder
	for i := 0; i < len(all); i += 2 {
		fmt.Fprintf(&b, "%s=%s\n", all[i], all[i+1])
	}
	return b.String() + "\n"
}

func parse(t testing.TB, s string) *delegation.Request {
	t.Helper()
	r, err := delegation.ParseRequest([]byte(s))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return r
}

func TestPOL04_EveryAttribute(t *testing.T) {
	r := parse(t, request())
	if len(usual)/2 != 31 {
		t.Fatalf("%d attributes", len(usual)/2)
	}
	for i := 0; i < len(usual); i += 2 {
		a := delegation.Attribute(i / 2)
		if a.String() != usual[i] || string(r.Get(a)) != usual[i+1] {
			t.Errorf("%v = %q, want %s = %q", a, r.Get(a), usual[i], usual[i+1])
		}
	}
	if none := delegation.Attribute(200); r.Get(none) != nil || none.String() != "Attribute(200)" {
		t.Errorf("an attribute that does not exist: %v %q", none, r.Get(none))
	}
}

func TestPOL04_Accessors(t *testing.T) {
	r := parse(t, request("queue_id", "4ZxY", "recipient_count", "3"))
	for _, tc := range []struct{ what, got, want string }{
		{"State", string(r.State()), "RCPT"},
		{"Sender", string(r.Sender()), "News@Example.org"},
		{"Recipient", string(r.Recipient()), "a@plain.test"},
		{"SASLUsername", string(r.SASLUsername()), "alice@example.org"},
		{"Instance", string(r.Instance()), "4d2.6750c3a1.5e1a3.0"},
		{"QueueID", string(r.QueueID()), "4ZxY"},
		{"PolicyContext", string(r.PolicyContext()), "submission"},
		{"MailVersion", string(r.MailVersion()), "3.11.7"},
		{"ClientAddress", r.ClientAddress().String(), "192.0.2.7"},
		{"RecipientCount", fmt.Sprint(r.RecipientCount()), "3"},
		{"Size", fmt.Sprint(r.Size()), "12345"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %q, want %q", tc.what, tc.got, tc.want)
		}
	}
}

// TestPOL04_Captured: what Postfix wrote on the socket.
func TestPOL04_Captured(t *testing.T) {
	files, err := filepath.Glob("testdata/postfix-*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, one := range strings.SplitAfter(string(b), "\n\n") {
			if one == "" {
				continue
			}
			r, err := delegation.ParseRequest([]byte(one))
			if err != nil {
				t.Fatalf("%s: %d: %v", name, i, err)
			}
			if !r.ClientAddress().IsValid() || len(r.Instance()) == 0 || len(r.Sender()) == 0 {
				t.Errorf("%s: %d: %v %q %q", name, i, r.ClientAddress(), r.Instance(), r.Sender())
			}
			// All names are known, so that each line is in place.
			for line := range strings.Lines(strings.TrimSuffix(one, "\n")) {
				want, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
				found := false
				for a := range delegation.Attribute(31) {
					found = found || a.String() == want && string(r.Get(a)) == value
				}
				if !found {
					t.Errorf("%s: %d: %q was not read", name, i, line)
				}
			}
		}
	}
}

func TestPOL04_Lines(t *testing.T) {
	const first = "request=smtpd_access_policy\n"
	long := strings.Repeat("x", delegation.MaxRequest)
	for _, tc := range []struct {
		why, in, sender string
		ok              bool
	}{
		{"the least", first + "\n", "", true},
		{"unknown names", first + "future=1\nsender=a@b.test\ntls_sni=x\n\n", "a@b.test", true},
		{"any order", "sender=a@b.test\n" + first + "\n", "a@b.test", true},
		{"the first counts", first + "sender=a@b.test\nsender=c@d.test\n\n", "a@b.test", true},
		{"the first counts, though empty", first + "sender=\nsender=c@d.test\n\n", "", true},
		{"= in the value", first + "sender=a=b@c.test\n\n", "a=b@c.test", true},
		{"spaces stay", first + "sender= \"a b\"@c.test \n\n", " \"a b\"@c.test ", true},
		{"names have a case", first + "SENDER=a@b.test\n\n", "", true},
		{"UTF-8", first + "sender=ü@bücher.test\n\n", "ü@bücher.test", true},
		{"other bytes", first + "sender=\x01\xff\r\n\n", "\x01\xff\r", true},
		{"the longest", first + "sender=" + long[:delegation.MaxRequest-len(first)-9] + "\n\n", long[:delegation.MaxRequest-len(first)-9], true},
		{"too long", first + "sender=" + long[:delegation.MaxRequest-len(first)-8] + "\n\n", "", false},
		{"nothing", "", "", false},
		{"only the end", "\n", "", false},
		{"no end", first, "", false},
		{"half a line", first + "sender=a", "", false},
		{"more behind", first + "\n" + first + "\n", "", false},
		{"a line more", first + "\n\n", "", false},
		{"no type", "sender=a@b.test\n\n", "", false},
		{"another type", "request=junk\n\n", "", false},
		{"another type first", "request=junk\n" + first + "\n", "", false},
		{"a longer type", "request=smtpd_access_policy2\n\n", "", false},
		{"CRLF", "request=smtpd_access_policy\r\n\r\n", "", false},
		{"no =", first + "sender\n\n", "", false},
		{"no name", first + "=a\n\n", "", false},
		{"NUL in a value", first + "sender=a\x00b\n\n", "", false},
		{"NUL in a name", first + "sen\x00der=a\n\n", "", false},
		{"HTTP", "GET / HTTP/1.1\nHost: x\n\n", "", false},
	} {
		r, err := delegation.ParseRequest([]byte(tc.in))
		switch {
		case (err == nil) != tc.ok || err != nil && !errors.Is(err, delegation.ErrProtocol):
			t.Errorf("%s: %v", tc.why, err)
		case err == nil && string(r.Sender()) != tc.sender:
			t.Errorf("%s: sender %.30q, want %.30q", tc.why, r.Sender(), tc.sender)
		}
	}
}

func TestPOL04_Numbers(t *testing.T) {
	for _, tc := range []struct {
		in    string
		size  int64
		count int
	}{
		{"", 0, 0}, {"0", 0, 0}, {"7", 7, 7}, {"0012", 12, 12}, {"-1", 0, 0}, {"+1", 0, 0}, {"1 ", 0, 0}, {"1e3", 0, 0}, {"x", 0, 0},
		{"3000000000", 3000000000, 1<<31 - 1}, {"922337203685477580799", 0, 0}, {strings.Repeat("9", 5000), 0, 0},
	} {
		r := parse(t, request("size", tc.in, "recipient_count", tc.in))
		if r.Size() != tc.size || r.RecipientCount() != tc.count {
			t.Errorf("%.20q: size %d, count %d", tc.in, r.Size(), r.RecipientCount())
		}
	}
}

func TestPOL04_ClientAddress(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"192.0.2.7", "192.0.2.7"}, {"0.0.0.0", "0.0.0.0"}, {"255.255.255.255", "255.255.255.255"},
		{"2001:db8::1", "2001:db8::1"}, {"::ffff:192.0.2.7", "::ffff:192.0.2.7"}, {"fe80::1%eth0", "fe80::1%eth0"},
		{"", "invalid IP"}, {"unknown", "invalid IP"}, {"256.0.0.1", "invalid IP"}, {"01.2.3.4", "invalid IP"},
		{"1.2.3", "invalid IP"}, {"1.2.3.4.5", "invalid IP"}, {"1..3.4", "invalid IP"}, {"1.2.3.x", "invalid IP"},
		{"00.0.0.0", "invalid IP"}, {"1.2.3.4 ", "invalid IP"}, {"[2001:db8::1]", "invalid IP"},
	} {
		if got := parse(t, request("client_address", tc.in)).ClientAddress().String(); got != tc.want {
			t.Errorf("%q: %s, want %s", tc.in, got, tc.want)
		}
	}
}

func TestPOL04_States(t *testing.T) {
	for _, s := range []delegation.State{delegation.Connect, delegation.HELO, delegation.EHLO, delegation.Mail, delegation.Rcpt,
		delegation.Data, delegation.EndOfMessage, delegation.VRFY, delegation.ETRN, "BDAT", ""} {
		if got := parse(t, request("protocol_state", string(s))).State(); got != s {
			t.Errorf("%q, want %q", got, s)
		}
	}
}

// FuzzRequest: what parses is exactly the lines that came, and nothing that was read
// holds a line break or a NUL.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(request()))
	f.Add([]byte(request("client_address", "2001:db8::1", "sender", "a=b", "future", "x")))
	f.Add([]byte("request=smtpd_access_policy\n\n\n"))
	f.Add([]byte("sender=a\nsender=b\nrequest=smtpd_access_policy\n\n"))
	f.Add([]byte("=\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := delegation.ParseRequest(bytes.Clone(in))
		if err != nil {
			if !errors.Is(err, delegation.ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		if len(in) > delegation.MaxRequest || !bytes.HasSuffix(in, []byte("\n\n")) || bytes.Contains(in[:len(in)-1], []byte("\n\n")) {
			t.Fatalf("%q was read", in)
		}
		want := map[string]string{}
		for line := range strings.Lines(string(in[:len(in)-1])) {
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			if !ok {
				t.Fatalf("%q was read", in)
			}
			if _, twice := want[name]; !twice {
				want[name] = value
			}
		}
		for a := range delegation.Attribute(31) {
			if got := string(r.Get(a)); got != want[a.String()] || strings.ContainsAny(got, "\n\x00") {
				t.Fatalf("%v: %q, want %q", a, got, want[a.String()])
			}
		}
		if string(r.State()) != want["protocol_state"] || r.Size() < 0 || r.RecipientCount() < 0 {
			t.Fatal(r.State(), r.Size(), r.RecipientCount())
		}
		if addr, err := netip.ParseAddr(want["client_address"]); r.ClientAddress() != addr {
			t.Fatalf("%v, want %v, %v", r.ClientAddress(), addr, err)
		}
	})
}
