package resolver

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says whom to ask. Its zero value asks the servers of /etc/resolv.conf,
// believes those on this host, and does not probe.
type Config struct {
	// Servers are addresses, with a port where it is not 53: "127.0.0.1",
	// "127.0.0.1:5353", "::1", "[::1]:53". At most 8. Empty: those of ResolvConf.
	Servers []string
	// ResolvConf is the file with the nameserver lines; empty: /etc/resolv.conf.
	// Run reads it every two seconds; while it is missing or names nobody, the
	// servers stay as they were, at first 127.0.0.1 (resolv.conf(5)).
	ResolvConf string
	// TrustAD says whose AD bit counts; the zero value is "loopback".
	TrustAD TrustAD
	// Probe is a question whose answer is known to be signed, as Postfix's
	// dnssec_probe: "ns:.". Empty: trusted servers are believed unprobed.
	Probe string
	// Timeout is how long one server may take over one question, from 50 ms to
	// a minute; 0: two seconds.
	Timeout time.Duration
	// Logger takes what happens to the servers; nil: nothing is logged. Only New
	// looks at it.
	Logger *slog.Logger
	// Registerer takes the metrics; nil: they are kept nowhere. Only New looks at it.
	Registerer prometheus.Registerer
}

const defaultResolvConf = "/etc/resolv.conf"

// ParseServers reads addresses as Config.Servers has them. Host names are
// refused: nobody could look them up.
func ParseServers(list []string) ([]netip.AddrPort, error) {
	if len(list) > maxServers {
		return nil, fmt.Errorf("%d name servers, more than %d", len(list), maxServers)
	}
	var servers []netip.AddrPort
	for _, text := range list {
		s, err := parseServer(text)
		if err != nil {
			return nil, err
		}
		if slices.Contains(servers, s) {
			return nil, fmt.Errorf("name server %q is listed twice", text)
		}
		servers = append(servers, s)
	}
	return servers, nil
}

func parseServer(text string) (netip.AddrPort, error) {
	host, port := text, "53"
	switch {
	case strings.HasPrefix(text, "["):
		inside, rest, closed := strings.Cut(text[1:], "]")
		if !closed || rest != "" && rest[0] != ':' {
			return netip.AddrPort{}, fmt.Errorf("name server %q: the form is [address]:port", text)
		}
		host = inside
		if rest != "" {
			port = rest[1:]
		}
	case strings.Count(text, ":") == 1:
		host, port, _ = strings.Cut(text, ":")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}, fmt.Errorf("name server %q: %q is not a port from 1 to 65535", text, port)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("name server %q: %q is not an IP address", text, host)
	}
	if addr.IsUnspecified() || addr.IsMulticast() {
		return netip.AddrPort{}, fmt.Errorf("name server %q: nobody can be asked at this address", text)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}

// TrustAD says whose AD bit counts (DANE-001, RFC 4035 §4.9.3: only that of a
// server reached over a secure channel). The zero value is "loopback".
type TrustAD struct {
	text     string
	always   bool
	networks []netip.Prefix // without always: these
}

// docker is the embedded DNS of Docker: on loopback, but a mere forwarder to
// whatever the host uses.
var docker = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// ParseTrustAD reads "loopback" (127.0.0.0/8 and ::1, but not Docker's stub
// 127.0.0.11), "always", "never", or a list of networks and addresses ("192.0.2.0/24",
// "2001:db8::53") as []string or as the []any of a TOML decoder. A list is taken
// at its word: 127.0.0.11 is in "127.0.0.0/8".
func ParseTrustAD(value any) (TrustAD, error) {
	switch v := value.(type) {
	case string:
		switch v {
		case "loopback":
			return TrustAD{}, nil
		case "always":
			return TrustAD{text: v, always: true}, nil
		case "never":
			return TrustAD{text: v}, nil
		}
		if t, err := parseNetworks([]string{v}); err == nil {
			return t, nil
		}
		return TrustAD{}, fmt.Errorf(`trust_ad %q: neither "loopback", "always", "never" nor a list of networks`, v)
	case []string:
		return parseNetworks(v)
	case []any:
		list := make([]string, len(v))
		for i, item := range v {
			text, ok := item.(string)
			if !ok {
				return TrustAD{}, fmt.Errorf("trust_ad: item %d of the list is not a string but %v", i+1, item)
			}
			list[i] = text
		}
		return parseNetworks(list)
	}
	return TrustAD{}, fmt.Errorf("trust_ad: neither a string nor a list of networks but %v", value)
}

func parseNetworks(list []string) (TrustAD, error) {
	if len(list) == 0 {
		return TrustAD{}, fmt.Errorf(`trust_ad: the list is empty; "never" says so`)
	}
	t := TrustAD{text: strings.Join(list, ", ")}
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil || addr.Zone() != "" {
				return TrustAD{}, fmt.Errorf("trust_ad: %q is neither a network (192.0.2.0/24) nor an address", text)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		if p != p.Masked() {
			return TrustAD{}, fmt.Errorf("trust_ad: %q has bits set behind its mask; the network is %s", text, p.Masked())
		}
		t.networks = append(t.networks, p)
	}
	return t, nil
}

// String gives the value as the configuration has it.
func (t TrustAD) String() string {
	if t.text == "" {
		return "loopback"
	}
	return t.text
}

// Counts says whether the AD bit of the server at addr counts.
func (t TrustAD) Counts(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if t.text == "" {
		return addr.IsLoopback() && addr != docker
	}
	return t.always || slices.ContainsFunc(t.networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Probe is a question whose answer is known to be signed. The zero value is none.
type Probe struct {
	text, name string
	qtype      uint16
}

// ParseProbe reads TYPE:NAME, as Postfix's dnssec_probe: "ns:.". An empty text
// means that nothing is probed.
func ParseProbe(text string) (Probe, error) {
	if text == "" {
		return Probe{}, nil
	}
	mnemonic, name, ok := strings.Cut(text, ":")
	if !ok {
		return Probe{}, fmt.Errorf(`probe %q: the form is type:name, as in "ns:."`, text)
	}
	qtype, ok := dns.StringToType[strings.ToUpper(mnemonic)]
	// RFC 6895 §3.1: from 128 to 255 stand questions and meta types, which nobody signs.
	if !ok || qtype == dns.TypeNone || qtype == dns.TypeOPT || 128 <= qtype && qtype <= 255 {
		return Probe{}, fmt.Errorf("probe %q: %q is not a type of records", text, mnemonic)
	}
	if _, err := appendName(nil, name); err != nil {
		return Probe{}, fmt.Errorf("probe %q: %w", text, err)
	}
	return Probe{text: text, name: name, qtype: qtype}, nil
}

// String gives the probe as the configuration has it.
func (p Probe) String() string { return p.text }
