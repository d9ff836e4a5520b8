package resolver

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// State says what is known of a server's validation; the package comment has
// the transitions.
type State uint8

// The states of a server.
const (
	Untrusted State = iota // its AD bit does not count
	Unknown                // it counts, but has not been seen yet
	Proven
	Suspended
)

// String gives the state in lower case.
func (s State) String() string {
	return [...]string{"untrusted", "unknown", "proven", "suspended"}[s]
}

// MarshalText is String, for JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// server is one name server. It outlives a change of configuration that does
// not concern it.
type server struct {
	addr    netip.AddrPort
	text    string
	trusted bool
	probe   Probe
	sockets sockets

	state atomic.Uint32
	// silences counts time-outs since the last reply.
	silences atomic.Int32
	// behind is when the server takes its place again, Unix nanoseconds.
	behind atomic.Int64
	// probed is closed when the first probe was answered or failed.
	probed     chan struct{}
	probedOnce sync.Once

	mu        sync.Mutex
	misses    int // answers in a row to the probe without AD
	lastProbe time.Time
	lastErr   string
}

func newServer(addr netip.AddrPort, trusted bool, probe Probe) *server {
	s := &server{addr: addr, text: addr.String(), trusted: trusted, probe: probe, probed: make(chan struct{})}
	// Nobody off the host can send to its loopback addresses, so only there may a
	// source port be used twice (RFC 5452 §9.2).
	s.sockets.addr, s.sockets.reuse = addr, addr.Addr().IsLoopback()
	switch {
	case trusted && probe == Probe{}:
		s.state.Store(uint32(Proven))
	case trusted:
		s.state.Store(uint32(Unknown))
	}
	if !s.mustProbe() {
		s.markProbed()
	}
	return s
}

func (s *server) is() State       { return State(s.state.Load()) }
func (s *server) mustProbe() bool { return s.trusted && s.probe != Probe{} }
func (s *server) markProbed()     { s.probedOnce.Do(func() { close(s.probed) }) }

// sawAnswer takes note of an answer to an ordinary question; changed says that
// the server has proved itself by it.
func (s *server) sawAnswer(ad bool) (changed bool) {
	s.sawReply()
	return ad && s.is() == Unknown && s.state.CompareAndSwap(uint32(Unknown), uint32(Proven))
}

// sawProbe takes note of an answer to the probe. Again asks for the second of
// two probes: one answer without AD settles nothing.
func (s *server) sawProbe(ad bool, at time.Time) (changed, again bool) {
	s.sawReply()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastProbe, s.lastErr = at, ""
	if ad {
		s.misses = 0
		return State(s.state.Swap(uint32(Proven))) != Proven, false
	}
	s.misses++
	if s.lastErr = "answered the probe without AD"; s.misses < 2 {
		return false, true
	}
	return State(s.state.Swap(uint32(Suspended))) != Suspended, false
}

func (s *server) sawReply() {
	if s.silences.Load() != 0 {
		s.silences.Store(0)
	}
	if s.behind.Load() != 0 {
		s.behind.Store(0)
	}
}

// sawFailure takes note of a question that the server did not answer.
func (s *server) sawFailure(err error, at time.Time) {
	if errors.Is(err, ErrTimeout) && !errors.Is(err, ErrTruncated) {
		s.silences.Add(1)
	} else {
		s.silences.Store(0)
	}
	s.behind.Store(at.Add(failedFor).UnixNano())
	s.mu.Lock()
	s.lastErr = err.Error()
	s.mu.Unlock()
}

// The tiers of servers: one is left for the next only after all its rounds.
const (
	tierTrusted = iota
	tierOther
	tierDown
)

// place says where the server stands now: its tier, and its rank there.
func (s *server) place(now int64) (tier, rank int) {
	until := s.behind.Load()
	failed := until > now
	if s.silences.Load() >= downAfter {
		// When the time is up, one question, not all of them, tries it again.
		if failed || !s.behind.CompareAndSwap(until, now+int64(failedFor)) {
			return tierDown, 0
		}
	}
	tier = tierOther
	switch s.is() {
	case Proven:
		tier = tierTrusted
	case Unknown:
		tier, rank = tierTrusted, 2
	}
	if failed {
		rank++
	}
	return tier, rank
}

// probeFailed takes note of a probe that nobody answered: neither the state nor
// the count of answers without AD changes.
func (s *server) probeFailed(err error, at time.Time) {
	s.sawFailure(err, at)
	s.mu.Lock()
	s.lastProbe = at
	s.mu.Unlock()
}
