package sender

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// parse reads elements that are known to be right, separated by blanks.
func parse[T any](t testing.TB, texts string, one func(string) (T, error)) []T {
	t.Helper()
	list := []T{}
	for _, text := range strings.Fields(texts) {
		e, err := one(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// entry: "login … | client … | from …".
func allow(t testing.TB, text string) Allow {
	t.Helper()
	f := strings.Split(text, "|")
	return Allow{
		Logins:  parse(t, f[0], ParseLogin),
		Clients: parse(t, f[1], ParseNetwork),
		From:    parse(t, f[2], ParseFrom),
		Source:  strings.TrimSpace(f[2]),
	}
}

func newPolicy(t testing.TB, c Config) *Policy {
	t.Helper()
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// client: "LOGIN@ADDRESS", each may be missing; "local" is sendmail(1).
func client(text string) Client {
	if text == "local" {
		return Client{Local: true, Addr: netip.MustParseAddr("127.0.0.1")}
	}
	login, addr, _ := strings.Cut(text, " from ")
	c := Client{Login: login}
	if addr != "" {
		c.Addr = netip.MustParseAddr(addr)
	}
	return c
}

func TestMLT07_Outgoing(t *testing.T) {
	for _, tt := range []struct {
		outgoing string // "default": nothing said
		client   string
		want     bool
	}{
		{"default", "anna from 203.0.113.1", true},
		{"default", "anna", true},
		{"default", " from 203.0.113.1", false},
		{"default", " from 127.0.0.1", false},
		{"default", "", false},
		{"default", "local", true},
		{"", "anna from 203.0.113.1", false},
		{"", "local", false},
		{"authenticated", "local", false},
		{"authenticated", "anna", true},
		{"local", "local", true},
		{"local", "anna from 127.0.0.1", false},
		{"10.1.0.0/16", "anna from 10.2.0.1", false},
		{"10.1.0.0/16", " from 10.1.255.255", true},
		{"10.1.0.0/16", " from ::ffff:10.1.0.1", true},
		{"::ffff:10.1.0.0/112", " from 10.1.0.1", true},
		{"::ffff:10.1.0.1", " from 10.1.0.1", true},
		{"::/0", " from 10.1.0.1", false},
		{"fe80::/10", " from fe80::1%eth0", true},
		{"2001:db8::1", " from 2001:db8::1", true},
		{"2001:db8::1", " from 2001:db8::2", false},
		// Postfix gives sendmail(1) this address.
		{"127.0.0.0/8", "local", true},
		{"0.0.0.0/0", "", false},
	} {
		c := Config{}
		if tt.outgoing != "default" {
			c.Outgoing = parse(t, tt.outgoing, ParseOrigin)
		}
		if got := newPolicy(t, c).Outgoing(client(tt.client)); got != tt.want {
			t.Errorf("outgoing %s, client %s: %t", tt.outgoing, tt.client, got)
		}
	}
}

func TestMLT07_ZeroPolicyIsThatOfTheZeroConfig(t *testing.T) {
	var zero Policy
	made := newPolicy(t, Config{})
	for _, c := range []string{"anna", "local", "", " from 127.0.0.1"} {
		c := client(c)
		if zero.Outgoing(c) != made.Outgoing(c) || zero.Forwarder(c) || made.Forwarder(c) {
			t.Errorf("%+v: outgoing %t, %t", c, zero.Outgoing(c), made.Outgoing(c))
		}
		for _, a := range []string{"", "a@b.example", "no address"} {
			if v, w := zero.MayUse(c, a), made.MayUse(c, a); v != (Verdict{}) || w != v {
				t.Errorf("%+v, %q: %v, %v", c, a, v, w)
			}
		}
	}
	if !zero.Ours("b.example") || !zero.Ours("") || !made.Ours("..") {
		t.Error("without domains every one is ours")
	}
}

func TestDM007_Ours(t *testing.T) {
	for _, tt := range []struct {
		domains, domain string
		want            bool
	}{
		{"example.com", "example.com", true},
		{"example.com", "EXAMPLE.Com.", true},
		{"example.com", "mail.example.com", false},
		{"example.com", "badexample.com", false},
		{"example.com", "com", false},
		{"example.com", "", false},
		{"example.com", ".example.com", false},
		{"example.com", "example.com..", false},
		{".example.com", "example.com", false},
		{".example.com", "mail.example.com", true},
		{".example.com", "a.b.c.Example.COM", true},
		{".example.com", "badexample.com", false},
		{"example.com .example.com", "example.com", true},
		{"example.com .example.com", "x.example.com", true},
		{"other.example .example.com", "a.b.example.com", true},
		{".com", "example.com", true},
		{".com", "com", false},
		{"bücher.example", "xn--bcher-kva.example", true},
		{"bücher.example", "XN--BCHER-KVA.example", true},
		{"xn--bcher-kva.example", "BÜCHER.example", true},
		{".bücher.example", "a.xn--bcher-kva.example", true},
		{"example.com", "exam\u00adple.com", true}, // UTS #46 ignores a soft hyphen
		{"example.com", "example\u3002com", true},  // an ideographic full stop is one
		{"example.com", "ｅxample.com", true},
		{"example.com", "examp\xffle.com", false},
		{"example.com", "[192.0.2.1]", false},
		{"example.com", "192.0.2.1", false},
		{"example.com", strings.Repeat("ü", 1<<20), false},
		{"under_score.example", "UNDER_score.example", true},
	} {
		p := newPolicy(t, Config{Domains: parse(t, tt.domains, ParseDomain)})
		if got := p.Ours(tt.domain); got != tt.want {
			t.Errorf("domains %s: %.40q ours: %t", tt.domains, tt.domain, got)
		}
	}
}

func TestDM007_Forwarder(t *testing.T) {
	p := newPolicy(t, Config{Forwarders: parse(t, `List@Example.com 10.9.0.0/16 müller`, ParseForwarder)})
	for text, want := range map[string]bool{
		"list@example.com from 203.0.113.1": true,
		"LIST@EXAMPLE.COM":                  true,
		"MÜLLER":                            true,
		"list":                              false,
		"":                                  false,
		" from 10.9.0.1":                    true,
		"anna from ::ffff:10.9.0.1":         true,
		"anna from 10.8.0.1":                false,
		"local":                             false,
	} {
		if got := p.Forwarder(client(text)); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

// The truth table of one entry: who is named, and who asks.
func TestDM007_LoginAndClientAreBothNeeded(t *testing.T) {
	const inside, outside = "10.1.2.3", "10.2.0.1"
	for _, tt := range []struct {
		entry  string
		client string
		want   Use
	}{
		{"anna||", "anna from " + inside, Allowed},
		{"anna||", "anna from " + outside, Allowed},
		{"anna||", "ANNA", Allowed},
		{"anna||", "berta from " + inside, Reserved},
		{"anna||", " from " + inside, Reserved},
		{"anna||", "local", Reserved},
		{"anna||", "", Reserved},
		{"anna berta||", "berta", Allowed},
		{"|10.1.0.0/16|", "anna from " + inside, Allowed},
		{"|10.1.0.0/16|", " from " + inside, Allowed},
		{"|10.1.0.0/16|", " from ::ffff:" + inside, Allowed},
		{"|10.1.0.0/16|", " from " + outside, Reserved},
		{"|10.1.0.0/16|", "anna", Reserved},
		{"|10.1.0.0/16|", "local", Reserved},
		{"|127.0.0.1|", "local", Allowed},
		{"|192.0.2.1 10.1.0.0/16|", " from " + inside, Allowed},
		{"anna|10.1.0.0/16|", "anna from " + inside, Allowed},
		{"anna|10.1.0.0/16|", "anna from " + outside, Reserved},
		{"anna|10.1.0.0/16|", "berta from " + inside, Reserved},
		{"anna|10.1.0.0/16|", " from " + inside, Reserved},
		{"anna|10.1.0.0/16|", "anna", Reserved},
		{"anna|10.1.0.0/16|", "local", Reserved},
	} {
		for _, named := range []string{"example.com", ".com", "news@example.com"} {
			p := newPolicy(t, Config{Allow: []Allow{allow(t, tt.entry+named)}})
			want := Verdict{tt.want, named, named}
			if got := p.MayUse(client(tt.client), "News@Example.COM"); got != want {
				t.Errorf("%s%s, %q: %v, want %v", tt.entry, named, tt.client, got, want)
			}
		}
	}
}

// The configuration of the documentation.
func example(t testing.TB) *Policy {
	return newPolicy(t, Config{
		Domains: parse(t, "example.com .example.org", ParseDomain),
		Allow:   []Allow{allow(t, "newsletter@example.com|10.1.0.0/16|example.com news@example.org")},
	})
}

func TestDM007_WhatNoEntryNamesIsFreeForOurDomains(t *testing.T) {
	p := example(t)
	const list, anna = "newsletter@example.com from 10.1.0.1", "anna from 203.0.113.1"
	for _, tt := range []struct {
		client, address string
		want            Use
		named           string
	}{
		{list, "anybody@example.com", Allowed, "example.com"},
		{anna, "anybody@example.com", Reserved, "example.com"},
		{anna, "a@mail.example.com", Foreign, ""}, // neither reserved nor ours
		{list, "news@example.org", Allowed, "news@example.org"},
		{anna, "news@example.org", Reserved, "news@example.org"},
		{anna, "anna@example.org", Foreign, ""}, // .example.org does not hold it
		{list, "anna@example.org", Foreign, ""},
		{anna, "anna@shop.example.org", Allowed, ""},
		{anna, "news@shop.example.org", Allowed, ""},
		{anna, "anna@example.net", Foreign, ""},
		{anna, "", Allowed, ""},
		{anna, "anna", Foreign, ""},
		{anna, "anna@", Foreign, ""},
		{anna, "anna@[192.0.2.1]", Foreign, ""},
	} {
		if got := p.MayUse(client(tt.client), tt.address); got.Use != tt.want || got.Named != tt.named {
			t.Errorf("%s, %s: %v, want %v by %q", tt.client, tt.address, got, tt.want, tt.named)
		}
	}
}

// No way of writing an address gets around its reservation.
func TestDM007_SpellingsOfOneAddress(t *testing.T) {
	p := newPolicy(t, Config{Allow: []Allow{allow(t, "chef||jörg.k@bücher.example")}})
	for _, address := range []string{
		"jörg.k@bücher.example", "JÖRG.K@BÜCHER.EXAMPLE", "jörg.k@xn--bcher-kva.example.", `"jörg.k"@bücher.example`,
		`"j\ör\g.k"@Bücher.example`, `"jörg".k@bücher.example`, `jörg."k"@bücher.example`, "jörg.\u212a@bücher.example",
		"jörg.k@bücher\u3002example", "jörg.k@bü\u00adcher.example",
	} {
		if got := p.MayUse(client("anna"), address); got.Use != Reserved {
			t.Errorf("%q: %v", address, got)
		}
		if got := p.MayUse(client("Chef"), address); got.Use != Allowed {
			t.Errorf("%q, chef: %v", address, got)
		}
	}
	for _, address := range []string{
		"jörg.k+x@bücher.example", "x.jörg.k@bücher.example", "jörg.k@mail.bücher.example", "jorg.k@bücher.example",
		"j\xf6rg.k@bücher.example", `jörg.k@evil.example@other.example`, `"jörg.k@bücher.example"@other.example`,
	} {
		if got := p.MayUse(client("anna"), address); got != (Verdict{}) {
			t.Errorf("%q is another address: %v", address, got)
		}
	}
}

func TestDM007_TheClosestElementDecides(t *testing.T) {
	p := newPolicy(t, Config{Allow: []Allow{
		allow(t, "staff||example.com"),
		allow(t, "all||.example.com"),
		allow(t, "shop||.shop.example.com"),
		allow(t, "chef||chef@example.com"),
		allow(t, "deputy|10.1.0.0/16|chef@example.com x@a.shop.example.com"),
	}})
	for _, tt := range []struct {
		address, named string
		allowed        string // of the clients below
	}{
		{"anna@example.com", "example.com", "staff"},
		{"chef@example.com", "chef@example.com", "chef deputy"},
		{"chef@mail.example.com", ".example.com", "all"},
		{"anna@shop.example.com", ".example.com", "all"},
		{"anna@a.shop.example.com", ".shop.example.com", "shop"},
		{"x@a.shop.example.com", "x@a.shop.example.com", "deputy"},
		{"x@b.a.shop.example.com", ".shop.example.com", "shop"},
	} {
		for _, login := range []string{"staff", "all", "shop", "chef", "deputy", ""} {
			want := Reserved
			if login != "" && strings.Contains(" "+tt.allowed+" ", " "+login+" ") {
				want = Allowed
			}
			if got := p.MayUse(client(login+" from 10.1.0.1"), tt.address); got.Use != want || got.Named != tt.named {
				t.Errorf("%s as %s: %v, want %v by %s", login, tt.address, got, want, tt.named)
			}
		}
	}
}

// An element that several entries hold is open to those of each, and the verdict
// says which it was.
func TestDM007_AnyEntryThatNamesItIsEnough(t *testing.T) {
	first, second := allow(t, "anna|10.1.0.0/16|example.com"), allow(t, "berta||example.com EXAMPLE.com")
	first.Source, second.Source = "postseal.toml:7", "postseal.toml:11"
	p := newPolicy(t, Config{Allow: []Allow{first, second}})
	for text, want := range map[string]Verdict{
		"anna from 10.1.0.1":  {Allowed, "example.com", "postseal.toml:7"},
		"berta from 10.1.0.1": {Allowed, "example.com", "postseal.toml:11"},
		"anna from 10.2.0.1":  {Reserved, "example.com", "postseal.toml:7"},
		"clara from 10.1.0.1": {Reserved, "example.com", "postseal.toml:7"},
	} {
		if got := p.MayUse(client(text), "x@example.com"); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// A forwarder may send foreign mail; it may not speak for whom it is not.
func TestDM007_ForwardersAreHeldToReservations(t *testing.T) {
	p := newPolicy(t, Config{
		Domains:    parse(t, "example.com", ParseDomain),
		Forwarders: parse(t, "lists", ParseForwarder),
		Allow:      []Allow{allow(t, "chef||chef@example.com")},
	})
	lists := client("lists")
	if !p.Forwarder(lists) || p.MayUse(lists, "a@else.example").Use != Foreign || p.MayUse(lists, "chef@example.com").Use != Reserved {
		t.Errorf("%v, %v", p.MayUse(lists, "a@else.example"), p.MayUse(lists, "chef@example.com"))
	}
}

func TestDM007_Covers(t *testing.T) {
	p := newPolicy(t, Config{Domains: parse(t, "example.com .example.org", ParseDomain)})
	var none Policy
	for text, want := range map[string]bool{
		"example.com": true, "a@example.com": true, ".example.com": false, "mail.example.com": false,
		".example.org": true, ".mail.example.org": true, "x@mail.example.org": true, "example.org": false, ".org": false,
	} {
		f, err := ParseFrom(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Covers(f); got != want {
			t.Errorf("%s: %t", text, got)
		}
		if !none.Covers(f) {
			t.Errorf("%s: without domains all are ours", text)
		}
	}
}

func TestNew_Refused(t *testing.T) {
	many := make([]Domain, MaxElements+1)
	for _, tt := range []struct {
		config Config
		want   []string
	}{
		{Config{Allow: []Allow{allow(t, "a||example.com"), allow(t, "||example.com")}}, []string{"allow[1]: nobody"}},
		{Config{Allow: []Allow{allow(t, "a||"), {}}}, []string{"allow[0].from: missing", "allow[1]: nobody", "allow[1].from: missing"}},
		{Config{Domains: many}, []string{"domains: 1001 elements, at most 1000"}},
		{Config{Outgoing: make([]Origin, MaxElements+1)}, []string{"outgoing: "}},
		{Config{Forwarders: make([]Forwarder, MaxElements+1)}, []string{"forwarders: "}},
		{Config{Allow: []Allow{{Logins: make([]Login, MaxElements+1), Clients: make([]netip.Prefix, MaxElements+1), From: make([]From, MaxElements+1)}}},
			[]string{"allow[0].login: ", "allow[0].client: ", "allow[0].from: "}},
	} {
		p, err := New(tt.config)
		if p != nil || err == nil {
			t.Errorf("%v is taken", tt.want)
			continue
		}
		var got []string
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			var c *ConfigError
			if !errors.As(e, &c) || c.What == "" {
				t.Errorf("%v is no ConfigError", e)
			}
			got = append(got, e.Error())
		}
		for i, want := range tt.want {
			if len(got) != len(tt.want) || !strings.HasPrefix(got[i], want) {
				t.Errorf("got %q, want %q", got, tt.want)
				break
			}
		}
	}
	if _, err := New(Config{Allow: make([]Allow, MaxAllow+1)}); err == nil || !strings.Contains(err.Error(), "allow: 1001 elements, at most 1000") {
		t.Errorf("%v", err)
	}
}

// A Policy does not share memory that its maker may change.
func TestNew_KeepsNothingOfItsConfig(t *testing.T) {
	c := Config{
		Outgoing: parse(t, "10.1.0.0/16", ParseOrigin), Domains: parse(t, "example.com", ParseDomain),
		Forwarders: parse(t, "10.1.0.0/16", ParseForwarder), Allow: []Allow{allow(t, "|10.1.0.0/16|example.com")},
	}
	p := newPolicy(t, c)
	c.Outgoing[0], c.Domains[0], c.Forwarders[0], c.Allow[0].Clients[0], c.Allow[0].From[0] = Origin{}, Domain{}, Forwarder{}, netip.Prefix{}, From{}
	in := client(" from 10.1.0.1")
	if !p.Outgoing(in) || !p.Ours("example.com") || !p.Forwarder(in) || p.MayUse(in, "a@example.com").Use != Allowed || p.MayUse(Client{}, "a@example.com").Use != Reserved {
		t.Error("the policy changed with its configuration")
	}
}

func TestUse_String(t *testing.T) {
	got := fmt.Sprint(Allowed, Foreign, Reserved, Use(-1), Use(3))
	if want := "allowed foreign reserved Use(-1) Use(3)"; !reflect.DeepEqual(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Delegation asks for every recipient of every message.
func TestMayUse_AllocatesNothing(t *testing.T) {
	p := example(t)
	c := client("newsletter@example.com from 10.1.0.1")
	for _, address := range []string{"a@example.com", "news@example.org", "a@shop.example.org", "a@example.net"} {
		if n := testing.AllocsPerRun(100, func() { p.MayUse(c, address); p.Outgoing(c); p.Forwarder(c); p.Ours("example.com") }); n != 0 {
			t.Errorf("%s: %v allocations", address, n)
		}
	}
}
