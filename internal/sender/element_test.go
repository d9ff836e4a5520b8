package sender

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// shown makes the parsers comparable: what text becomes, or the error.
func shown[T fmt.Stringer](parse func(string) (T, error)) func(string) (string, error) {
	return func(text string) (string, error) {
		v, err := parse(text)
		return v.String(), err
	}
}

var parsers = map[string]func(string) (string, error){
	"outgoing": shown(ParseOrigin), "domain": shown(ParseDomain), "forwarder": shown(ParseForwarder),
	"login": shown(ParseLogin), "client": shown(ParseNetwork), "from": shown(ParseFrom),
}

func TestParse_Normalises(t *testing.T) {
	for _, tt := range []struct{ parser, text, want string }{
		{"outgoing", "authenticated", "authenticated"},
		{"outgoing", "local", "local"},
		{"outgoing", "192.0.2.7", "192.0.2.7/32"},
		{"client", "2001:DB8::/32", "2001:db8::/32"},
		{"client", "::ffff:192.0.2.1", "192.0.2.1/32"},
		{"client", "::ffff:192.0.2.0/120", "192.0.2.0/24"},
		{"client", "::ffff:0:0/96", "0.0.0.0/0"},
		{"client", "::/0", "::/0"},
		{"domain", "Example.COM.", "example.com"},
		{"domain", ".Bücher.example", ".xn--bcher-kva.example"},
		{"domain", "localhost", "localhost"},
		{"forwarder", "Lists@Example.com", "lists@example.com"},
		{"forwarder", "10.0.0.0/8", "10.0.0.0/8"},
		{"login", `DOMAIN\Anna`, `domain\anna`},
		{"login", "smtp/host.example@REALM", "smtp/host.example@realm"},
		{"from", "Example.COM", "example.com"},
		{"from", ".Example.COM", ".example.com"},
		{"from", "News@Example.COM.", "news@example.com"},
		{"from", `"news"@example.com`, "news@example.com"},
		{"from", `"two\ words"@example.com`, `"two words"@example.com`},
		{"from", `"a@b\"\\"@example.com`, `"a@b\"\\"@example.com`},
		{"from", `"*"@example.com`, `"*"@example.com`},
		{"from", "a..b.@example.com", "a..b.@example.com"},
		{"from", "jörg@bücher.example", "jörg@xn--bcher-kva.example"},
		{"from", "SRS0=x=y=z=a+b/c{d}@example.com", "srs0=x=y=z=a+b/c{d}@example.com"},
	} {
		if got, err := parsers[tt.parser](tt.text); err != nil || got != tt.want {
			t.Errorf("%s %q: got %q, %v; want %q", tt.parser, tt.text, got, err, tt.want)
		}
	}
}

