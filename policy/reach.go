package policy

import (
	"context"
	"net/netip"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
	"github.com/postseal/postseal/policy/dane"
)

// Unreachable says what becomes of a recipient whose mail hosts do not offer what
// a rule demands.
type Unreachable uint8

// The values of the rule's key.
const (
	UnreachableQueue  Unreachable = iota // Postfix holds the mail and tries again
	UnreachableDefer                     // 4xx at RCPT
	UnreachableRefuse                    // 5xx at RCPT, after Rule.RefuseAfter
)

// DefaultRefuseAfter is the default of Rule.RefuseAfter.
const DefaultRefuseAfter = time.Hour

// Reach finds out whether mail hosts really offer what is demanded of them.
type Reach interface {
	// Probe connects to the hosts about which nothing fresh is known, with anew to
	// all, and sums up. It may take minutes.
	Probe(ctx context.Context, hosts []Demand, anew bool) Standing
	// Standing sums up what is known. It asks nobody.
	Standing(hosts []Demand) Standing
}

// Demand is a mail host of a destination and what is demanded of it.
type Demand struct {
	Host      string // canonical, without a trailing dot
	Port      uint16
	Addresses []netip.Addr
	Nexthop   string // the destination without brackets and port
	// Line is the level with its attributes, as Postfix would be told.
	Line tlspolicy.Line
	// DANE is what is known of the host's TLSA records; nil: nothing.
	DANE *dane.Host
	// SecureMX: the host is named by a validated MX set.
	SecureMX bool
}

// ReachVerdict says whether Postfix would deliver to a host.
type ReachVerdict uint8

// The verdicts. Negative is only what the host said itself: EHLO without STARTTLS,
// or a completed handshake that fails the level. Doubt is unknown.
const (
	ReachUnknown ReachVerdict = iota
	ReachPositive
	ReachNegative
)

func (v ReachVerdict) String() string {
	return [...]string{"unknown", "positive", "negative"}[v]
}

// Standing is how the mail hosts of a destination stand together. Times are zero
// where there is none.
type Standing struct {
	Verdict ReachVerdict // negative: every host is
	Hosts   []HostReach  // in the order asked for
	// LastSecured is when TLS as demanded was last seen at one of the hosts.
	LastSecured time.Time
	// FirstNegative is since when all have been negative without a break, and
	// LastNegative how new the oldest of the last results is.
	FirstNegative, LastNegative time.Time
	// OtherPositive is when TLS as demanded was last seen at a host that is none of
	// these: without it our own path may be at fault.
	OtherPositive time.Time
}

// HostReach is what was found at one mail host.
type HostReach struct {
	Host     string       `json:"host"`
	Port     uint16       `json:"port"`
	Level    string       `json:"level"` // that was demanded
	Verdict  ReachVerdict `json:"-"`
	Address  string       `json:"address"` // of the attempt that decided
	At       time.Time    `json:"at"`
	Offered  bool         `json:"offered"` // STARTTLS
	Version  string       `json:"version"` // as Postfix logs it: "TLSv1.3"; empty without a handshake
	Cipher   string       `json:"cipher"`
	Trust    string       `json:"trust"`   // Anonymous, Untrusted, Trusted, Verified; empty without a handshake
	Names    []string     `json:"names"`   // of the host's certificate
	Expires  time.Time    `json:"expires"` // its end; zero without one
	Text     string       `json:"text"`    // one sentence, in Postfix's words
	Cause    string       `json:"cause"`
	Stripped string       `json:"stripped"` // what seems to take STARTTLS out on the way
}

// Observer is told what happens to destinations under a rule that demands TLS. Its
// methods are called from many goroutines and must not wait.
type Observer interface {
	// Answered: a destination's answer was decided. Level is as in Decision.Level.
	Answered(destination string, r *Rule, level string)
	// Reached: its mail hosts were probed for the rule.
	Reached(destination string, r *Rule, s Standing)
}
