package mtasts

import (
	"errors"
	"net"
	"net/netip"
	"slices"
)

// ErrRefused: the address may not be connected to. Anybody can point a name at
// a machine behind our firewall; its owner can have it allowed.
var ErrRefused = errors.New("refused")

// special are the networks of the IANA special-purpose address registries
// (RFC 6890) that are not globally reachable, and those that only carry others'
// addresses inside. A policy host is in none of them.
var special = []struct {
	network netip.Prefix
	name    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified address"},
	{netip.MustParsePrefix("10.0.0.0/8"), "a private address (RFC 1918)"},
	{netip.MustParsePrefix("100.64.0.0/10"), "a shared address of a carrier (RFC 6598)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},
	{netip.MustParsePrefix("172.16.0.0/12"), "a private address (RFC 1918)"},
	{netip.MustParsePrefix("192.0.0.0/24"), "a protocol assignment (RFC 6890)"},
	{netip.MustParsePrefix("192.0.2.0/24"), "a documentation address"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "a private address (RFC 1918)"},
	{netip.MustParsePrefix("198.18.0.0/15"), "a benchmarking address"},
	{netip.MustParsePrefix("198.51.100.0/24"), "a documentation address"},
	{netip.MustParsePrefix("203.0.113.0/24"), "a documentation address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved address"},

	{netip.MustParsePrefix("::/128"), "an unspecified address"},
	{netip.MustParsePrefix("::1/128"), "a loopback address"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "a local-use NAT64 address (RFC 8215)"},
	{netip.MustParsePrefix("2001::/32"), "a Teredo address"},
	{netip.MustParsePrefix("2001::/23"), "a protocol assignment (RFC 2928)"},
	{netip.MustParsePrefix("2001:db8::/32"), "a documentation address"},
	{netip.MustParsePrefix("2002::/16"), "a 6to4 address"},
	{netip.MustParsePrefix("3fff::/20"), "a documentation address"},
	{netip.MustParsePrefix("fc00::/7"), "a unique local address"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
}

var (
	globalUnicast = netip.MustParsePrefix("2000::/3")     // RFC 4291 §2.4, all that IANA gives out
	nat64         = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052 §2.1
)

// refusal says why an address may not be connected to, empty if it may. own is
// called only for addresses that are public.
func refusal(addr netip.Addr, allow []netip.Prefix, own func() []netip.Addr) string {
	addr = addr.WithZone("").Unmap() // ::ffff:10.0.0.1 is 10.0.0.1 to the kernel
	if slices.ContainsFunc(allow, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return ""
	}
	for _, s := range special {
		if s.network.Contains(addr) {
			return s.name
		}
	}
	if nat64.Contains(addr) {
		inside := addr.As16()
		v4 := netip.AddrFrom4([4]byte(inside[12:]))
		if why := refusal(v4, allow, own); why != "" {
			return "NAT64 of " + v4.String() + ", " + why
		}
	} else if addr.Is6() && !globalUnicast.Contains(addr) {
		return "not a global address"
	}
	if slices.Contains(own(), addr) {
		return "an address of this machine"
	}
	return ""
}

// ownAddresses lists the addresses of this machine now; they change. If the
// kernel does not tell, none: the special networks are refused all the same.
func ownAddresses() []netip.Addr {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []netip.Addr
	for _, a := range found {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().WithZone("").Unmap())
		}
	}
	return own
}
