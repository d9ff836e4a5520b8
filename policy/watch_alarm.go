package policy

import (
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// certificateAhead is how long before its end a certificate is an alarm.
const certificateAhead = 14 * 24 * time.Hour

// tellAlarms begins and ends the alarms about a destination, after a round. None
// active: its rules do not bind, or are gone.
func (e *Engine) tellAlarms(w *watched, active []claim) {
	e.suspect(w.key, active)
	for i := range active {
		if active[i].standing.Verdict == ReachPositive {
			e.unsuspect(time.Now())
			break
		}
	}
	e.tellLost(w, active)
	e.tellCertificates(w, active)
}

// reviewAlarms has those looked at anew that stand about destinations: other rules hold.
func (e *Engine) reviewAlarms() {
	now := time.Now()
	for _, kind := range []AlarmKind{AlarmTLSLost, AlarmCertificate} {
		for _, key := range e.alarms.subjects(kind) {
			if w := e.watch.all.GetString(key); w != nil {
				e.wake(w, now)
			}
		}
	}
	e.unsuspect(now)
}

func (e *Engine) clearAlarms(w *watched) {
	e.suspect(w.key, nil)
	e.alarms.clear(AlarmTLSLost, w.key)
	e.alarms.clear(AlarmCertificate, w.key)
}

// tellLost: what offered TLS and no longer does. Without an outcome the alarm stays as
// it is.
func (e *Engine) tellLost(w *watched, active []claim) {
	negative, known := (*claim)(nil), len(active) == 0
	for i := range active {
		switch active[i].standing.Verdict {
		case ReachNegative:
			negative = &active[i]
		case ReachPositive:
			known = true
		}
	}
	if negative == nil {
		if known {
			e.alarms.clear(AlarmTLSLost, w.key)
		}
		return
	}
	s := &negative.standing
	last := s.LastSecured
	if last.IsZero() {
		last = w.lastSecured(e)
	}
	if last.IsZero() {
		return
	}
	e.alarms.raise(AlarmTLSLost, w.key, "mail hosts no longer offer the TLS that a rule demands", "rule", negative.rule.Source,
		"level", negative.rule.Line.Level, "seen", seen(s), "tls_last_seen", last.UTC().Format(time.RFC3339),
		"fix", "postseal explain --probe "+w.key+", then call their postmaster")
}

// lastSecured is what was known before this process began; it is asked for once.
func (w *watched) lastSecured(e *Engine) time.Time {
	if !w.recalled && e.secured != nil {
		w.secured = e.secured(w.key)
	}
	w.recalled = true
	return w.secured
}

// tellCertificates: at levels that look at its dates, a certificate about to end. Where a
// host showed none the alarm stays as it is.
func (e *Engine) tellCertificates(w *watched, active []claim) {
	now := time.Now()
	var first *HostReach
	var rule *Rule
	known := true
	for i := range active {
		if l := active[i].rule.Line.Level; l != tlspolicy.Verify && l != tlspolicy.Secure {
			continue
		}
		for j := range active[i].standing.Hosts {
			h := &active[i].standing.Hosts[j]
			known = known && (h.Verdict != ReachUnknown || !h.Expires.IsZero())
			if !h.Expires.IsZero() && h.Expires.Sub(now) <= certificateAhead && (first == nil || h.Expires.Before(first.Expires)) {
				first, rule = h, active[i].rule
			}
		}
	}
	if first == nil {
		if known {
			e.alarms.clear(AlarmCertificate, w.key)
		}
		return
	}
	e.alarms.raise(AlarmCertificate, w.key, "the certificate of a mail host ends soon; then mail that a rule binds waits", "rule", rule.Source,
		"host", first.Host, "expires", first.Expires.UTC().Format(time.RFC3339), "days", int(first.Expires.Sub(now).Hours()/24),
		"fix", "tell their postmaster")
}
