package delegation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Handler decides about requests.
//
// ServePolicy must not keep r nor what its methods return, which are valid only
// during the call, and must not keep ctx. It is called from many goroutines at once.
//
// It must return soon after ctx has ended. That happens at the deadline, when Postfix
// has got its DUNNO; what is returned afterwards can only answer a repeated
// request. It happens too when the Server closes for good, not when its drain
// begins.
type Handler interface {
	ServePolicy(ctx context.Context, r *Request) Action
}

// HandlerFunc is a function that is a Handler.
type HandlerFunc func(ctx context.Context, r *Request) Action

// ServePolicy calls f.
func (f HandlerFunc) ServePolicy(ctx context.Context, r *Request) Action { return f(ctx, r) }

// Server answers requests on any number of listeners. Its fields must not be changed
// once Serve was called. It must not be copied.
type Server struct {
	Handler Handler
	// Deadline is how long the Handler may take; zero: DefaultDeadline. Then DUNNO
	// is sent.
	Deadline time.Duration
	// MaxConns is how many connections are served at once, over all listeners;
	// zero: DefaultMaxConns. One more per listener is accepted and waits until
	// another one has gone, or may be closed (MinIdle).
	MaxConns int
	// Drain is how long Serve goes on accepting and answering at most after its
	// context has ended; zero: DefaultDrain. Negative: not at all.
	Drain time.Duration
	// RequestTimeout bounds the time between the first byte of a request and its
	// last; zero: DefaultRequestTimeout. There is no limit between requests.
	RequestTimeout time.Duration
	// WriteTimeout is the least time that a peer gets to take an answer, which may
	// be as much as twice that; zero: DefaultWriteTimeout.
	WriteTimeout time.Duration
	// Logger gets mishaps, no requests; nil: nobody does.
	Logger *slog.Logger

	replies  sync.Pool // of *[]byte
	memory   memory
	late     atomic.Int64 // calls of the Handler past their deadline
	counters counters

	mu       sync.Mutex
	conns    map[*conn]struct{}
	serial   uint64        // of the youngest connection
	drains   []*drain      // of the Serve calls whose context has ended
	changed  chan struct{} // closed when a connection goes; nil: nobody waits
	done     chan struct{} // closed by Close; nil: nobody asked yet
	isClosed bool
}

// Stats are counts since the first Serve, for metrics.
type Stats struct {
	Conns        int    // open now
	Accepted     uint64 // connections
	Evicted      uint64 // idle connections closed to make room
	Requests     uint64 // answered, in whatever way
	Repeated     uint64 // answered from memory
	Malformed    uint64 // requests answered with DUNNO, or connections closed
	TimedOut     uint64 // connections closed because of a slow request or reader
	Late         uint64 // answered with DUNNO because the Handler was late
	Overloaded   uint64 // answered with DUNNO because MaxLate calls were late
	BadActions   uint64 // of the Handler, answered with DUNNO
	Panics       uint64 // of the Handler, answered with DUNNO if it was in time
	AcceptErrors uint64 // temporary ones
}

type counters struct {
	accepted, evicted, requests, repeated, malformed, timedOut, late, overloaded, badActions, panics, acceptErrors atomic.Uint64

	malformedLog, timedOutLog, lateLog, overloadedLog, badActionLog, panicLog throttle
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	requests, repeated, open := s.counters.requests.Load(), s.counters.repeated.Load(), len(s.conns)
	for c := range s.conns {
		// Kept per connection, so that the processors do not fight over one.
		requests += c.requests.Load()
		repeated += c.repeated.Load()
	}
	s.mu.Unlock()
	n := &s.counters
	return Stats{
		Conns:        open,
		Accepted:     n.accepted.Load(),
		Evicted:      n.evicted.Load(),
		Requests:     requests,
		Repeated:     repeated,
		Malformed:    n.malformed.Load(),
		TimedOut:     n.timedOut.Load(),
		Late:         n.late.Load(),
		Overloaded:   n.overloaded.Load(),
		BadActions:   n.badActions.Load(),
		Panics:       n.panics.Load(),
		AcceptErrors: n.acceptErrors.Load(),
	}
}

