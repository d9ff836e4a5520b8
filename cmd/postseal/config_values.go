package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/systemd"
)

// listenAddress checks an address in Postfix notation.
func listenAddress(text string) (string, error) {
	a, err := systemd.ParseAddress(text)
	if err != nil {
		return "", err
	}
	return a.String(), nil
}

// controlAddress is a listenAddress that only local processes can reach: who
// can talk to the control socket can empty the memory.
func controlAddress(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if strings.HasPrefix(text, "inet:") {
		return "", fmt.Errorf("%.200q: the control socket has no passwords, so it is no network socket; write \"unix:/absolute/path\"", text)
	}
	return listenAddress(text)
}

// loopback tells whether only this host can reach an address.
func loopback(address string) bool {
	hostport, ok := strings.CutPrefix(address, "inet:")
	if !ok {
		return true
	}
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

func fileMode(text string) (fs.FileMode, error) {
	mode, err := systemd.ParseMode(text)
	if err == nil && mode == 0 {
		err = fmt.Errorf("%.100q: nobody could connect; write for example \"0660\"", text)
	}
	return mode, err
}

// word returns a parser that allows only these words.
func word(allowed ...string) func(string) (string, error) {
	return func(text string) (string, error) {
		if !slices.Contains(allowed, text) {
			return "", fmt.Errorf("%.100q is not allowed; write %s", text, alternatives(allowed))
		}
		return text, nil
	}
}

func alternatives(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	last := len(quoted) - 1
	if last < 1 {
		return strings.Join(quoted, "")
	}
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

// among returns a parser for the words, then read by parse.
func among[T any](parse func(string) (T, error), allowed ...string) func(string) (T, error) {
	check := word(allowed...)
	return func(text string) (T, error) {
		if _, err := check(text); err != nil {
			var zero T
			return zero, err
		}
		return parse(text)
	}
}

// network reads "192.0.2.0/24"; an address stands for itself.
func network(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%.100q is no network; write for example \"192.0.2.0/24\" or \"2001:db8::/32\"", text)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%.100q: bits behind the mask; write %q", text, p.Masked())
	}
	return p, nil
}

// dnsServer reads an address with or without a port.
func dnsServer(text string) (netip.AddrPort, error) {
	servers, err := resolver.ParseServers([]string{text})
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w; write for example \"127.0.0.1\", \"127.0.0.1:5353\" or \"[::1]:5353\"", err)
	}
	return servers[0], nil
}

func probe(text string) (string, error) {
	p, err := resolver.ParseProbe(text)
	return p.String(), err
}

// oldestPostfix is the oldest release that is supported.
var oldestPostfix = tlspolicy.Version{Major: 3, Minor: 7, Known: true}

func postfixVersion(text string) (tlspolicy.Version, error) {
	if text == "auto" {
		return tlspolicy.Version{}, nil
	}
	v, err := tlspolicy.ParseVersion(text)
	if err != nil {
		return tlspolicy.Version{}, fmt.Errorf("%w; write \"auto\" or what \"postconf -h mail_version\" shows, for example \"3.10.5\"", err)
	}
	if v.Less(oldestPostfix) {
		return tlspolicy.Version{}, fmt.Errorf("%.100q: Postfix before 3.7 is not supported", text)
	}
	return v, nil
}

func proxyURL(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	const want = `write for example "http://proxy.example:3128"`
	u, err := url.Parse(text)
	switch {
	case err != nil: // url.Error shows the text, which may hold a password
		return "", errors.New("no URL; " + want)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "", fmt.Errorf("%.100q is no HTTP proxy; %s", u.Redacted(), want)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%.100q: nothing may follow host and port; %s", u.Redacted(), want)
	}
	return text, nil
}

func filePath(text string) (string, error) {
	if text != "" && strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("%.100q is no path", text)
	}
	return text, nil
}

func absolutePath(text string) (string, error) {
	if !path.IsAbs(text) || strings.HasSuffix(text, "/") || strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("%.200q: write the absolute path of a file, for example \"/var/lib/postseal/postseal.db\"", text)
	}
	return path.Clean(text), nil
}

// groupName checks the shape only: the group is looked up when the socket is made.
func groupName(text string) (string, error) {
	if strings.ContainsAny(text, ": \t\n/\x00") {
		return "", fmt.Errorf("%.100q is no group", text)
	}
	return text, nil
}
