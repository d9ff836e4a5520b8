package systemd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrAddress: an address is not in the notation below. The caller corrects its
// configuration.
var ErrAddress = errors.New("systemd: listen address")

// Address is where to listen or connect: "tcp" and HOST:PORT, or "unix" and an
// absolute path, as package net wants them.
type Address struct {
	Network string
	Address string
}

// maxUnixPath is the length of sun_path in unix(7), less its final NUL.
const maxUnixPath = 107

// ParseAddress reads an address in Postfix's notation: inet:HOST:PORT,
// inet:[::1]:PORT or unix:/absolute/path. Errors wrap ErrAddress.
//
// HOST is an IP address or a name, PORT a number (0: any free one) or a name of
// services(5). An empty HOST, to Postfix every address, is refused: none of these
// protocols knows authentication, so every address has to be asked for, as
// 0.0.0.0 or [::]. A path that does not begin with a slash is refused too: Postfix
// reads it below its queue directory, which a daemon beside it does not know.
func ParseAddress(s string) (Address, error) {
	kind, rest, found := strings.Cut(s, ":")
	switch {
	case found && kind == "inet":
		return parseInet(s, rest)
	case found && kind == "unix":
		return parseUnix(s, rest)
	default:
		return Address{}, fmt.Errorf(`%w %q: want "inet:HOST:PORT" or "unix:/absolute/path"`, ErrAddress, s)
	}
}

func parseInet(s, hostPort string) (Address, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return Address{}, fmt.Errorf(`%w %q: want "inet:HOST:PORT", an IPv6 address in brackets`, ErrAddress, s)
	}
	if host == "" {
		return Address{}, fmt.Errorf(`%w %q: no host; "inet:127.0.0.1:%s" is this machine only, "inet:0.0.0.0:%[3]s" everybody`, ErrAddress, s, port)
	}
	// What looks like an IP address must be one, or a typing error would be looked up.
	looksIP := strings.Contains(host, ":") || strings.Trim(host, "0123456789.") == ""
	if _, err := netip.ParseAddr(host); err != nil && (looksIP || strings.ContainsAny(host, " \t/,[]")) {
		return Address{}, fmt.Errorf("%w %q: %q is neither an IP address nor a host name", ErrAddress, s, host)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		return Address{"tcp", net.JoinHostPort(host, strconv.FormatUint(n, 10))}, nil
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil || port == "" {
		return Address{}, fmt.Errorf("%w %q: %q is neither a port (0 to 65535) nor a service in /etc/services", ErrAddress, s, port)
	}
	return Address{"tcp", net.JoinHostPort(host, strconv.Itoa(n))}, nil
}

func parseUnix(s, path string) (Address, error) {
	switch {
	case !filepath.IsAbs(path):
		return Address{}, fmt.Errorf(`%w %q: the path must begin with "/": what main.cf has as "unix:postseal/sock" is "unix:/var/spool/postfix/postseal/sock" here`, ErrAddress, s)
	case strings.ContainsRune(path, 0):
		return Address{}, fmt.Errorf("%w %q: NUL in the path", ErrAddress, s)
	case strings.HasSuffix(path, "/") || filepath.Clean(path) == "/":
		return Address{}, fmt.Errorf("%w %q: that is a directory", ErrAddress, s)
	case len(filepath.Clean(path)) > maxUnixPath:
		return Address{}, fmt.Errorf("%w %q: %d bytes, a socket's path may have %d", ErrAddress, s, len(filepath.Clean(path)), maxUnixPath)
	}
	return Address{"unix", filepath.Clean(path)}, nil
}

// String returns the address in Postfix's notation.
func (a Address) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return "inet:" + a.Address
}

// Equal says whether l listens where a says, by address, not by looking names up.
func (a Address) Equal(l net.Listener) bool {
	return l.Addr().Network() == a.Network && l.Addr().String() == a.Address
}

// ParseMode reads the permissions of a socket, octal as in chmod(1): "0660",
// "660". Only the nine permission bits can be set. Errors wrap ErrAddress.
func ParseMode(s string) (os.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf(`%w: unix_mode %q: want octal permissions such as "0660"`, ErrAddress, s)
	}
	return os.FileMode(n), nil
}