// Each refusal says what to write.
func TestParse_Refused(t *testing.T) {
	for _, tt := range []struct{ parser, text, want string }{
		{"outgoing", "everybody", `"authenticated", "local" or a network`},
		{"outgoing", "Local", `"authenticated", "local" or a network`},
		{"outgoing", "10.0.0.1/8", `write "10.0.0.0/8"`},
		{"outgoing", "", `"authenticated", "local" or a network`},
		{"client", "anna", "no network"},
		{"client", "", "no network"},
		{"client", "10.0.0.0/33", "no network"},
		{"client", "10.0.0.0/8/8", "no network"},
		{"client", "fe80::1%eth0", "no network"},
		{"client", "[2001:db8::]/32", `write "2001:db8::/32"`},
		{"client", "[::1]", `write "::1/128"`},
		{"client", "[[", "no network"},
		{"client", "::ffff:192.0.2.1/120", "bits behind the mask"},
		{"domain", "", "no domain"},
		{"domain", ".", "no domain"},
		{"domain", "..example.com", "no domain"},
		{"domain", "*.example.com", `write ".example.com"`},
		{"domain", "*", "no domain"},
		{"domain", "a@b.example", "no domain"},
		{"domain", "example.com:25", "no domain"},
		{"domain", "[example.com]", "no domain"},
		{"domain", "192.0.2.1", "no domain"},
		{"domain", " example.com", "no domain"},
		{"domain", "exa\xffmple.com", "not UTF-8"},
		{"domain", strings.Repeat("a", 64) + ".example", "at most 63"},
		{"domain", strings.Repeat("a.", 127) + "example", "at most 253"},
		{"domain", strings.Repeat("ü", 1000), "at most 1024"},
		{"forwarder", "", "neither a login nor a network"},
		{"forwarder", "a b", "neither a login nor a network"},
		{"forwarder", "10.0.0.0/99", "neither a login nor a network"},
		{"forwarder", "10.0.0.1/8", `write "10.0.0.0/8"`},
		{"forwarder", "local", "127.0.0.1"},
		{"forwarder", "authenticated", "a word of outgoing"},
		{"forwarder", "*@example.com", "no wildcards"},
		{"login", "", "empty"},
		{"login", "a b", "in quotes of its own"},
		{"login", "a\x00b", "control characters"},
		{"login", "a\u00a0b", "blanks"},
		{"login", "a\xff", "no login"},
		{"login", "*", "no wildcards"},
		{"login", "10.1.0.0/16", "stands in client"},
		{"login", "192.0.2.1", "stands in client"},
		{"login", strings.Repeat("a", 256), "at most 255"},
		{"from", "", "neither a domain nor an address"},
		{"from", "*.example.com", `".example.com"`},
		{"from", "@example.com", `write "example.com"`},
		{"from", "*@Example.com", `write "example.com"`},
		{"from", "news@", "no domain follows"},
		{"from", "news@.example.com", "no domain follows"},
		{"from", "news@[192.0.2.1]", "no domain follows"},
		{"from", "News <news@example.com>", "no domain follows"},
		{"from", "<news@example.com", "write it alone"},
		{"from", "two words@example.com", "write it alone"},
		{"from", "a@b@example.com", "write it alone"},
		{"from", "news*@example.com", "write it alone"},
		{"from", `"@example.com`, "write it alone"},
		{"from", `""@example.com`, "write it alone"},
		{"from", `"a"b"@example.com`, "write it alone"},
		{"from", `"a\"@example.com`, "write it alone"},
		{"from", "a\n@example.com", "write it alone"},
		{"from", "a\xff@example.com", "write it alone"},
		{"from", strings.Repeat("a", 256) + "@example.com", "at most 255"},
	} {
		got, err := parsers[tt.parser](tt.text)
		if err == nil {
			t.Errorf("%s %q is taken as %q", tt.parser, tt.text, got)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %q: %v; want %q", tt.parser, tt.text, err, tt.want)
		}
	}
}

// What is read and shown is read again as the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"authenticated", "10.0.0.0/8", "::ffff:1.2.3.4/100", ".Bücher.example", `"a\"b c"@example.com`, "ẞ@ß.example", "a。b", "[::1]/1", "İ@x", "*.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, parse := range parsers {
			first, err := parse(text)
			if err != nil {
				if s := err.Error(); s == "" || len(s) > 2000 || utf8.ValidString(text) && !utf8.ValidString(s) {
					t.Errorf("%s %q: the error %q", name, text, s)
				}
				continue
			}
			if again, err := parse(first); err != nil || again != first {
				t.Errorf("%s %q: shown as %q, read as %q, %v", name, text, first, again, err)
			}
		}
		// An address that can be reserved is reserved, however it is written.
		from, err := ParseFrom(text)
		if err != nil {
			return
		}
		p := newPolicy(t, Config{Allow: []Allow{{Logins: []Login{{"chef"}}, From: []From{from}}}})
		address := text
		if from.local == "" {
			address = "x@" + strings.Repeat("y", min(1, strings.Count(text[:1], "."))) + text
		}
		spellings := []string{address}
		if isASCII(address) { // UTS #46 keeps ς apart from σ, but Σ is σ
			spellings = append(spellings, strings.ToUpper(address))
		}
		for _, a := range spellings {
			if v := p.MayUse(Client{Login: "anna"}, a); len(a) < maxText && v.Use != Reserved {
				t.Errorf("%q reserves %v, but %q is %v", text, from, a, v)
			}
		}
	})
}

