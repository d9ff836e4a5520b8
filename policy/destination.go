package policy

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postseal/postseal/policy/dane"
)

// The memory of the engine: domains, the keys that are more than a domain or are
// asked for by a transport that enforces TLS, and the mail hosts, which many domains share. A name without a policy should cost
// no more than 350 bytes of heap, so times are int64 and what is rare is behind
// a pointer.

// destination is one key and the answer that it got last.
type destination struct {
	key    string // canonical, Key.String
	memo   atomic.Pointer[memo]
	domain *domain       // whose evidence counts; itself for a plain domain
	asked  atomic.Uint32 // Unix minutes of the last question
	// mandatory: what is asked for through EnforcedMap, with a memo of its own.
	mandatory bool
}

// memo is a remembered answer. It holds as long as its plan is the engine's, the
// domain's evidence is what it rested on, and until has not passed. Answers are
// shared, lifetimes are not: so both stand in one value that never changes.
type memo struct {
	*answer
	until int64        // Unix nanoseconds
	renew atomic.Int64 // when a question starts gathering ahead of until; Unix nanoseconds
	epoch uint32       // of the domain, when the answer was decided
}

// domain is what is known of one policy domain.
type domain struct {
	destination
	mu  sync.Mutex
	sts stsState
	mx  mxState
	// policy is set once there was a policy, or a failure to fetch one.
	policy *policyState
	// trouble says why a look-up failed, nil while none does.
	trouble *trouble
	// changes counts what voids remembered answers before their time: a policy
	// taken into force, restored or forgotten. Changed under mu.
	changes atomic.Uint32
}

func newDomain(name string, asked uint32) *domain {
	d := &domain{}
	d.key, d.domain = name, d
	d.asked.Store(asked)
	return d
}

// trouble keeps the texts of errors, for explain.
type trouble struct{ sts, mx string }

// flight is one gathering of evidence under way. Its outcome is kept in the
// evidence, not here.
type flight struct {
	done    chan struct{}
	started time.Time
}

