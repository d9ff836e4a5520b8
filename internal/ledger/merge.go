package ledger

import (
	"fmt"
	"slices"
	"time"
)

// event is what was told about a destination since the last write.
type event struct {
	rule    *Rule
	level   string    // empty: no answer was decided
	asked   time.Time // zero: the same
	first   time.Time // when it was asked first since the last write
	probed  bool
	hosts   []Host
	secured time.Time
	inert   *string   // nil: not looked at
	at      time.Time // of the newest of all this
}

// over puts an event over an older one.
func (e event) over(old event) event {
	if e.rule == nil {
		e.rule = old.rule
	}
	if e.asked.IsZero() {
		e.level, e.asked = old.level, old.asked
	}
	if !old.first.IsZero() {
		e.first = old.first
	}
	if !e.probed {
		e.probed, e.hosts = old.probed, old.hosts
	}
	e.secured = latest(e.secured, old.secured)
	if e.inert == nil {
		e.inert = old.inert
	}
	e.at = latest(e.at, old.at)
	return e
}

// with puts an event into the evidence. The change is nil when the evidence says
// what it said before, or when the day has had too many.
func (d Destination) with(e event) (Destination, *Change) {
	var what []string
	tell := func(format string, args ...any) { what = append(what, fmt.Sprintf(format, args...)) }
	began := d.FirstAsked.IsZero() && d.Changed.IsZero()
	if e.rule != nil {
		if !began && d.Rule.ID != e.rule.ID {
			tell("the rule is another: %s, it was %s", e.rule.Level, d.Rule.Level)
		}
		if d.Rule.Level != e.rule.Level {
			d.Secured = time.Time{} // another level was offered
		}
		d.Rule = *e.rule
	}
	if !e.asked.IsZero() {
		if !began && d.Level != e.level {
			tell("answered %s, before %s", e.level, orNothing(d.Level))
		}
		d.Level = e.level
		d.LastAsked = latest(d.LastAsked, second(e.asked))
		if d.FirstAsked.IsZero() {
			d.FirstAsked = second(e.first)
		}
	}
	if e.inert != nil && d.Inert != *e.inert {
		d.Inert = *e.inert
		if d.Inert == "" {
			tell("the rule binds again")
		} else {
			tell("the rule does not bind: %s", d.Inert)
		}
	}
	if e.probed {
		hosts := mergeHosts(d.Hosts, e.hosts)
		what = append(what, compareHosts(d.Hosts, hosts)...)
		d.Hosts = hosts
		d.Secured = latest(d.Secured, second(e.secured))
		for _, h := range hosts {
			d.Secured = latest(d.Secured, h.Secured)
		}
	}
	if began {
		what = append([]string{"first evidence"}, what...)
	}
	if len(what) == 0 {
		return d, nil
	}
	d.Changed = second(e.at)
	if day := dayOf(e.at); d.Day != day {
		d.Day, d.DayChanges = day, 0
	}
	d.DayChanges++
	if d.DayChanges > maxChanges {
		return d, nil
	}
	return d, &Change{At: d.Changed, What: what, Rule: d.Rule, Level: d.Level, Inert: d.Inert, Hosts: d.Hosts}
}

// mergeHosts is the new list of hosts. What was found at a host that was not asked
// this time stays.
func mergeHosts(before, now []Host) []Host {
	hosts := make([]Host, 0, min(len(now), maxHosts))
	for _, h := range now[:min(len(now), maxHosts)] {
		h = h.within()
		if old := find(before, h); old != nil {
			if h.At.IsZero() || h.At.Before(old.At) {
				h = *old
			}
			h.Secured = latest(h.Secured, old.Secured)
		}
		if h.Verdict == Positive {
			h.Secured = latest(h.Secured, h.At)
		}
		hosts = append(hosts, h)
	}
	return hosts
}

// find finds a host about which the same was demanded.
func find(all []Host, h Host) *Host {
	for i := range all {
		if all[i].Host == h.Host && all[i].Port == h.Port && all[i].Level == h.Level {
			return &all[i]
		}
	}
	return nil
}

// compareHosts says what is new. The address that decided and the time are no news.
func compareHosts(before, now []Host) []string {
	var what []string
	for _, h := range now {
		old := find(before, h)
		switch {
		case h.At.IsZero():
		case old == nil || old.At.IsZero():
			what = append(what, fmt.Sprintf("%s: %s", h.Host, h.found()))
		default:
			what = append(what, h.news(*old)...)
		}
	}
	for _, old := range before {
		if !slices.ContainsFunc(now, func(h Host) bool { return h.Host == old.Host && h.Port == old.Port }) {
			what = append(what, old.Host+": no mail host any more")
		}
	}
	return what
}

// news says what differs from what was found before.
func (h Host) news(old Host) []string {
	var what []string
	switch {
	case h.Verdict != old.Verdict || h.Offered != old.Offered:
		what = append(what, fmt.Sprintf("%s: %s; it was %s", h.Host, h.found(), old.Verdict))
	case h.Version != old.Version || h.Cipher != old.Cipher:
		what = append(what, fmt.Sprintf("%s: %s %s, before %s %s", h.Host, h.Version, h.Cipher, old.Version, old.Cipher))
	case h.Text != old.Text || h.Cause != old.Cause || h.Stripped != old.Stripped:
		what = append(what, fmt.Sprintf("%s: %s", h.Host, h.found()))
	}
	if h.Version != "" && old.Version != "" && (!h.Expires.Equal(old.Expires) || !slices.Equal(h.Names, old.Names)) {
		what = append(what, fmt.Sprintf("%s: another certificate, until %s", h.Host, h.Expires.Format(time.DateOnly)))
	}
	return what
}

// found says in a few words what was found.
func (h Host) found() string {
	if h.Verdict == Positive && h.Version != "" {
		return Positive + ", " + h.Version + " " + h.Cipher
	}
	if h.Text == "" {
		return h.Verdict
	}
	return h.Verdict + ", " + h.Text
}

func orNothing(level string) string {
	if level == "" {
		return "nothing"
	}
	return level
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
