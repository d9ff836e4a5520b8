package mtasts

import (
	"net/netip"
	"testing"
)

func TestSTS041_Refusal(t *testing.T) {
	own := func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2600::8")}
	}
	for addr, ok := range map[string]bool{
		"1.1.1.1": true, "9.255.255.255": true, "11.0.0.0": true, "100.63.255.255": true, "100.128.0.0": true,
		"172.15.255.255": true, "172.32.0.0": true, "192.167.255.255": true, "198.17.255.255": true, "223.255.255.255": true,
		"2600::1": true, "2a00::1": true, "64:ff9b::1.1.1.1": true, "::ffff:1.1.1.1": true,

		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false, "127.0.0.1": false, "127.255.255.255": false,
		"169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false, "192.0.0.170": false, "192.0.2.1": false,
		"192.88.99.1": false, "192.168.1.1": false, "198.18.0.1": false, "198.51.100.1": false, "203.0.113.1": false,
		"224.0.0.1": false, "239.255.255.255": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::1.2.3.4": false, "::ffff:10.0.0.1": false, "::ffff:127.0.0.1": false,
		"64:ff9b::10.0.0.1": false, "64:ff9b::7f00:1": false, "64:ff9b::8.8.8.8": false, "64:ff9b:1::1.1.1.1": false,
		"100::1": false, "2001::1": false, "2001:2::1": false, "2001:db8::1": false, "2002:7f00:1::1": false, "3fff::1": false,
		"5f00::1": false, "fc00::1": false, "fd12::1": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "ff02::1": false,
		"8.8.8.8": false, "2600::8": false, "::ffff:8.8.8.8": false, // our own
	} {
		if why := refusal(netip.MustParseAddr(addr), nil, own); (why == "") != ok {
			t.Errorf("%s: %q", addr, why)
		}
	}
}

func TestSTS041_AllowNetworks(t *testing.T) {
	allow := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd12::/32"), netip.MustParsePrefix("8.8.8.8/32")}
	own := func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("8.8.8.8")} }
	for addr, ok := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "64:ff9b::10.1.2.3": true, "fd12::1": true, "8.8.8.8": true,
		"10.2.0.1": false, "fd13::1": false,
	} {
		if why := refusal(netip.MustParseAddr(addr), allow, own); (why == "") != ok {
			t.Errorf("%s: %q", addr, why)
		}
	}
}

func TestSTS041_OwnAddresses(t *testing.T) {
	own := ownAddresses()
	found := false
	for _, a := range own {
		found = found || a.IsLoopback()
	}
	if !found {
		t.Errorf("no loopback among %v", own)
	}
}
