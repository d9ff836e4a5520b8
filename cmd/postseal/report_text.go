package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// maxListed is how many such rules the text lists; --json has them all.
const maxListed = 20

// writeText is the page for people.
func (r *enforcedReport) writeText(w io.Writer) error {
	p := &page{w: w}
	p.line("Destinations that rules demand TLS of, since %s: %s", r.Since.Format("2006-01-02 15:04"), r.sum())
	for _, l := range strings.Split(wrap(proves, 100), "\n") {
		p.line("%s", l)
	}
	for _, warning := range r.Warnings {
		p.line("  ! %s", warning)
	}
	for i := range r.Destinations {
		p.line("")
		p.enforced(&r.Destinations[i], r.At)
	}
	p.otherRules(r.Rules, r.At)
	return p.err
}

// sum counts the states.
func (r *enforcedReport) sum() string {
	if len(r.Destinations) == 0 {
		return "none"
	}
	counts := map[enforcedState]int{}
	for i := range r.Destinations {
		counts[r.Destinations[i].State]++
	}
	var parts []string
	for _, s := range enforcedStates {
		if n := counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return fmt.Sprintf("%d (%s)", len(r.Destinations), strings.Join(parts, ", "))
}

func (p *page) enforced(d *enforcedDestination, now time.Time) {
	state := string(d.State)
	if d.State.finding() {
		state = strings.ToUpper(state)
	}
	if d.Why != "" {
		state += ": " + d.Why
	}
	p.line("%s: %s", d.Destination, state)
	if d.Rule.Level != "" {
		p.item("rule", "%s, unreachable = %q", d.Rule.head(), d.Rule.Unreachable)
	}
	if d.Rule.Reason != "" {
		p.item("reason", "%s", oneLine(d.Rule.Reason))
	}
	switch {
	case d.Level != "":
		p.item("answered", "%s", d.Level)
	case len(d.Rule.Sender) > 0:
		p.item("answered", "at least encrypt, by way of the transport for this class of senders")
	default:
		p.item("answered", "nothing yet")
	}
	for i := range d.Hosts {
		name := "mail host"
		if i > 0 {
			name = ""
		}
		p.item(name, "%s", d.Hosts[i].line(now))
		if h := &d.Hosts[i]; h.Stripped != "" {
			p.item("", "  STARTTLS seems to be taken out on the way: %s", oneLine(h.Stripped))
		}
	}
	turned := ""
	if d.LastTurned != nil {
		turned = ", the last " + ago(d.LastTurned, now)
	}
	p.item("at RCPT", "%d refused, %d deferred%s", d.Refused, d.Deferred, turned)
	p.item("evidence", "changed %s, last asked for %s", ago(d.Changed, now), ago(d.LastAsked, now))
}

// line says in one line what was found at a mail host.
func (h *enforcedHost) line(now time.Time) string {
	where := fmt.Sprintf("%s[%s]:%d", h.Host, h.Address, h.Port)
	if h.At == nil {
		return h.Host + ": not asked yet"
	}
	text := fmt.Sprintf("%s: %s %s", where, h.Verdict, ago(h.At, now))
	if h.Version != "" {
		text += ", " + h.Version + " " + h.Cipher
	}
	if h.Verdict != "positive" {
		text += ", " + oneLine(strings.TrimSuffix(h.Text+": "+h.Cause, ": "))
		if h.Secured != nil {
			text += ", last good " + ago(h.Secured, now)
		}
	}
	if h.Days != nil {
		text += fmt.Sprintf("; certificate %s, %d days left", oneLine(few(h.Names)), *h.Days)
	}
	return text
}

// otherRules lists the rules that no destination shown is under, and those that do not bind.
func (p *page) otherRules(rules []enforcedRule, now time.Time) {
	listed := 0
	order := []string{ruleInert, ruleExpired, ruleQuiet, ruleUnused, ruleSenders}
	worst := slices.SortedStableFunc(slices.Values(rules), func(a, b enforcedRule) int {
		return cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State))
	})
	for _, r := range worst {
		if r.State == ruleInUse {
			continue
		}
		if listed++; listed > maxListed {
			continue
		}
		if listed == 1 {
			p.line("")
			p.line("Rules that do not bind, and those that nothing above is under:")
		}
		state := r.State
		switch {
		case r.State == ruleQuiet:
			state = "no mail to it in this time, the last " + ago(r.LastAsked, now)
		case r.State == ruleExpired:
			state = "expired with " + lastDay(*r.Until) + " and ignored"
		case r.State == ruleInert:
			state = "INERT: " + r.Why
		case r.State == ruleSenders:
			state += ": encrypt wherever their mail goes"
		}
		p.line("  %s: %s", r.head(), state)
	}
	if listed > maxListed {
		p.line("  and %d more; --json lists them", listed-maxListed)
	}
}

// head names a rule: level, patterns, place.
func (r *ruleReport) head() string {
	what := "for " + few(r.Match)
	if len(r.Sender) > 0 {
		what = "for mail of " + few(r.Sender)
	}
	return fmt.Sprintf("%s %s (%s)", r.Level, what, r.Source)
}

// few lists a few of many.
func few(list []string) string {
	const most = 3
	if len(list) == 0 {
		return "without names"
	}
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:most], ", ") + ", …"
}

// ago writes how long ago a time was.
func ago(t *time.Time, now time.Time) string {
	if t == nil {
		return "never"
	}
	return span(max(0, now.Sub(*t))) + " ago"
}

// oneLine keeps line ends and control characters of others out of the page.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }), " ")
}

// wrap breaks a text into lines of at most so many characters.
func wrap(text string, most int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		switch {
		case column == 0:
		case column+1+len(word) > most:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
