package socketmap

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/postseal/postseal/internal/server"
)

// Handler answers questions.
//
// ServeSocketmap appends the reply's payload ("OK text", "NOTFOUND ",
// "TEMP reason", see AppendOK and its companions) to dst and returns the extended
// slice. It must not keep dst, mapName or key, which are valid only during the
// call. A map name that it does not know is to be answered with "NOTFOUND ": an
// error would defer all mail.
//
// It is called from many goroutines at once, and must return soon after ctx has
// ended. That happens when the Server closes for good, not when its drain begins.
type Handler interface {
	ServeSocketmap(ctx context.Context, dst, mapName, key []byte) []byte
}

// HandlerFunc is a function that is a Handler.
type HandlerFunc func(ctx context.Context, dst, mapName, key []byte) []byte

// ServeSocketmap calls f.
func (f HandlerFunc) ServeSocketmap(ctx context.Context, dst, mapName, key []byte) []byte {
	return f(ctx, dst, mapName, key)
}

// Server answers questions on any number of listeners. Its fields must not be
// changed once Serve was called. It must not be copied.
type Server struct {
	Handler Handler
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
	// WriteTimeout is the least time that a peer gets to take a reply, which may
	// be as much as twice that; zero: DefaultWriteTimeout.
	WriteTimeout time.Duration
	// Logger gets refusals and mishaps, no questions; nil: nobody does.
	Logger *slog.Logger

	frames sync.Pool // of *frame
	conns  server.Conns

	malformed, timedOut, badReplies, panics server.Mishap
}

// Stats are counts since the first Serve, for metrics.
type Stats struct {
	Conns        int    // open now
	Accepted     uint64 // connections
	Evicted      uint64 // idle connections closed to make room
	Requests     uint64 // answered
	Malformed    uint64 // connections closed because of wrong framing
	TimedOut     uint64 // connections closed because of a slow request or reader
	BadReplies   uint64 // replies of the Handler replaced by TEMP
	Panics       uint64 // of the Handler, answered with TEMP
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
		Malformed:    s.malformed.Count(),
		TimedOut:     s.timedOut.Count(),
		BadReplies:   s.badReplies.Count(),
		Panics:       s.panics.Count(),
		AcceptErrors: n.AcceptErrors,
	}
}

// Conns returns how many connections are being served.
func (s *Server) Conns() int { return s.conns.Len() }

// Serve answers the questions that come in on l, which it closes in the end. It
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
		Name:     "socketmap",
		MaxConns: cmp.Or(max(0, s.MaxConns), DefaultMaxConns),
		MinIdle:  MinIdle,
		Drain:    cmp.Or(s.Drain, DefaultDrain),
		Finish:   finishTimeout,
		Logger:   s.Logger,
		Handle: func(ctx context.Context, c *server.Conn) {
			defer c.End()
			(&conn{Conn: c, server: s}).serve(ctx)
		},
	})
}

// Close ends every Serve at once: without a drain, and without the answers that
// are being waited for. It does not wait for Serve to return. A closed Server
// cannot be used again.
func (s *Server) Close() { s.conns.Close() }
