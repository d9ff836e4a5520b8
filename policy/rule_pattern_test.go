package policy

import (
	"strings"
	"testing"
)

func TestSTS006_PatternsAreNormalised(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"Example.COM", "example.com"},
		{"example.com.", "example.com"},
		{"bücher.example", "xn--bcher-kva.example"},
		{"BÜCHER.example", "xn--bcher-kva.example"},
		{"localhost", "localhost"},
		{"example.com:587", "example.com:587"},
		{"example.com:smtp", "example.com:25"},
		{".Gov.Example", ".gov.example"},
		{".bücher.example", ".xn--bcher-kva.example"},
		{".com", ".com"},
		{"[Relay.Example]:587", "[relay.example]:587"},
		{"[relay.example]:submission", "[relay.example]:587"},
		{"[relay.example]", "[relay.example]"},
		{"[192.0.2.1]:25", "[192.0.2.1]:25"},
		{"[IPv6:2001:DB8::1]:25", "[IPv6:2001:db8::1]:25"},
		{"[2001:db8::1]", "[IPv6:2001:db8::1]"},
		{"mx:*.Mail.Protection.Outlook.com", "mx:*.mail.protection.outlook.com"},
		{"MX:mx1.example.com.", "mx:mx1.example.com"},
		{"mx:*.bücher.example", "mx:*.xn--bcher-kva.example"},
	} {
		p, err := parsePattern(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if p.String() != tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, p, tt.want)
		}
	}
}

// What can never match is refused with what to write instead.
func TestPattern_NeverMatches(t *testing.T) {
	for _, tt := range []struct{ text, fix string }{
		{"", "leave it out"},
		{" example.com", `"example.com"`},
		{"example.com\n", `"example.com"`},
		{"*.example.com", `".example.com"`},
		{"*", "floor"},
		{"mail*.example.com", `".example.com"`},
		{".*.example.com", `".example.com"`},
		{"mx:.example.com", `"mx:*.example.com"`},
		{"mx:*", "mx:*.example.com"},
		{"mx:*.*.example.com", "mx:*.example.com"},
		{"mx:a*.example.com", "mx:*.example.com"},
		{"mx:mx.example.com:25", "mx:host.example.com"},
		{"mx:[mx.example.com]", "mx:host.example.com"},
		{"mx:192.0.2.1", "host name"},
		{"mx:[192.0.2.1]", "host name"},
		{"mx:", "example.com"},
		{"192.0.2.1", `"[192.0.2.1]"`},
		{"192.0.2.1.", `"[192.0.2.1]"`},
		{"mx:192.0.2.1.", "host name"},
		{"192.0.2.1:25", `"[192.0.2.1]:25"`},
		{"2001:db8::1", `"[IPv6:2001:db8::1]"`},
		{"https://example.com/", "the domain alone"},
		{"user@example.com", `"example.com"`},
		{"@example.com", `"example.com"`},
		{"smtp:[relay.example]:587", `"[relay.example]:587"`},
		{"/var/run/lmtp", "leave it out"},
		{".example.com:25", "without the port"},
		{".", ".example.com"},
		{"..example.com", ".example.com"},
		{"a..b", "example.com"},
		{"exa mple.com", "example.com"},
		{"[relay.example", "[host]:port"},
		{"[relay.example]x", "[host]:port"},
		{"[relay.example]:0", "[host]:port"},
		{"[relay.example]:99999", "[host]:port"},
		{strings.Repeat("a", 64) + ".example", "example.com"},
		{strings.Repeat("a.", 127) + "example", "example.com"},
	} {
		p, err := parsePattern(tt.text)
		if err == nil {
			t.Errorf("%q is taken for %q", tt.text, p)
			continue
		}
		if !strings.Contains(err.Fix, tt.fix) {
			t.Errorf("%q: %v; fix %q, want one with %q", tt.text, err, err.Fix, tt.fix)
		}
	}
}

// A normalised pattern is its own normal form, and compiles.
func FuzzPattern(f *testing.F) {
	for _, seed := range []string{"Example.COM:25", ".b.example", "[IPv6:::1]:smtp", "mx:*.a.b", "[192.0.2.1]", "bücher.example", "mx:x", "mx:*.mx:a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePattern(text)
		if err != nil {
			if err.What == "" || err.Fix == "" {
				t.Errorf("%q: neither what nor fix: %+v", text, err)
			}
			return
		}
		again, err := parsePattern(p.String())
		if err != nil || again != p {
			t.Errorf("%q: %+v, again %+v, %v", text, p, again, err)
		}
	})
}
