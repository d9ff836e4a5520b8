package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/postseal/postseal/internal/ledger"
	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy"
)

// expiresSoon is how early the end of a certificate is told, under a rule that looks
// at certificates.
const expiresSoon = 14 * 24 * time.Hour

// destination reports on one destination under a rule; nil: none is left.
func (rs *enforcedRules) destination(e *ledger.Entry, r *policy.Rule) enforcedDestination {
	d := enforcedDestination{
		Destination: e.Name, Rule: reportRule(&e.Rule, rs.cfg.Mode), Level: e.Level, Hosts: []enforcedHost{},
		Refused: e.Count.Refused, Deferred: e.Count.Deferred, LastTurned: orNull(e.Count.Last),
		FirstAsked: orNull(e.FirstAsked), LastAsked: orNull(e.LastAsked), Changed: orNull(e.Changed), LastSecured: orNull(e.Secured), Changes: []enforcedChange{},
	}
	if r != nil {
		d.Rule = rs.seen[r].ruleReport
	}
	d.Hosts = reportHosts(e.Hosts, rs.now)
	for _, c := range e.Changes {
		d.Changes = append(d.Changes, enforcedChange{c.At, orEmpty(c.What), reportRule(&c.Rule, rs.cfg.Mode), c.Level, c.Inert, reportHosts(c.Hosts, rs.now)})
	}
	d.State, d.Why = rs.stand(e, r)
	if d.State == stateReached && (r.Line.Level == tlspolicy.Verify || r.Line.Level == tlspolicy.Secure) {
		d.tellCertificate(rs.now)
	}
	return d
}

// tellCertificate tells of the certificate that ends first, if that is soon.
func (d *enforcedDestination) tellCertificate(now time.Time) {
	for _, h := range d.Hosts {
		if h.Expires == nil || h.Expires.Sub(now) > expiresSoon || !d.expiringFirst.IsZero() && !h.Expires.Before(d.expiringFirst) {
			continue
		}
		d.expiringFirst = *h.Expires
		d.Why = fmt.Sprintf("the certificate of %s ends in %s; then mail waits", h.Host, span(h.Expires.Sub(now)))
		if h.Expires.Before(now) {
			d.Why = fmt.Sprintf("the certificate of %s ended %s ago: mail waits", h.Host, span(now.Sub(*h.Expires)))
		}
	}
}

func reportHosts(hosts []ledger.Host, now time.Time) []enforcedHost {
	list := make([]enforcedHost, 0, len(hosts))
	for _, h := range hosts {
		r := enforcedHost{Host: h.Host, Port: h.Port, Level: h.Level, Verdict: h.Verdict, Address: h.Address, At: orNull(h.At), StartTLS: h.Offered,
			Version: h.Version, Cipher: h.Cipher, Names: orEmpty(h.Names), Expires: orNull(h.Expires), Text: h.Text, Cause: h.Cause, Stripped: h.Stripped, Secured: orNull(h.Secured)}
		if r.Expires != nil {
			days := int(math.Floor(r.Expires.Sub(now).Hours() / 24))
			r.Days = &days
		}
		list = append(list, r)
	}
	return list
}

// stand says how a destination stands, and why.
func (rs *enforcedRules) stand(e *ledger.Entry, r *policy.Rule) (enforcedState, string) {
	verdict := func(v string) func(ledger.Host) bool {
		return func(h ledger.Host) bool { return h.Verdict == v && !h.At.IsZero() }
	}
	asked := slices.ContainsFunc(e.Hosts, func(h ledger.Host) bool { return !h.At.IsZero() })
	switch {
	case r == nil:
		return stateNoRule, "no rule of the configuration demands TLS of it now"
	case r.Expired(rs.now):
		return stateExpired, "the rule ended with " + lastDay(r.Until)
	case e.Inert != "":
		return stateInert, "the rule does not bind: " + e.Inert
	case rs.mode(r) == policy.ModeMonitor:
		return stateNotHeld, `mode = "monitor" holds the rule back`
	case weaker(e.Level):
		return stateNotHeld, "Postfix was told " + e.Level
	case !asked && r.Unreachable == policy.UnreachableQueue:
		return stateNotProbed, `mail hosts are not asked where unreachable = "queue"; postseal explain --probe does it`
	case !asked:
		return stateNotProbed, "its mail hosts were not asked yet"
	case slices.ContainsFunc(e.Hosts, verdict(ledger.Positive)):
		return stateReached, ""
	case !slices.ContainsFunc(e.Hosts, func(h ledger.Host) bool { return !verdict(ledger.Negative)(h) }):
		return stateUnreachable, "no mail host offers what the rule demands"
	}
	return stateUnknown, "no mail host could be asked to an end"
}
