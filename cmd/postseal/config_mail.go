package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/postseal/postseal/internal/sender"
	"github.com/postseal/postseal/milter"
)

// This file reads, shows and doubts what decides about messages: [senders] and
// [milter].

const (
	maxBreakerWindow = 100_000 // messages, kept per finding and From domain
	maxEgress        = 64      // SPF is asked for each of them
)

// readMilter reads [milter].
func (r *reading) readMilter(t *table, c *MilterConfig) {
	t.listen(&c.ListenConfig)
	valueOf(t, "action", "an action", &c.Action, milter.ParseAction)
	t.boolean("add_header", &c.AddHeader)

	actions := t.section("actions")
	c.Actions = map[string]milter.Action{}
	for _, finding := range milter.Actionable() {
		actions.text(finding, "an action", func(text string) error {
			a, err := milter.ParseAction(text)
			if err == nil {
				c.Actions[finding] = a
			}
			return err
		})
	}

	breaker := t.section("breaker")
	breaker.count("window", &c.Breaker.Window, 1, maxBreakerWindow)
	breaker.share("share", &c.Breaker.Share)
}

// readSenders reads [senders] and makes its policy.
func (r *reading) readSenders(t *table, c *SendersConfig) {
	before := len(r.errs)
	listOf(t, "outgoing", "senders", &c.Outgoing, sender.ParseOrigin)
	listOf(t, "domains", "domains", &c.Domains, sender.ParseDomain)
	listOf(t, "forwarders", "logins or networks", &c.Forwarders, sender.ParseForwarder)
	listOf(t, "egress", "addresses", &c.Egress, egressAddress)
	if len(c.Egress) > maxEgress {
		t.fail("egress", "%d elements, at most %d", len(c.Egress), maxEgress)
	}
	for _, entry := range t.sections("allow") {
		c.Allow = append(c.Allow, entry.allow(fmt.Sprintf("%s:%d", filepath.Base(r.doc.path), r.doc.line(entry.way))))
	}
	if len(r.errs) > before {
		return // what was refused is missing now
	}
	p, err := sender.New(c.Config)
	t.refuseSenders(err, "")
	if err == nil {
		c.Policy = p
	}
}

// allow reads one [[senders.allow]].
func (t *table) allow(source string) sender.Allow {
	before := len(t.errs)
	a := sender.Allow{Source: source}
	listOf(t, "login", "logins", &a.Logins, sender.ParseLogin)
	listOf(t, "client", "networks", &a.Clients, sender.ParseNetwork)
	listOf(t, "from", "domains and addresses", &a.From, sender.ParseFrom)
	if len(t.errs) == before {
		// Alone, so that one bad entry does not hide what is wrong with the next.
		_, err := sender.New(sender.Config{Allow: []sender.Allow{a}})
		t.refuseSenders(err, "allow[0]")
	}
	return a
}

// refuseSenders shows each finding of sender.New at the line of its key. prefix
// is what leads from its Config to this table.
func (t *table) refuseSenders(err error, prefix string) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return
	}
	for _, err := range joined.Unwrap() {
		if e, ok := errors.AsType[*sender.ConfigError](err); ok {
			t.fail(strings.TrimPrefix(strings.TrimPrefix(e.Field, prefix), "."), "%s", e.What)
		}
	}
}

// egressAddress reads one address.
func egressAddress(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%.100q is no address that mail leaves from; write for example \"192.0.2.10\" or \"2001:db8::10\"", text)
	}
	return a.Unmap(), nil
}

// milter writes [milter].
func (w *tomlWriter) milter(c *MilterConfig) {
	w.section("milter")
	w.listen(c.ListenConfig)
	w.text("action", c.Action.String())
	fmt.Fprintf(w, "add_header = %t\n", c.AddHeader)
	w.section("milter.actions")
	for _, finding := range slices.Sorted(maps.Keys(c.Actions)) {
		w.text(finding, c.Actions[finding].String())
	}
	w.section("milter.breaker")
	fmt.Fprintf(w, "window = %d\n", c.Breaker.Window)
	// 'f': an exponent without a point is no number to every reader of TOML.
	share := strconv.FormatFloat(c.Breaker.Share, 'f', -1, 64)
	if !strings.Contains(share, ".") {
		share += ".0"
	}
	fmt.Fprintf(w, "share = %s\n", share)
}

// senders writes [senders].
func (w *tomlWriter) senders(c *SendersConfig) {
	w.section("senders")
	w.list("outgoing", texts(c.Outgoing))
	w.list("domains", texts(c.Domains))
	w.list("forwarders", texts(c.Forwarders))
	w.list("egress", texts(c.Egress))
	for _, a := range c.Allow {
		fmt.Fprintf(w, "\n# %s\n[[senders.allow]]\n", strings.Map(printable, a.Source))
		if len(a.Logins) > 0 {
			w.list("login", texts(a.Logins))
		}
		if len(a.Clients) > 0 {
			w.list("client", texts(a.Clients))
		}
		w.list("from", texts(a.From))
	}
}

// mailWarnings lists what deserves a look in [senders] and [milter].
func (c *Config) mailWarnings() []warning {
	var list []warning
	warn := func(format string, args ...any) {
		list = append(list, warning{filepath.Base(c.Path), fmt.Sprintf(format, args...)})
	}
	if len(c.Senders.Outgoing) == 0 {
		warn("senders.outgoing: empty: no mail is outgoing, and all passes unseen")
	}
	for _, a := range c.Senders.Egress {
		if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
			warn("senders.egress: %q is private: receivers see the address that it is translated to", a)
		}
	}
	for _, a := range c.Senders.Allow {
		for _, from := range a.From {
			if !c.Senders.Policy.Covers(from) {
				list = append(list, warning{a.Source, fmt.Sprintf("senders.allow: %q is not among senders.domains; only those whom the entry names may use it", from)})
			}
		}
	}
	for _, need := range []struct {
		finding, key string
		empty        bool
	}{
		{"sender-not-allowed", "allow", len(c.Senders.Allow) == 0},
		{"spf-egress", "egress", len(c.Senders.Egress) == 0},
	} {
		if _, named := c.Milter.Actions[need.finding]; named && need.empty {
			warn("milter.actions.%s: never found, for senders.%s is empty", need.finding, need.key)
		}
	}
	if c.Milter.Breaker.Share == 1 {
		warn("milter.breaker.share: no share is more than 1, so the breaker never acts")
	}
	return list
}
