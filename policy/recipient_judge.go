package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// How old evidence may be for a recipient to be refused because of it.
const (
	negativeLasts = 30 * time.Minute // the oldest of the last results, every host's
	positiveLasts = time.Hour        // of some other host, which clears our own path

	maxSeen = 160 // bytes of RecipientVerdict.Seen; a reply has 512 in all (RFC 5321 §4.5.3.1.5)
)

// The doubts that do not depend on anything else.
const (
	doubtOld       = "the mail hosts were last looked at more than 30 minutes ago"
	doubtPath      = "no other mail host has shown TLS within the hour: the fault may be on our own path"
	doubtRoutes    = "where Postfix hands the mail is being found out anew"
	doubtMonitored = `the rule has mode = "monitor"`
)

// judge holds how the mail hosts of a destination stand against a rule, at a moment.
// It is pure. Doubt passes: mail that waits can still be delivered, mail that was
// refused cannot.
func judge(r *Rule, s *Standing, now time.Time) RecipientVerdict {
	if !r.watched() {
		return RecipientVerdict{}
	}
	v := RecipientVerdict{Rule: r}
	switch {
	case s.Verdict != ReachNegative:
		return v
	case age(s.LastNegative, now) > negativeLasts:
		v.Doubt = doubtOld
		return v
	case s.OtherPositive.IsZero() || age(s.OtherPositive, now) > positiveLasts:
		v.Doubt = doubtPath
		return v
	}
	action := RecipientDefer
	// Two negative results at least, of every address: one can be the moment at which
	// a host was between two configurations.
	if r.Unreachable == UnreachableRefuse && now.Sub(s.FirstNegative) >= r.RefuseAfter && s.LastNegative.After(s.FirstNegative) {
		action = RecipientRefuse
	}
	if r.Monitor {
		v.Withheld, v.Doubt = action, doubtMonitored
		return v
	}
	v.Action = action
	return v
}

// age is how old evidence of a moment is at most. One of the clocks stands still while
// the machine sleeps, and the other one can be set back: the one that says more counts.
func age(t, now time.Time) time.Duration {
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

// watched tells whether mail hosts are probed for the rule's sake.
func (r *Rule) watched() bool {
	return r != nil && r.Unreachable != UnreachableQueue && r.Demands()
}

// anotherAt is when the mail hosts must be probed once more for UnreachableRefuse to
// act: when RefuseAfter has passed, and not just after the probe before. Zero: the
// evidence suffices, or is none.
func anotherAt(r *Rule, s *Standing) time.Time {
	if r.Unreachable != UnreachableRefuse || s.Verdict != ReachNegative {
		return time.Time{}
	}
	over := s.FirstNegative.Add(r.RefuseAfter)
	if s.LastNegative.After(s.FirstNegative) && !s.LastNegative.Before(over) {
		return time.Time{}
	}
	if soon := s.LastNegative.Add(probeAgain); over.Before(soon) {
		return soon
	}
	return over
}

// seen tells in one line what was seen of the mail hosts, in Postfix's words; empty
// unless all are negative.
func seen(s *Standing) string {
	if s.Verdict != ReachNegative || len(s.Hosts) == 0 {
		return ""
	}
	h := &s.Hosts[0] // the most preferred one
	text := h.Text
	if h.Cause != "" {
		_, cause, numbered := strings.Cut(h.Cause, ":") // "num=62:hostname mismatch"
		if !numbered || !strings.HasPrefix(h.Cause, "num=") {
			cause = h.Cause
		}
		if h.Level == tlspolicy.Fingerprint.String() {
			cause = "it is not the certificate that was agreed upon" // OpenSSL speaks of TLSA records there
		}
		text += ": " + cause
	}
	if !strings.Contains(text, h.Host) {
		text = fmt.Sprintf("%s[%s]: %s", h.Host, h.Address, text)
	}
	more := ""
	if n := len(s.Hosts); n > 1 {
		more = fmt.Sprintf(" (first of %d mail hosts)", n)
	}
	return clipped(text, maxSeen-len(more)) + more
}

// clipped cuts a text that is too long, and keeps what a reply cannot hold out of it.
func clipped(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	if len(text) > most {
		text = text[:most-1] + "~"
	}
	return text
}
