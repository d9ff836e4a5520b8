package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/internal/resolver"
	"github.com/postseal/postseal/policy"
)

// Bounds of time spans.
const (
	maxDrain    = time.Hour
	minDeadline = 100 * time.Millisecond
	maxDeadline = 90 * time.Second // Postfix waits 100 s (socketmap, smtpd_policy_service_timeout)
	minFetch    = time.Second
	maxFetch    = 5 * time.Minute
)

var modes = []string{"enforce", "monitor", "off"}

// read takes the document's values over the defaults in c; the rules are left
// to the caller.
func (r *reading) read(c *Config) (rules []*table) {
	top := r.top()
	valueOf(top, "mode", "a mode", &c.Mode, among(policy.ParseMode, modes[:2]...))
	listOf(top, "include", "file names", &c.Include, filePath)

	socketmap := top.section("socketmap")
	socketmap.listen(&c.Socketmap.ListenConfig)
	socketmap.duration("drain", &c.Socketmap.Drain, 0, maxDrain)

	delegation := top.section("delegation")
	delegation.listen(&c.Delegation.ListenConfig)
	delegation.duration("deadline", &c.Delegation.Deadline, minDeadline, maxDeadline)

	r.readMilter(top.section("milter"), &c.Milter)

	top.section("http").listen(&c.HTTP)

	control := top.section("control")
	valueOf(control, "listen", "an address", &c.Control.Listen, controlAddress)
	control.socket(&c.Control.UnixMode, &c.Control.UnixGroup)

	r.readDestinations(top, c)

	readStores(top.section("cache"), top.section("ledger"), c)

	r.readSenders(top.section("senders"), &c.Senders)
	top.section("reach").reach(&c.Reach)
	return top.sections("rule")
}

// readStores reads where the files are.
func readStores(cache, ledger *table, c *Config) {
	valueOf(cache, "path", "a path", &c.Cache.Path, absolutePath)
	if _, given := ledger.values["path"]; !given {
		// Who moves the one moves both, and no two daemons meet in the other.
		c.Ledger.Path = filepath.Join(filepath.Dir(c.Cache.Path), "ledger.db")
	}
	valueOf(ledger, "path", "a path", &c.Ledger.Path, absolutePath)
	if c.Ledger.Path == c.Cache.Path {
		ledger.fail("path", "%q is that of [cache]; each needs a file of its own", c.Ledger.Path)
	}
}

// readDestinations reads what decides about destinations.
func (r *reading) readDestinations(top *table, c *Config) {
	dns := top.section("resolver")
	dns.servers(&c.Resolver.Servers)
	dns.trustAD(&c.Resolver.TrustAD)
	valueOf(dns, "probe", "a probe", &c.Resolver.Probe, probe)

	tls := top.section("tls_policy")
	valueOf(tls, "floor", "a floor", &c.TLSPolicy.Floor, among(policy.ParseFloor, "inherit", "dane", "encrypt"))
	valueOf(tls, "postfix_version", `"auto" or a version such as "3.10.5"`, &c.TLSPolicy.PostfixVersion, postfixVersion)
	valueOf(tls, "rule_map", "a file name", &c.TLSPolicy.RuleMap, filePath)
	tls.duration("deadline", &c.TLSPolicy.Deadline, minDeadline, maxDeadline)

	valueOf(top.section("dane"), "mode", "a mode", &c.DANE.Mode, among(policy.ParseMode, modes...))

	sts := top.section("mta_sts")
	valueOf(sts, "mode", "a mode", &c.MTASTS.Mode, among(policy.ParseMode, modes...))
	valueOf(sts, "ca_file", "a file name", &c.MTASTS.CAFile, filePath)
	listOf(sts, "allow_networks", "networks", &c.MTASTS.AllowNetworks, network)
	valueOf(sts, "proxy", "a URL", &c.MTASTS.Proxy, proxyURL)
	sts.duration("fetch_timeout", &c.MTASTS.FetchTimeout, minFetch, maxFetch)
}

func (t *table) listen(c *ListenConfig) {
	_, c.Asked = t.values["listen"]
	listOf(t, "listen", "addresses", &c.Listen, listenAddress)
	t.socket(&c.UnixMode, &c.UnixGroup)
}

