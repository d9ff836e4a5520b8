package resolver_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postseal/postseal/internal/resolver"
)

func TestParseServers(t *testing.T) {
	good, err := resolver.ParseServers([]string{"127.0.0.1", "127.0.0.1:5353", "::1", "[::1]:5353", "[2001:db8::1]", "::ffff:192.0.2.1", "fe80::1%eth0"})
	var got []string
	for _, s := range good {
		got = append(got, s.String())
	}
	want := []string{"127.0.0.1:53", "127.0.0.1:5353", "[::1]:53", "[::1]:5353", "[2001:db8::1]:53", "192.0.2.1:53", "[fe80::1%eth0]:53"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for text, part := range map[string]string{
		"":                "not an IP address",
		"dns.example":     `"dns.example" is not an IP address`,
		"dns.example:53":  `"dns.example" is not an IP address`,
		"127.0.0.1:":      "port",
		"127.0.0.1:0":     `"0" is not a port`,
		"127.0.0.1:65536": "not a port",
		"127.0.0.1:dns":   "not a port",
		"[::1":            "[address]:port",
		"[::1]53":         "[address]:port",
		"0.0.0.0":         "nobody can be asked",
		"::":              "nobody can be asked",
		"224.0.0.1":       "nobody can be asked",
		" 127.0.0.1":      "not an IP address",
	} {
		if _, err := resolver.ParseServers([]string{"192.0.2.1", text}); err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := resolver.ParseServers([]string{"::ffff:192.0.2.1", "192.0.2.1:53"}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("twice: %v", err)
	}
	if _, err := resolver.ParseServers(make([]string, 9)); err == nil || !strings.Contains(err.Error(), "more than 8") {
		t.Errorf("nine: %v", err)
	}
}

func TestDANE001_ParseTrustAD(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		value   any
		text    string
		yes, no []netip.Addr
	}{
		{"loopback", "loopback", []netip.Addr{addr("127.0.0.1"), addr("127.0.0.53"), addr("::1"), addr("::ffff:127.0.0.1")},
			[]netip.Addr{addr("127.0.0.11"), addr("::ffff:127.0.0.11"), addr("192.0.2.1"), addr("10.0.0.1")}},
		{"always", "always", []netip.Addr{addr("127.0.0.11"), addr("8.8.8.8"), addr("2001:db8::1")}, nil},
		{"never", "never", nil, []netip.Addr{addr("127.0.0.1"), addr("::1")}},
		{[]string{"192.0.2.0/24", "2001:db8::53"}, "192.0.2.0/24, 2001:db8::53",
			[]netip.Addr{addr("192.0.2.9"), addr("::ffff:192.0.2.9"), addr("2001:db8::53")}, []netip.Addr{addr("127.0.0.1"), addr("192.0.3.1"), addr("2001:db8::54")}},
		{[]any{"127.0.0.0/8"}, "127.0.0.0/8", []netip.Addr{addr("127.0.0.11")}, []netip.Addr{addr("::1")}},
		{"10.0.0.0/8", "10.0.0.0/8", []netip.Addr{addr("10.1.2.3")}, nil},
		{[]any{"fe80::/10"}, "fe80::/10", []netip.Addr{addr("fe80::1%eth0")}, nil},
	} {
		v, err := resolver.ParseTrustAD(c.value)
		if err != nil || v.String() != c.text {
			t.Errorf("%v: %s, %v", c.value, v, err)
		}
		for _, a := range c.yes {
			if !v.Counts(a) {
				t.Errorf("%v: %s does not count", c.value, a)
			}
		}
		for _, a := range c.no {
			if v.Counts(a) {
				t.Errorf("%v: %s counts", c.value, a)
			}
		}
	}
	for _, c := range []struct {
		value any
		part  string
	}{
		{"", `trust_ad ""`}, {"Loopback", `"Loopback"`}, {"localhost", `neither "loopback"`}, {true, "true"}, {nil, "nil"}, {[]any{}, "empty"},
		{[]any{"192.0.2.1", 7}, "item 2"}, {[]string{"never"}, `"never" is neither a network`}, {[]string{"192.0.2.1/24"}, "192.0.2.0/24"},
		{[]string{"192.0.2.0/33"}, "192.0.2.0/33"}, {[]string{"fe80::1%eth0"}, "fe80"},
	} {
		if v, err := resolver.ParseTrustAD(c.value); err == nil || !strings.Contains(err.Error(), c.part) || !strings.HasPrefix(err.Error(), "trust_ad") {
			t.Errorf("%v: %v, %v", c.value, v, err)
		}
	}
	if (resolver.TrustAD{}).String() != "loopback" {
		t.Error("the zero value is not loopback")
	}
}

func TestDANE004_ParseProbe(t *testing.T) {
	for _, text := range []string{"", "ns:.", "NS:.", "soa:example.com", "dnskey:org."} {
		if p, err := resolver.ParseProbe(text); err != nil || p.String() != text {
			t.Errorf("%q: %q, %v", text, p, err)
		}
	}
	for text, part := range map[string]string{
		"ns": "type:name", "nsx:.": `"nsx" is not a type`, ":.": "not a type", "any:.": "not a type", "axfr:.": "not a type", "opt:.": "not a type",
		"ns:": "it is empty", "ns:a..b": "empty label",
	} {
		if _, err := resolver.ParseProbe(text); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestNewRefusesBadConfigurations(t *testing.T) {
	for name, cfg := range map[string]resolver.Config{
		"server":        {Servers: []string{"x"}},
		"probe":         {Servers: []string{"127.0.0.1"}, Probe: "x"},
		"short timeout": {Servers: []string{"127.0.0.1"}, Timeout: time.Millisecond},
		"long timeout":  {Servers: []string{"127.0.0.1"}, Timeout: time.Hour},
	} {
		if _, err := resolver.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestResolvConf(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"as usual":       {"domain ex.test\nnameserver 192.0.2.1\nnameserver\t192.0.2.2\n", "192.0.2.1:53 192.0.2.2:53"},
		"three count":    {"nameserver ::1\nnameserver ::2\nnameserver ::3\nnameserver ::4\n", "[::1]:53 [::2]:53 [::3]:53"},
		"comments":       {"#nameserver 192.0.2.1\n;nameserver 192.0.2.1\nnameserver 192.0.2.9 # x", "192.0.2.9:53"},
		"bad lines":      {"nameserver\nnameserver dns.example\nnameserver 0.0.0.0\nnameserver 192.0.2.1:53\nnameserver 192.0.2.3", "192.0.2.3:53"},
		"twice":          {"nameserver 192.0.2.1\nnameserver 192.0.2.1\n", "192.0.2.1:53"},
		"empty":          {"", "127.0.0.1:53"},
		"CRLF":           {"nameserver 192.0.2.1\r\n", "192.0.2.1:53"},
		"NUL and so on":  {"\x00\xff\nnameserver 192.0.2.1\n", "192.0.2.1:53"},
		"far too long":   {"nameserver 192.0.2.1\n" + strings.Repeat("#", 70000), "127.0.0.1:53"},
		"link-local":     {"nameserver fe80::1%eth0\n", "[fe80::1%eth0]:53"},
		"only bad lines": {"nameserver x\n", "127.0.0.1:53"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			r, err := resolver.New(resolver.Config{ResolvConf: path})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range r.Status().Servers {
				got = append(got, s.Address)
			}
			if strings.Join(got, " ") != c.want || r.Status().Source != path {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestErrorsAreTold(t *testing.T) {
	r, err := resolver.New(resolver.Config{Servers: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.MX(t.Context(), "a..b")
	if want := "MX a..b: not a domain name: empty label"; err == nil || err.Error() != want || !errors.Is(err, resolver.ErrBadName) {
		t.Errorf("%v; want %s", err, want)
	}
}
