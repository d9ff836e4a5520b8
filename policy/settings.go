package policy

import (
	"fmt"
	"time"

	"github.com/postseal/postseal/internal/postfix/tlspolicy"
)

// Mode says what becomes of a mechanism's evidence (CMB-16).
type Mode uint8

// The modes of [dane] and [mta_sts].
const (
	ModeEnforce Mode = iota
	ModeMonitor      // looked up, kept, counted, logged, not answered
	ModeOff          // not looked up
)

// ParseMode reads "enforce", "monitor" or "off".
func ParseMode(text string) (Mode, error) {
	for m, name := range modeNames {
		if text == name {
			return Mode(m), nil
		}
	}
	return 0, fmt.Errorf("mode %q: want \"enforce\", \"monitor\" or \"off\"", text)
}

var modeNames = [...]string{ModeEnforce: "enforce", ModeMonitor: "monitor", ModeOff: "off"}

func (m Mode) String() string { return modeNames[m] }

// ParseFloor reads [tls_policy] floor: "inherit", "dane" or "encrypt".
func ParseFloor(text string) (Floor, error) {
	for f, name := range floorNames {
		if text == name {
			return Floor(f), nil
		}
	}
	return 0, fmt.Errorf("floor %q: want \"inherit\", \"dane\" or \"encrypt\"", text)
}

var floorNames = [...]string{FloorInherit: "inherit", FloorDANE: "dane", FloorEncrypt: "encrypt"}

func (f Floor) String() string { return floorNames[f] }

// Settings are the operator's choices. A new value takes effect at once, for
// what is already remembered too.
type Settings struct {
	Monitor  bool // mode = "monitor": answer as if absent
	Floor    Floor
	DANE     Mode
	STS      Mode
	Rules    *Rules        // nil: none
	Deadline time.Duration // how long an asker waits at most; zero: 5 s
	// References are domains whose mail hosts are asked for TLS when nothing else can
	// show that our own path lets it through: up to MaxReferences.
	References []string
}

// Postfix is what is known of the Postfix that asks. The zero value stands for
// one about which nothing is known and nothing is assumed.
type Postfix struct {
	// Version is the lowest seen in 24 h; unknown counts as older than 3.10.
	Version tlspolicy.Version
	// Main is the level of main.cf (CMB-15).
	Main MainLevel
	// IgnoresPatterns: smtp_tls_enforce_sts_mx_patterns = no.
	IgnoresPatterns bool
	// NoRoots: no trust anchors are configured, every secure destination would
	// be deferred. NoDANE: Postfix cannot do DANE (DANE-053). Both are heeded
	// only until a demand of that kind has been answered once.
	NoRoots, NoDANE bool
}

// mapKind is what a map name of the socketmap stands for (PFX-22).
type mapKind uint8

const (
	mapPostseal mapKind = iota // attributes as the version allows
	mapPlain                   // QUERY, postfix: never attributes
	mapTLSRPT                  // QUERYwithTLSRPT: attributes unless known to be too old
	mapKinds                   // those above share the answer of a destination
	mapEnforced                // mapPostseal where TLS is mandatory: an answer of its own
	mapSender                  // no destination at all, but a sender
)

// MapNames are the map names that are answered about destinations.
var MapNames = [...]string{"postseal", "QUERY", "postfix", "QUERYwithTLSRPT", EnforcedMap}

const (
	// EnforcedMap is for the smtp_tls_policy_maps of a transport by which no mail
	// goes in clear.
	EnforcedMap = "postseal-enforced"
	// SenderMap is for sender_dependent_default_transport_maps.
	SenderMap = "postseal-sender"
	// EnforcedTransport is what SenderMap answers: the name of a service in
	// master.cf, whose smtp_tls_policy_maps is EnforcedMap.
	EnforcedTransport = "enforced"
)

func kindOf(mapName []byte) (mapKind, bool) {
	switch string(mapName) {
	case "postseal":
		return mapPostseal, true
	case "QUERY", "postfix":
		return mapPlain, true
	case "QUERYwithTLSRPT":
		return mapTLSRPT, true
	case EnforcedMap:
		return mapEnforced, true
	case SenderMap:
		return mapSender, true
	}
	return 0, false
}

// column is the place of a kind in a destination's answer.
func (k mapKind) column() mapKind {
	if k == mapEnforced {
		return mapPostseal
	}
	return k
}

// capability says what the Postfix behind a map understands (PFX-22, PFX-23).
func (p Postfix) capability(k mapKind) Capability {
	k = k.column()
	attributes := p.Version.Known && p.Version.STSAttributes()
	if k == mapPlain || k == mapPostseal && !attributes || k == mapTLSRPT && p.Version.Known && !attributes {
		return Plain
	}
	if attributes && p.Version.NarrowsMX() && !p.IgnoresPatterns {
		return Narrowing
	}
	return Attributes
}

// plan is everything but the evidence that an answer depends on. A plan is
// immutable; a new one makes every remembered answer void.
type plan struct {
	Settings
	Postfix
	// suspended: no resolver that may be believed validates.
	suspended bool
	// relaxSTS, relaxDANE: first-run safety is in force.
	relaxSTS, relaxDANE bool
	// watching is for whose sake mail hosts are probed.
	watching watching
}

// patience is how long an asker waits for evidence: the deadline, less what it
// takes to write the answer.
func (p *plan) patience() time.Duration { return p.Deadline - min(reserve, p.Deadline/10) }

// daneFor tells how DANE takes part for a rule's destination: whether it is looked
// up, and whether it counts in the answer.
func (p *plan) daneFor(r *Rule) (looked, counts bool) {
	if r != nil && r.Exempt&ExemptDANE != 0 || p.DANE == ModeOff || p.suspended {
		return false, false
	}
	return true, p.DANE == ModeEnforce && !p.relaxDANE
}

// stsFor tells the same of MTA-STS.
func (p *plan) stsFor(k Key, r *Rule) (looked, counts bool) {
	if r != nil && r.Exempt&ExemptSTS != 0 || p.STS == ModeOff || k.Literal || !canHaveSTS(k.Name) {
		return false, false
	}
	return true, p.STS == ModeEnforce && !p.relaxSTS
}

// options are those of a kind of map, and of mandatory destinations.
func (p *plan) options(k mapKind, mandatory bool) Options {
	if mandatory || k == mapEnforced {
		return Options{Floor: FloorEncrypt, Capability: p.capability(k), Mandatory: true}
	}
	return Options{Floor: p.Floor, Main: p.Main, Capability: p.capability(k)}
}