// An address of a message, whatever it is, has one verdict, and the closest
// element of those that name it decides: held against a plain search.
func FuzzMayUse(f *testing.F) {
	for _, s := range []string{"news@example.org", "a@example.com", "A@B.EXAMPLE.COM", "", "@", `"@"@x`, "a@xn--bcher-kva.example", "\xff@\xff"} {
		f.Add(s, "anna")
	}
	elements := parse(f, "example.com .example.com .b.example.com a@b.example.com news@example.org bücher.example", ParseFrom)
	var config Config
	for _, from := range elements {
		config.Allow = append(config.Allow, Allow{Logins: []Login{{fold(from.String())}}, From: []From{from}})
	}
	p := newPolicy(f, config)
	f.Fuzz(func(t *testing.T, address, login string) {
		got := p.MayUse(Client{Login: login}, address)
		want := closest(elements, address)
		switch {
		case got.Named != want:
			t.Errorf("%q: named by %q, want %q", address, got.Named, want)
		case want == "" && got != (Verdict{}):
			t.Errorf("%q: %v", address, got)
		case want != "" && (got.Use == Allowed) != strings.EqualFold(login, want):
			t.Errorf("%q by %q: %v", address, login, got)
		}
	})
}

// closest is the search without indexes.
func closest(elements []From, address string) string {
	m := parseMailbox(address)
	best, length := "", -1
	for _, e := range elements {
		switch {
		case e.local != "" && m == (mailbox{e.local, e.name}):
			return e.String()
		case e.local != "" || m.domain == "":
		case !e.below && e.name == m.domain:
			best, length = e.String(), 1<<20
		case e.below && strings.HasSuffix(m.domain, "."+e.name) && len(e.name) > length:
			best, length = e.String(), len(e.name)
		}
	}
	return best
}

func TestFold_IsEqualFold(t *testing.T) {
	letters := rapid.StringOfN(rapid.RuneFrom([]rune("aAkK\u212asSſßẞéÉσςΣǅǆiIİıµμ.+")), 0, 3, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b := letters.Draw(t, "a"), letters.Draw(t, "b")
		if (fold(a) == fold(b)) != strings.EqualFold(a, b) {
			t.Fatalf("%q, %q: %q, %q", a, b, fold(a), fold(b))
		}
		if fold(fold(a)) != fold(a) {
			t.Fatalf("%q: %q, then %q", a, fold(a), fold(fold(a)))
		}
	})
	if fold("A\xff") != "a\xff" || fold("\xff") == fold("\xfe") {
		t.Error("what is not UTF-8 equals what it is not")
	}
}

func TestQuote_IsUndone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		local := rapid.String().Draw(t, "local")
		if q := quote(local); unquote(q) != local {
			t.Fatalf("%q: %q, %q", local, q, unquote(q))
		}
	})
}

// Membership does not depend on the form of an IPv4 address.
func TestContain_MappedIsIPv4(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")))
		b := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "network")))
		bits := rapid.IntRange(0, 32).Draw(t, "bits")
		plain := netip.PrefixFrom(b, bits).Masked()
		mapped, err := ParseNetwork(netip.PrefixFrom(netip.AddrFrom16(b.As16()), bits+96).Masked().String())
		if err != nil || mapped != plain {
			t.Fatalf("%v: %v, %v", plain, mapped, err)
		}
		if contain([]netip.Prefix{mapped}, netip.AddrFrom16(a.As16())) != plain.Contains(a) {
			t.Fatalf("%v in %v", a, plain)
		}
	})
}