func (t *table) socket(mode *fs.FileMode, group *string) {
	valueOf(t, "unix_mode", `a mode such as "0660"`, mode, fileMode)
	valueOf(t, "unix_group", "a group", group, groupName)
}

// servers reads the list of name servers.
func (t *table) servers(into *[]netip.AddrPort) {
	const key = "servers"
	before := len(t.errs)
	var list []string
	listOf(t, key, "addresses", into, func(s string) (netip.AddrPort, error) {
		list = append(list, s)
		return dnsServer(s)
	})
	if len(t.errs) > before {
		return
	}
	if _, err := resolver.ParseServers(list); err != nil { // too many, or one twice
		t.fail(key, "%v", err)
	}
}

// trustAD reads a word or a list of networks.
func (t *table) trustAD(into *resolver.TrustAD) {
	const key = "trust_ad"
	switch v := t.values[key].(type) {
	case []any:
		before := len(t.errs)
		list := []string{}
		listOf(t, key, "networks", &list, func(s string) (string, error) {
			p, err := network(s)
			return p.String(), err
		})
		if len(t.errs) > before {
			return
		}
		trust, err := resolver.ParseTrustAD(list)
		if err != nil {
			t.fail(key, "%v", err)
		}
		*into = trust
	case string, nil:
		valueOf(t, key, "", into, func(s string) (resolver.TrustAD, error) {
			if _, err := word("loopback", "always", "never")(s); err != nil {
				return resolver.TrustAD{}, fmt.Errorf(`%w, or a list of networks such as ["192.0.2.53"]`, err)
			}
			return resolver.ParseTrustAD(s)
		})
	default:
		t.get(key)
		t.wrong(key, v, `"loopback", "always", "never" or a list of networks`)
	}
}

// rule reads one [[rule]]. ok is false if it was refused.
func (t *table) rule(v tlspolicy.Version, source string) (rule policy.Rule, ok bool) {
	before := len(t.errs)
	text := policy.RuleText{Source: source}
	keep := func(into *string) func(string) error {
		return func(s string) error { *into = s; return nil }
	}
	as := func(s string) (string, error) { return s, nil }
	listOf(t, "match", "destinations", &text.Match, as)
	listOf(t, "sender", "addresses", &text.Sender, as)
	t.text("level", "a level", keep(&text.Level))
	listOf(t, "exempt", "mechanisms", &text.Exempt, as)
	t.text("reason", "a reason", keep(&text.Reason))
	t.text("mode", "a mode", func(s string) error {
		_, err := word(modes[:2]...)(s)
		text.Mode = s
		return err
	})
	t.until(&text.Until)
	t.text("unreachable", "a word", func(s string) error {
		_, err := word("queue", "defer", "refuse")(s)
		text.Unreachable = s
		return err
	})
	if _, given := t.values["refuse_after"]; given {
		text.RefuseAfter = new(time.Duration)
	}
	t.duration("refuse_after", text.RefuseAfter, 0, policy.MaxRefuseAfter)
	t.text("text", "a text", keep(&text.Text))
	if len(t.errs) > before {
		return policy.Rule{}, false
	}
	rule, err := policy.ParseRule(text, v)
	t.refuseRule(err)
	return rule, err == nil
}

// refuseRule shows each finding of policy.ParseRule at the line of its key.
func (t *table) refuseRule(err error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return
	}
	for _, err := range joined.Unwrap() {
		var e *policy.RuleError
		if !errors.As(err, &e) {
			t.fail("", "%v", err)
			continue
		}
		what := e.What
		if e.Fix != "" {
			what += "; " + e.Fix
		}
		t.fail(e.Field, "%s", what)
	}
}

// until reads the last day of a rule.
func (t *table) until(into *time.Time) {
	const key, want = "until", "a date such as 2027-03-31"
	v, ok := t.get(key)
	if !ok {
		return
	}
	switch v := v.(type) {
	case toml.LocalDate:
		*into = policy.EndOfDay(v.Year, time.Month(v.Month), v.Day, time.Local)
	case string:
		d, err := time.Parse(time.DateOnly, strings.TrimSpace(v))
		if err != nil {
			t.fail(key, "%.100q is no date; write %s", v, want)
			return
		}
		*into = policy.EndOfDay(d.Year(), d.Month(), d.Day(), time.Local)
	default:
		t.wrong(key, v, want+", without a time of day: a rule holds through its last day")
	}
}
