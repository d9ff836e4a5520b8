package resolver

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// localhost is asked where resolv.conf is missing or names nobody, resolv.conf(5).
var localhost = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)

// readResolvConf reads the nameserver lines of a file. An error means that it
// names nobody; skipped tells of lines that could not be used.
func readResolvConf(path string) (servers []netip.AddrPort, skipped []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxResolvConf+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > maxResolvConf {
		return nil, nil, fmt.Errorf("%s: more than %d octets", path, maxResolvConf)
	}
	servers, skipped = parseResolvConf(text)
	if len(servers) == 0 {
		return nil, skipped, fmt.Errorf("%s: %w", path, ErrNoServers)
	}
	return servers, skipped, nil
}

// parseResolvConf takes the first three usable nameserver lines, as the C
// library does (MAXNS): Postfix and postseal should ask the same servers (DANE-005).
func parseResolvConf(text []byte) (servers []netip.AddrPort, skipped []string) {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "nameserver" || len(servers) == maxNameserver {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() {
			skipped = append(skipped, fields[1])
			continue
		}
		if s := netip.AddrPortFrom(addr.Unmap(), 53); !slices.Contains(servers, s) {
			servers = append(servers, s)
		}
	}
	return servers, skipped
}
