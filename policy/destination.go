package policy

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postseal/postseal/policy/dane"
)

// The memory of the engine: domains, the keys that are more than a domain, and
// the mail hosts, which many domains share. A name without a policy should cost
// no more than 350 bytes of heap, so times are int64 and what is rare is behind
// a pointer.

// destination is one key and the answer that it got last. The answer is a memo:
// it holds as long as its plan is the engine's and until has not passed.
type destination struct {
	key    string // canonical, Key.String
	answer atomic.Pointer[answer]
	until  atomic.Int64  // Unix nanoseconds
	renew  atomic.Int64  // when a question starts gathering ahead of until; Unix nanoseconds
	asked  atomic.Uint32 // Unix minutes of the last question
	domain *domain       // whose evidence counts; itself for a plain domain
}

// domain is what is known of one policy domain.
type domain struct {
	destination
	mu  sync.Mutex
	sts stsState
	mx  mxState
	// policy is set once a policy or a failure to fetch one is worth keeping.
	policy *policyState
	// daneTrouble says why the MX set is unknown.
	mxTrouble string
}

// flight is one gathering of evidence under way. Its outcome is kept in the
// evidence, not here.
type flight struct {
	done    chan struct{}
	started time.Time
}

// stsState is the outcome of the last look at _mta-sts and the policy host.
type stsState struct {
	until   int64 // Unix nanoseconds; zero: never looked
	outcome stsOutcome
	flight  *flight
}

type stsOutcome uint8

const (
	stsUnknown  stsOutcome = iota
	stsNone                // answered: no record
	stsUnusable            // answered: records of which none can be used
	stsFound               // a record; policyState tells the rest
	stsFailed              // nobody answered
)

func (o stsOutcome) String() string {
	return [...]string{"unknown", "none", "unusable", "found", "failed"}[o]
}

// mxState is a dane.MXSet in less memory.
type mxState struct {
	until  int64 // Unix nanoseconds; zero: never looked
	hosts  []exchanger
	flight *flight
	flags  mxFlags
}

type exchanger struct {
	host       *host
	preference uint16
}

type mxFlags uint8

const (
	mxSecure mxFlags = 1 << iota
	mxImplicit
	mxNull
	mxTruncated
	mxUnproven
	mxFailed
)

// host is one mail host at one port, shared by all whose MX it is.
type host struct {
	name     string
	port     uint16
	mu       sync.Mutex
	until    int64 // Unix nanoseconds
	evidence *dane.Host
	flight   *flight
	used     atomic.Uint32 // Unix minutes
}

// minutes is the clock of "asked" and "used".
func minutes(t time.Time) uint32 { return uint32(t.Unix() / 60) }

// touch notes a question without writing to shared memory more than once a minute.
func (d *destination) touch(now time.Time) {
	if m := minutes(now); d.asked.Load() != m {
		d.asked.Store(m)
	}
}

// current returns the remembered answer if it still holds.
func (d *destination) current(now int64, p *plan) *answer {
	if a := d.answer.Load(); a != nil && a.plan == p && now < d.until.Load() {
		return a
	}
	return nil
}

// remember keeps an answer until a moment. A reader that sees the old answer
// with the new time answers what was true a moment ago.
func (d *destination) remember(a *answer, now, until int64) {
	d.answer.Store(nil)
	d.until.Store(until)
	d.renew.Store(until - min(int64(ahead), (until-now)/4))
	d.answer.Store(a)
}

// protected says that a domain must outlast a flood of unknown names: it holds
// a policy, or work on it is under way (STS-096).
func (d *domain) protected() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sts.flight != nil || d.mx.flight != nil || d.policy != nil && d.policy.kept && d.policy.valid(time.Now())
}

func (d *destination) lastAsked() int64 { return int64(d.asked.Load()) }

// set writes the MX set in the state's own form; hosts come from the table that
// all domains share.
func (s *mxState) set(m dane.MXSet, until int64, intern func(string) *host) {
	s.until = until
	if m.Err != "" {
		s.flags |= mxFailed // what was known stays, for the rules
		return
	}
	s.flags = 0
	for flag, is := range map[mxFlags]bool{
		mxSecure: m.Secure, mxImplicit: m.Implicit, mxNull: m.Null,
		mxTruncated: m.Truncated, mxUnproven: m.Unproven,
	} {
		if is {
			s.flags |= flag
		}
	}
	s.hosts = nil
	if len(m.Hosts) > 0 {
		s.hosts = make([]exchanger, len(m.Hosts))
	}
	for i, x := range m.Hosts {
		s.hosts[i] = exchanger{host: intern(x.Name), preference: x.Preference}
	}
}

// mxSet gives the MX set back; after a failure the one before it. The lock of d is held.
func (d *domain) mxSet() dane.MXSet {
	f := d.mx.flags
	m := dane.MXSet{
		Secure: f&mxSecure != 0, Implicit: f&mxImplicit != 0, Null: f&mxNull != 0,
		Truncated: f&mxTruncated != 0, Unproven: f&mxUnproven != 0,
	}
	for _, x := range d.mx.hosts {
		m.Hosts = append(m.Hosts, dane.Exchanger{Preference: x.preference, Name: x.host.name})
	}
	return m
}

func (h *host) inFlight() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.flight != nil
}

func (h *host) lastUsed() int64 { return int64(h.used.Load()) }

// hostKey is the key of the hosts' memory.
func hostKey(name string, port uint16) string {
	if port == 25 {
		return name
	}
	return name + ":" + strconv.Itoa(int(port))
}
