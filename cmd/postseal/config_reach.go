package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/postseal/postseal/policy"
)

// ReachConfig is [reach]: how mail hosts are probed. What is not given is Postfix's.
type ReachConfig struct {
	Source      []netip.Addr // to connect from, at most one of each family
	HeloName    string       // for EHLO
	Reference   []string     // domains that show that our own path lets TLS through, up to policy.MaxReferences
	Connections int          // at once, 1 to 31
}

// Bounds of [reach].
const (
	maxConnections     = 31
	defaultConnections = 24
	maxHelo            = 255
)

func (t *table) reach(c *ReachConfig) {
	listOf(t, "source", "addresses", &c.Source, sourceAddress)
	if len(c.Source) == 2 && c.Source[0].Is4() == c.Source[1].Is4() || len(c.Source) > 2 {
		t.fail("source", `at most one IPv4 and one IPv6 address, for example ["192.0.2.1", "2001:db8::1"]`)
	}
	valueOf(t, "helo_name", "a host name", &c.HeloName, heloName)
	listOf(t, "reference", "domains", &c.Reference, referenceDomain)
	if len(c.Reference) > policy.MaxReferences {
		t.fail("reference", "%d domains: at most %d", len(c.Reference), policy.MaxReferences)
	}
	t.count("connections", &c.Connections, 1, maxConnections)
}

func sourceAddress(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%.100q is no address of this machine; write for example \"192.0.2.1\"", text)
	}
	return a.Unmap(), nil
}

func heloName(text string) (string, error) {
	unfit := func(r rune) bool { return r <= ' ' || r > '~' }
	if len(text) > maxHelo || strings.ContainsFunc(text, unfit) {
		return "", fmt.Errorf("%.100q is no name for EHLO; write this machine's name in the DNS, such as \"mail.example.com\"", text)
	}
	return text, nil
}

func referenceDomain(text string) (string, error) {
	k, err := policy.ParseKey(text)
	switch {
	case err != nil:
		return "", err
	case k.Literal:
		return "", errors.New(`an address is no domain; write for example "gmail.com"`)
	}
	return k.String(), nil
}

func (w *tomlWriter) reach(c *ReachConfig) {
	w.section("reach")
	w.list("source", texts(c.Source))
	w.text("helo_name", c.HeloName)
	w.list("reference", c.Reference)
	fmt.Fprintf(w, "connections = %d\n", c.Connections)
}
