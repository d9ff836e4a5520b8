package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Rule is an operator's rule that demands TLS, as far as it is kept. NewRule makes
// one; it is not changed afterwards.
type Rule struct {
	// ID is the same for rules with the same patterns and level, wherever they stand.
	ID     string `json:"id"`
	Source string `json:"source"` // file and line
	// Match are its patterns, or Sender its classes of senders: the first five.
	Match  []string `json:"match"`
	Sender []string `json:"sender"`
	Level  string   `json:"level"` // with its attributes, as written
	// Unreachable is "queue", "defer" or "refuse".
	Unreachable string    `json:"unreachable"`
	Reason      string    `json:"reason"`
	Until       time.Time `json:"until,omitzero"` // zero: it has no end
}

// NewRule gives a rule its ID and keeps it within limits.
func NewRule(r Rule) *Rule {
	h := sha256.New()
	for _, list := range [][]string{r.Match, r.Sender, {r.Level}} {
		for _, s := range list {
			h.Write([]byte(s + "\x00"))
		}
		h.Write([]byte{1})
	}
	r.ID = hex.EncodeToString(h.Sum(nil)[:8])
	r.Match = slices.Clone(r.Match[:min(len(r.Match), maxPatterns)])
	r.Sender = slices.Clone(r.Sender[:min(len(r.Sender), maxPatterns)])
	r.Reason = clip(r.Reason, maxReason)
	return &r
}

// Host is what was found at a mail host of a destination when it was last asked.
type Host struct {
	Host     string    `json:"host"`
	Port     uint16    `json:"port"`
	Level    string    `json:"level"`            // that was demanded
	Verdict  string    `json:"verdict"`          // "positive", "negative", "unknown"
	Address  string    `json:"address"`          // of the attempt that decided
	At       time.Time `json:"at,omitzero"`      // zero: it was not asked yet
	Offered  bool      `json:"offered"`          // STARTTLS
	Version  string    `json:"version"`          // "TLSv1.3"; empty without a handshake
	Cipher   string    `json:"cipher"`           // the same
	Names    []string  `json:"names"`            // of its certificate, the first twenty
	Expires  time.Time `json:"expires,omitzero"` // the certificate's end; zero without one
	Text     string    `json:"text"`             // one sentence, in Postfix's words
	Cause    string    `json:"cause"`
	Stripped string    `json:"stripped"` // what seems to take STARTTLS out on the way
	// Secured is when the host was last seen to offer what is demanded.
	Secured time.Time `json:"secured,omitzero"`
}

// The verdicts about a Host.
const (
	Positive = "positive"
	Negative = "negative"
	Unknown  = "unknown"
)

// Destination is the evidence about a destination under a rule. One that is under a
// rule for its own sake and under another for the sender's sake has two.
type Destination struct {
	Name string `json:"name"` // as in a key of Postfix: "partner.example"
	Rule Rule   `json:"rule"`
	// Level is what Postfix was told last: a TLS level, or a word for none of its own.
	Level string `json:"level"`
	// Inert says why the rule does not bind, if it does not.
	Inert string `json:"inert"`
	// Hosts are the mail hosts, in the order in which Postfix would try them.
	Hosts      []Host    `json:"hosts"`
	FirstAsked time.Time `json:"first_asked,omitzero"`
	LastAsked  time.Time `json:"last_asked,omitzero"` // at most an hour old while it is asked for
	Changed    time.Time `json:"changed,omitzero"`    // when the evidence last did
	// Secured is when one of its hosts was last seen to offer what is demanded.
	Secured time.Time `json:"secured,omitzero"`
	// Day and DayChanges are the last day with changes, and how many it had.
	Day        string `json:"day"`
	DayChanges int    `json:"day_changes"`
}

// Change is a change of the evidence about a destination, and what it was since.
type Change struct {
	At    time.Time `json:"at"`
	What  []string  `json:"what"` // sentences for people
	Rule  Rule      `json:"rule"`
	Level string    `json:"level"`
	Inert string    `json:"inert"`
	Hosts []Host    `json:"hosts"`
}

// Count is how often recipients of a destination were refused and deferred on one
// day. First and Last are the times of both.
type Count struct {
	Destination string    `json:"destination"`
	Day         string    `json:"day"` // of the machine's local time: "2027-03-31"
	Refused     int       `json:"refused"`
	Deferred    int       `json:"deferred"`
	First       time.Time `json:"first"`
	Last        time.Time `json:"last"`
}

// plus adds what was counted of the same destination, on the same day or a later one.
func (c Count) plus(more Count) Count {
	c.Destination, c.Day = more.Destination, more.Day
	c.Refused, c.Deferred = c.Refused+more.Refused, c.Deferred+more.Deferred
	if c.First.IsZero() || more.First.Before(c.First) {
		c.First = more.First
	}
	if more.Last.After(c.Last) {
		c.Last = more.Last
	}
	return c
}

// dayOf names the day of a time for people at the machine.
func dayOf(t time.Time) string { return t.Local().Format(time.DateOnly) }

// within keeps what was found at a host within limits.
func (h Host) within() Host {
	for _, s := range []*string{&h.Host, &h.Level, &h.Address, &h.Version, &h.Cipher, &h.Text, &h.Cause, &h.Stripped} {
		*s = clip(*s, maxText)
	}
	h.Names = slices.Clone(h.Names[:min(len(h.Names), maxNames)])
	for i := range h.Names {
		h.Names[i] = clip(h.Names[i], maxText)
	}
	h.At, h.Expires, h.Secured = second(h.At), second(h.Expires), second(h.Secured)
	return h
}

// clip cuts a text that is too long, and says so.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// second drops what nobody needs of a time, its place among it.
func second(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}