// Conns returns how many connections are being served.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Serve answers the requests that come in on l, which it closes in the end. It
// may be called for several listeners at once.
//
// When ctx ends, Serve goes on until all the connections that the Server had at
// that moment, on whatever listener, are gone, or Drain has passed. Then it
// closes l and its idle connections, gives the others a few seconds to get the
// answer that they wait for, and returns nil. Close cuts all that short.
//
// An error means that l cannot accept any more. Lack of descriptors or memory is
// no such error; it is waited out.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// The Handler must be able to answer while draining.
	handlerCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	p := &port{server: s, listener: l, ctx: handlerCtx, stop: make(chan struct{})}

	accepted := make(chan error, 1)
	go func() { accepted <- p.accept() }()

	var err error
	select {
	case <-ctx.Done():
		select {
		case <-s.drained():
		case <-time.After(max(0, positive(s.Drain, DefaultDrain))):
		case <-s.closed():
		case err = <-accepted:
			accepted = nil
		}
	case <-s.closed():
	case err = <-accepted:
		accepted = nil
	}

	close(p.stop)
	closeErr := l.Close()
	if accepted != nil {
		// An accept that failed because of the line above is no error.
		<-accepted
		if errors.Is(closeErr, net.ErrClosed) {
			closeErr = nil
		}
		err = closeErr
	}
	p.finish(cancel)
	if err != nil {
		return fmt.Errorf("delegation: listener %s: %w", l.Addr(), err)
	}
	return nil
}

// Close ends every Serve at once: without a drain, and without the answers that
// are being waited for. It does not wait for Serve to return. A closed Server
// cannot be used again.
func (s *Server) Close() {
	done := s.closed()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isClosed {
		s.isClosed = true
		close(done)
	}
}

// closed returns the channel that Close closes.
func (s *Server) closed() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
	}
	return s.done
}

// drain waits for the connections up to a serial number.
type drain struct {
	until uint64
	left  int
	gone  chan struct{} // closed when none is left
}

// drained returns a channel that is closed when all connections that are open
// now have gone. It is the same connections on every listener: were one of them
// closed earlier than the others, its peers would be refused while we still run.
func (s *Server) drained() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &drain{until: s.serial, left: len(s.conns), gone: make(chan struct{})}
	if d.left == 0 {
		close(d.gone)
	} else {
		s.drains = append(s.drains, d)
	}
	s.log().Debug("draining", "connections", d.left, "at_most", max(0, positive(s.Drain, DefaultDrain)))
	return d.gone
}

// enter makes c one of the connections if there is room. Otherwise it returns a
// channel that is closed when one of them goes.
func (s *Server) enter(c *conn) (ok bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := s.MaxConns
	if limit <= 0 {
		limit = DefaultMaxConns
	}
	if len(s.conns) >= limit {
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		return false, s.changed
	}
	if s.conns == nil {
		s.conns = make(map[*conn]struct{})
	}
	s.serial++
	c.serial = s.serial
	s.conns[c] = struct{}{}
	return true, nil
}

// leave takes c out of the connections. It may be called twice.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	s.counters.requests.Add(c.requests.Swap(0))
	s.counters.repeated.Add(c.repeated.Swap(0))
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	kept := s.drains[:0]
	for _, d := range s.drains {
		if c.serial <= d.until {
			d.left--
		}
		if d.left > 0 {
			kept = append(kept, d)
		} else {
			close(d.gone)
		}
	}
	clear(s.drains[len(kept):])
	s.drains = kept
}

// longestIdle returns the connection that has been idle longest, and for how
// long; nil when none is idle.
func (s *Server) longestIdle() (longest *conn, idle time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if d, ok := c.idle(); ok && (longest == nil || d > idle) {
			longest, idle = c, d
		}
	}
	return longest, idle
}

func (s *Server) log() *slog.Logger {
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger
}

// positive returns d, or def for zero.
func positive(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// throttle lets a log line pass once per logInterval and counts the others.
type throttle struct {
	mu         sync.Mutex
	last       time.Time
	suppressed int
}

// pass says whether the line may be logged, and how many were not since the last.
func (t *throttle) pass() (suppressed int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if !t.last.IsZero() && now.Sub(t.last) < logInterval {
		t.suppressed++
		return 0, false
	}
	suppressed, t.suppressed, t.last = t.suppressed, 0, now
	return suppressed, true
}
