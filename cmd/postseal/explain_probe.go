package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postseal/postseal/policy"
)

// recipient tells what RCPT is answered because of the rule.
func (p *page) recipient(x policy.Explanation) {
	r := x.Recipient
	p.item("RCPT", "%s", r.Summary())
	if r.Seen != "" {
		p.item("", "%s", r.Seen)
	}
	for _, t := range []struct {
		what string
		at   *time.Time
	}{{"without what the rule demands since", r.FirstNegative}, {"last seen so", r.LastNegative}, {"TLS as demanded last seen", r.LastSecured}} {
		if t.at != nil {
			p.item("", "%s %s ago", t.what, span(x.At.Sub(*t.at)))
		}
	}
}

// probe tells what the mail hosts showed.
func (p *page) probe(x policy.Explanation) {
	r := x.Probe
	p.line("")
	p.line("Probed for %s: %s", r.Line, probeVerdict(r))
	if r.Error != "" {
		p.line("  ! no mail host could be probed: %s", r.Error)
	}
	for _, w := range r.Warnings {
		p.line("  ! %s", w)
	}
	for _, h := range r.Hosts {
		p.line("")
		p.hostProbe(h)
	}
}

func probeVerdict(r *policy.ProbeExplanation) string {
	text := map[string]string{
		"positive": "Postfix would deliver", "negative": "Postfix would not deliver: no mail host offers that", "unknown": "it cannot be told whether Postfix would deliver",
	}[r.Verdict]
	level, _, _ := strings.Cut(r.Line, " ")
	if level == "encrypt" || r.Error != "" {
		return text
	}
	return text + map[string]string{"positive": "; encrypt would do", "negative": "; encrypt would not do", "unknown": "; encrypt: not known"}[r.Encrypt]
}

func (p *page) hostProbe(h policy.HostProbe) {
	address := ""
	if h.Address != "" {
		address = "[" + h.Address + "]"
	}
	p.line("  %s%s:%d: %s", h.Host, address, h.Port, map[string]string{"positive": "would do", "negative": "would not do", "unknown": "not known"}[h.Verdict])
	p.item("said", "%s", h.Text)
	if h.Cause != "" {
		p.item("", "%s", h.Cause)
	}
	if h.Version == "" && (h.Offered || h.Encrypt == policy.ReachNegative.String()) {
		p.item("STARTTLS", "%s", map[bool]string{true: "offered", false: "not offered"}[h.Offered])
	}
	if h.Version != "" {
		p.item("TLS", "%s with cipher %s, certificate %s", h.Version, h.Cipher, strings.ToLower(h.Trust))
	}
	if h.Days != nil {
		names := orDash(strings.Join(h.Names, " "))
		switch days := *h.Days; {
		case days < 0:
			p.item("certificate", "%s; ended on %s", names, h.Expires.Format(time.DateOnly))
		default:
			p.item("certificate", "%s; ends in %s", names, count(days, "day", "days"))
		}
	}
	if h.Stripped != "" {
		p.item("stripped", "%s", h.Stripped)
	}
}

// ownPath is what several destinations tell together: where none of them offers TLS,
// it is hardly all of them that are at fault. It is told in each of them too.
func ownPath(all []policy.Explanation) string {
	var probed []*policy.ProbeExplanation
	stripped := ""
	for i := range all {
		p := all[i].Probe
		if p == nil || len(p.Hosts) == 0 {
			continue
		}
		if p.Encrypt != policy.ReachNegative.String() {
			return ""
		}
		probed = append(probed, p)
		if s := p.Hosts[0].Stripped; stripped == "" {
			stripped = s
		}
	}
	if len(probed) < 2 {
		return ""
	}
	text := fmt.Sprintf("none of the %d destinations offers TLS: it is probably a box on our own path that takes STARTTLS out", len(probed))
	if stripped != "" {
		text += "; " + stripped
	}
	for _, p := range probed {
		p.Warnings = append(p.Warnings, text)
	}
	return text
}

// probeFinding is the exit code of a probe: fine when each destination has a mail host
// that would do.
func probeFinding(all []policy.Explanation) error {
	var bad []string
	for _, x := range all {
		if x.Probe != nil && x.Probe.Verdict != policy.ReachPositive.String() {
			bad = append(bad, x.Key)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &exitError{exitFindings, errors.New("no mail host was seen that would do: " + strings.Join(bad, ", "))}
}
