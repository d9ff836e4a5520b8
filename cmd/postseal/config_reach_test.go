package main

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

const reachConfig = `[reach]
source = ["192.0.2.1", "2001:db8::1"]
helo_name = "out.example.com"
reference = ["Gmail.com", "[mx.example.org]:587"]
connections = 31
`

func TestConfig_Reach(t *testing.T) {
	want := ReachConfig{
		Source:   []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		HeloName: "out.example.com", Reference: []string{"gmail.com", "[mx.example.org]:587"}, Connections: 31,
	}
	c := mustLoad(t, reachConfig)
	if !reflect.DeepEqual(c.Reach, want) {
		t.Errorf("got %+v", c.Reach)
	}
	if again := mustLoad(t, c.TOML()); !reflect.DeepEqual(again.Reach, want) {
		t.Errorf("shown as %s", c.TOML())
	}
	if got := engineSettings(c).References; !reflect.DeepEqual(got, want.Reference) {
		t.Errorf("the engine is told %q", got)
	}
	if got := mustLoad(t, "").Reach; !reflect.DeepEqual(got, ReachConfig{Connections: 24}) {
		t.Errorf("by default %+v", got)
	}
}

func TestConfig_ReachRefused(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"[reach]\nsource = ['192.0.2.0/24']", "postseal.toml:2: reach.source[0]: \"192.0.2.0/24\" is no address of this machine"},
		{"[reach]\nsource = ['0.0.0.0']", "is no address of this machine"},
		{"[reach]\nsource = ['fe80::1%eth0']", "is no address of this machine"},
		{"[reach]\nsource = ['192.0.2.1', '::ffff:192.0.2.2']", "postseal.toml:2: reach.source: at most one IPv4 and one IPv6 address"},
		{"[reach]\nsource = ['192.0.2.1', '2001:db8::1', '2001:db8::2']", "at most one IPv4 and one IPv6 address"},
		{"[reach]\nhelo_name = 'a b'", `postseal.toml:2: reach.helo_name: "a b" is no name for EHLO`},
		{"[reach]\nreference = ['192.0.2.1']", "an address is no domain"},
		{"[reach]\nreference = ['a..b']", "postseal.toml:2: reach.reference[0]: "},
		{"[reach]\nreference = [" + strings.Repeat("'a.example',", 9) + "]", "9 domains: at most 8"},
		{"[reach]\nconnections = 0", "postseal.toml:2: reach.connections: "},
		{"[reach]\nconnections = 32", "31"},
		{"[reach]\nhelo = 'a'", "postseal.toml:2: reach.helo: "},
	} {
		_, _, err := load(t, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.text, err, tt.want)
		}
	}
}