// stsState is the outcome of the last look at _mta-sts and the policy host.
type stsState struct {
	until   int64 // Unix nanoseconds; zero: never looked
	flight  *flight
	outcome stsOutcome
	again   bool // the last look, ahead of the end of this outcome, failed
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

// exchanger shares the bytes of its name with the host of that name, but does
// not keep the host alive once that was evicted.
type exchanger struct {
	name       string
	preference uint16
}

type mxFlags uint16

const (
	mxSecure mxFlags = 1 << iota
	mxImplicit
	mxNull
	mxNXDomain
	mxTruncated
	mxUnproven
	mxFailed
	mxAgain // the last look-up, ahead of the end of this set, failed
)

// host is one mail host at one port, shared by all whose MX it is.
type host struct {
	name     string
	port     uint16
	mu       sync.Mutex
	until    int64 // Unix nanoseconds
	evidence *dane.Host
	again    string // why the last look-up failed, ahead of the end of evidence
	flight   *flight
	used     atomic.Uint32 // Unix minutes
}

// minutes is the clock of "asked" and "used".
func minutes(t time.Time) uint32 { return uint32(t.Unix() / 60) }

// touch notes a question, for the key and for the domain whose policy it needs,
// without writing to shared memory more than once a minute.
func (d *destination) touch(now time.Time) {
	if m := minutes(now); d.asked.Load() != m {
		d.asked.Store(m)
		d.domain.asked.Store(m)
	}
}

// current returns the remembered answer if it still holds.
func (d *destination) current(now int64, p *plan) *memo {
	m := d.memo.Load()
	if m == nil || m.plan != p || now >= m.until || m.epoch != d.domain.changes.Load() {
		return nil
	}
	return m
}

// remember keeps an answer until a moment, unless what it rests on has changed
// since changes was read. It returns the answer before it.
func (d *destination) remember(a *answer, changes uint32, now, until int64) (before *answer, kept bool) {
	m := &memo{answer: a, until: until, epoch: changes}
	m.renew.Store(until - min(int64(ahead), (until-now)/4))
	d.domain.mu.Lock()
	defer d.domain.mu.Unlock()
	if d.domain.changes.Load() != changes {
		return nil, false
	}
	if old := d.memo.Swap(m); old != nil {
		before = old.answer
	}
	return before, true
}

// protected says that a domain must outlast a flood of unknown names: it holds
// an enforced policy, or work on it is under way (STS-096). It is asked under
// the lock of a shard, so it does not wait: who holds the domain is at work on it.
func (d *domain) protected() bool {
	if !d.mu.TryLock() {
		return true
	}
	defer d.mu.Unlock()
	return d.sts.flight != nil || d.mx.flight != nil || d.policy != nil && d.policy.kept && d.policy.enforced(time.Now())
}

func (d *destination) lastAsked() int64 { return int64(d.asked.Load()) }

// setTrouble keeps the text of an error, or drops it. The lock of d is held.
func (d *domain) setTrouble(which func(*trouble) *string, text string) {
	if d.trouble == nil {
		if text == "" {
			return
		}
		d.trouble = &trouble{}
	}
	if *which(d.trouble) = text; *d.trouble == (trouble{}) {
		d.trouble = nil
	}
}

func stsTrouble(t *trouble) *string { return &t.sts }
func mxTrouble(t *trouble) *string  { return &t.mx }

// troubles gives the texts. The lock of d is held.
func (d *domain) troubles() trouble {
	if d.trouble == nil {
		return trouble{}
	}
	return *d.trouble
}

// set writes the MX set in the state's own form; names come from the table that
// all domains share.
func (s *mxState) set(m dane.MXSet, now, until int64, intern func(string) string) {
	if m.Failure() != "" && s.holds(now) {
		s.flags |= mxAgain
		return
	}
	s.until = until
	if m.Err != "" {
		s.flags = s.flags&^mxAgain | mxFailed // what was known stays, for the rules
		return
	}
	s.flags = 0
	for _, f := range []struct {
		is   bool
		flag mxFlags
	}{{m.Secure, mxSecure}, {m.Implicit, mxImplicit}, {m.Null, mxNull}, {m.NXDomain, mxNXDomain}, {m.Truncated, mxTruncated}, {m.Unproven, mxUnproven}} {
		if f.is {
			s.flags |= f.flag
		}
	}
	s.hosts = nil
	if len(m.Hosts) > 0 {
		s.hosts = make([]exchanger, len(m.Hosts))
	}
	for i, x := range m.Hosts {
		s.hosts[i] = exchanger{name: intern(x.Name), preference: x.Preference}
	}
}

// holds tells whether the set is known and its time is not up: then a look-up that
// fails does not end it.
func (s *mxState) holds(now int64) bool { return now < s.until && s.flags&(mxFailed|mxUnproven) == 0 }

// mxSet gives the MX set back; after a failure the one before it. The lock of d is held.
func (d *domain) mxSet() dane.MXSet {
	f := d.mx.flags
	m := dane.MXSet{
		Secure: f&mxSecure != 0, Implicit: f&mxImplicit != 0, Null: f&mxNull != 0, NXDomain: f&mxNXDomain != 0,
		Truncated: f&mxTruncated != 0, Unproven: f&mxUnproven != 0,
	}
	for _, x := range d.mx.hosts {
		m.Hosts = append(m.Hosts, dane.Exchanger{Preference: x.preference, Name: x.name})
	}
	return m
}

// set keeps what was found about a host. A look-up that failed does not end
// evidence whose time is not up.
func (h *host) set(found *dane.Host, now time.Time, ttl time.Duration) {
	if found.Status == dane.Failed && h.evidence != nil && h.evidence.Status != dane.Failed && now.UnixNano() < h.until {
		h.again = found.Err
		return
	}
	h.evidence, h.until, h.again = found, now.Add(ttl).UnixNano(), ""
}

func (h *host) inFlight() bool {
	if !h.mu.TryLock() {
		return true
	}
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
