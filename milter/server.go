package milter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	wire "github.com/emersion/go-milter"
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

	mu       sync.Mutex
	conns    map[*conn]struct{}
	changed  chan struct{} // closed when a connection goes; nil: nobody waits
	done     chan struct{} // closed by Close; nil: nobody asked yet
	isClosed bool

	accepted, panics atomic.Uint64
}

// Stats are counts since the first Serve, for metrics.
type Stats struct {
	Conns    int    // open now
	Accepted uint64 // connections
	Panics   uint64 // of ours, after which the message went on unjudged
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Conns: len(s.conns), Accepted: s.accepted.Load(), Panics: s.panics.Load()}
}

// Serve answers the connections that come in on l, which it closes in the end.
//
// When ctx ends nothing more is accepted. Connections without a message in flight
// are closed after a few seconds, the others when their message has got its reply,
// at the latest after Drain. An error means that l cannot accept any more; lack of
// descriptors or memory is no such error, it is waited out.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// A message that is being judged may finish its look-ups while draining.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	p := &port{server: s, listener: l, life: life, stop: make(chan struct{})}
	accepted := make(chan error, 1)
	go func() { accepted <- p.accept() }()

	var err error
	select {
	case <-ctx.Done():
	case <-s.closed():
	case err = <-accepted:
		accepted = nil
	}
	close(p.stop)
	l.Close()
	if accepted != nil {
		<-accepted
	}
	p.finish(cancel)
	if err != nil {
		return fmt.Errorf("milter: listener %s: %w", l.Addr(), err)
	}
	return nil
}

// Close ends every Serve at once, without waiting for messages in flight. It does
// not wait for Serve to return. A closed Server cannot be used again.
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

// port is one listener of a Server.
type port struct {
	server   *Server
	listener net.Listener
	life     context.Context
	stop     chan struct{} // closed when nothing more is to be accepted
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// accept takes connections until the listener is closed or broken; only the
// latter returns an error.
func (p *port) accept() error {
	var backoff time.Duration
	for {
		nc, err := p.listener.Accept()
		select {
		case <-p.stop:
			if err == nil {
				nc.Close()
			}
			return nil
		default:
		}
		if err != nil {
			if !temporary(err) {
				return err
			}
			if backoff == 0 {
				p.server.log().Error("cannot accept connections, trying again", "listener", p.listener.Addr(), "error", err)
			}
			backoff = min(max(2*backoff, minBackoff), maxBackoff)
			select {
			case <-time.After(backoff):
			case <-p.stop:
				return nil
			}
			continue
		}
		backoff = 0
		if !p.admit(nc) {
			return nil
		}
	}
}

// temporary says whether accept(2) may succeed later. Linux passes on errors of
// the network that are already pending on the new connection; its manual page
// says to treat them as EAGAIN.
func temporary(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains([]syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.EAGAIN, syscall.EINTR, syscall.EPERM, syscall.EPROTO,
		syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
	}, errno)
}

// admit serves a connection as soon as there is room. False: the port was stopped
// meanwhile.
func (p *port) admit(nc net.Conn) bool {
	c := p.server.newConn(nc)
	told := false
	for {
		ok, changed := p.enter(c)
		if ok {
			break
		}
		if !told {
			told = true
			p.server.log().Warn("all connections are in use, the next ones wait", "listener", p.listener.Addr(), "connections", p.server.Stats().Conns)
		}
		select {
		case <-changed:
		case <-p.stop:
			nc.Close()
			return false
		}
	}
	p.server.accepted.Add(1)
	p.running.Go(func() {
		defer p.leave(c)
		p.serve(c)
	})
	return true
}

// serve lets go-milter answer one connection. It gets a server of its own for it:
// what is negotiated may change with a reload, its accept loop ends at the first
// error, and its Close races with it.
func (p *port) serve(c *conn) {
	actions := p.server.Inspector.actions()
	b := &session{inspector: p.server.Inspector, conn: c, server: p.server, life: p.life, headers: actions&wire.OptAddHeader != 0}
	w := wire.Server{
		NewMilter: func() wire.Milter { return b },
		Actions:   actions,
		Protocol:  protocol,
		SymList:   macroList,
	}
	_ = w.Serve(&single{conn: c}) // only ever says that there is no second connection
	<-c.finished
	b.gone()
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

func (p *port) enter(c *conn) (ok bool, changed <-chan struct{}) {
	s := p.server
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
		s.conns = map[*conn]struct{}{}
	}
	s.conns[c] = struct{}{}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		p.conns = map[*conn]struct{}{}
	}
	p.conns[c] = struct{}{}
	return true, nil
}

func (p *port) leave(c *conn) {
	s := p.server
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// finish waits for the connections of the port.
func (p *port) finish(cancel context.CancelFunc) {
	gone := make(chan struct{})
	go func() {
		p.running.Wait()
		close(gone)
	}()
	drain := p.server.Drain
	if drain == 0 {
		drain = DefaultDrain
	}
	for _, step := range []struct {
		after time.Duration
		end   func(*conn)
	}{
		{min(idleGrace, drain), (*conn).dismiss},
		{max(0, drain-idleGrace), func(c *conn) { cancel(); c.Conn.Close() }},
	} {
		select {
		case <-gone:
			return
		case <-time.After(step.after):
		case <-p.server.closed():
		}
		p.mu.Lock()
		for c := range p.conns {
			step.end(c)
		}
		p.mu.Unlock()
	}
	<-gone
}

func (s *Server) log() *slog.Logger {
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger
}
