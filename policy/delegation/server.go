package delegation

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/postseal/postseal/internal/server"
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

	memory    memory
	lateCalls atomic.Int64 // of the Handler past their deadline
	conns     server.Conns

	malformed, timedOut, late, overloaded, badActions, panics server.Mishap
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

// Stats returns the counts.
func (s *Server) Stats() Stats {
	n := s.conns.Stats()
	return Stats{
		Conns:        n.Conns,
		Accepted:     n.Accepted,
		Evicted:      n.Evicted,
		Requests:     n.Requests,
		Repeated:     n.Repeated,
		Malformed:    s.malformed.Count(),
		TimedOut:     s.timedOut.Count(),
		Late:         s.late.Count(),
		Overloaded:   s.overloaded.Count(),
		BadActions:   s.badActions.Count(),
		Panics:       s.panics.Count(),
		AcceptErrors: n.AcceptErrors,
	}
}

// Conns returns how many connections are being served.
func (s *Server) Conns() int { return s.conns.Len() }

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
	return s.conns.Serve(ctx, l, server.Config{
		Name:     "delegation",
		MaxConns: cmp.Or(max(0, s.MaxConns), DefaultMaxConns),
		MinIdle:  MinIdle,
		Drain:    cmp.Or(s.Drain, DefaultDrain),
		Finish:   finishTimeout,
		Logger:   s.Logger,
		Handle: func(ctx context.Context, c *server.Conn) {
			(&conn{Conn: c, server: s, life: ctx}).run(nil)
		},
	})
}

// Close ends every Serve at once: without a drain, and without the answers that
// are being waited for. It does not wait for Serve to return. A closed Server
// cannot be used again.
func (s *Server) Close() { s.conns.Close() }
