package milter

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	wire "github.com/emersion/go-milter"

	"github.com/postseal/postseal/internal/server"
)

// Server speaks the milter protocol with Postfix on any number of listeners. Its
// fields must not be changed once Serve was called. It must not be copied.
type Server struct {
	Inspector *Inspector
	// MaxConns is how many connections are served at once, over all listeners;
	// zero: DefaultMaxConns. Further ones wait until another has gone.
	MaxConns int
	// Drain is how long messages in flight get at most after the context of Serve
	// has ended; zero: DefaultDrain.
	Drain time.Duration
	// Logger gets the mishaps of connections; nil: nobody does.
	Logger *slog.Logger

	conns  server.Conns
	panics atomic.Uint64
}

// Stats are counts since the first Serve, for metrics.
type Stats struct {
	Conns    int    // open now
	Accepted uint64 // connections
	Panics   uint64 // of ours, after which the message went on unjudged
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	n := s.conns.Stats()
	return Stats{Conns: n.Conns, Accepted: n.Accepted, Panics: s.panics.Load()}
}

// Serve answers the connections that come in on l, which it closes in the end.
//
// When ctx ends nothing more is accepted. Connections without a message in flight
// are closed after a few seconds, the others when their message has got its reply,
// at the latest after Drain. An error means that l cannot accept any more; lack of
// descriptors or memory is no such error, it is waited out.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	drain := cmp.Or(s.Drain, DefaultDrain)
	return s.conns.Serve(ctx, l, server.Config{
		Name:     "milter",
		MaxConns: cmp.Or(max(0, s.MaxConns), DefaultMaxConns),
		Grace:    min(idleGrace, drain),
		Finish:   max(0, drain-idleGrace),
		Logger:   s.Logger,
		Handle:   s.handle,
	})
}

// Close ends every Serve at once, without waiting for messages in flight. It does
// not wait for Serve to return. A closed Server cannot be used again.
func (s *Server) Close() { s.conns.Close() }

// handle lets go-milter answer one connection. It gets a server of its own for it:
// what is negotiated may change with a reload, its accept loop ends at the first
// error, and its Close races with it.
func (s *Server) handle(life context.Context, nc *server.Conn) {
	defer nc.End()
	c := newConn(nc)
	actions := s.Inspector.actions()
	b := &session{inspector: s.Inspector, conn: c, server: s, life: life, headers: actions&wire.OptAddHeader != 0}
	w := wire.Server{
		NewMilter: func() wire.Milter { return b },
		Actions:   actions,
		Protocol:  protocol,
		SymList:   macroList,
	}
	_ = w.Serve(&single{conn: c}) // only ever says that there is no second connection
	<-c.finished
}

// single is a listener with one connection.
type single struct {
	conn  *conn
	given bool
}

func (l *single) Accept() (net.Conn, error) {
	if l.given {
		return nil, net.ErrClosed
	}
	l.given = true
	return l.conn, nil
}

func (l *single) Close() error   { return nil }
func (l *single) Addr() net.Addr { return l.conn.LocalAddr() }

func (s *Server) log() *slog.Logger {
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger
}
