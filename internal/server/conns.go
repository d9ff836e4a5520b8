package server

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

// Config is what a server decides about its connections.
type Config struct {
	// Name is the protocol's, with which errors begin.
	Name string
	// MaxConns is how many connections are served at once, over all listeners. One
	// more per listener is accepted and waits.
	MaxConns int
	// MinIdle is how long a connection must have been idle before it may be closed
	// to make room; zero: none is.
	MinIdle time.Duration
	// Drain is how long connections are accepted and answered at most after the
	// context of Serve has ended; not above zero: not at all.
	Drain time.Duration
	// Grace is how long idle connections are left alone after the drain.
	Grace time.Duration
	// Finish is how long busy connections get after that.
	Finish time.Duration
	// Logger gets mishaps; nil: nobody does.
	Logger *slog.Logger
	// Handle serves a connection, in a goroutine of its own. Its context ends when
	// Finish has passed or the Conns are closed, not when the drain begins. Handle,
	// or the goroutine that it leaves the connection to, calls Conn.End in the end.
	Handle func(context.Context, *Conn)
}

// Conns are the connections of a server, over all its listeners. The zero value is
// ready for use. It must not be copied.
type Conns struct {
	accepted, evicted, acceptErrors, requests, repeated atomic.Uint64

	mu       sync.Mutex
	conns    map[*Conn]struct{}
	serial   uint64        // of the youngest connection
	drains   []*drain      // of the Serve calls whose context has ended
	changed  chan struct{} // closed when a connection goes; nil: nobody waits
	done     chan struct{} // closed by Close; nil: nobody asked yet
	isClosed bool
}

// Stats are counts since the first Serve.
type Stats struct {
	Conns        int    // open now
	Accepted     uint64 // connections
	Evicted      uint64 // idle connections closed to make room
	AcceptErrors uint64 // temporary ones
	Requests     uint64 // sum of Conn.Requests
	Repeated     uint64 // sum of Conn.Repeated
}

// Stats returns the counts.
func (s *Conns) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := Stats{
		Conns:        len(s.conns),
		Accepted:     s.accepted.Load(),
		Evicted:      s.evicted.Load(),
		AcceptErrors: s.acceptErrors.Load(),
		Requests:     s.requests.Load(),
		Repeated:     s.repeated.Load(),
	}
	for c := range s.conns {
		n.Requests += c.Requests.Load()
		n.Repeated += c.Repeated.Load()
	}
	return n
}

// Len returns how many connections are open.
func (s *Conns) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Serve serves the connections that come in on l, which it closes in the end. It may
// be called for several listeners at once, with the same Config.
//
// When ctx ends, Serve goes on until all the connections that there were at that
// moment, on whatever listener, are gone, or Drain has passed. Then it closes l, after
// Grace its idle connections, after Finish the others, and returns nil. Close cuts all
// that short.
//
// An error means that l cannot accept any more. Lack of descriptors or memory is no
// such error; it is waited out.
func (s *Conns) Serve(ctx context.Context, l net.Listener, config Config) error {
	// Requests must be answered while draining.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	p := &port{Config: config, all: s, listener: l, life: life, stop: make(chan struct{})}

	accepted := make(chan error, 1)
	go func() { accepted <- p.accept() }()

	var err error
	select {
	case <-ctx.Done():
		if p.Drain <= 0 {
			break // nothing more is accepted
		}
		select {
		case <-p.drained():
		case <-time.After(p.Drain):
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
		if !errors.Is(closeErr, net.ErrClosed) {
			err = closeErr
		}
	}
	p.finish(cancel)
	if err != nil {
		return fmt.Errorf("%s: listener %s: %w", p.Name, l.Addr(), err)
	}
	return nil
}

// Close ends every Serve at once: without a drain, and without what busy connections
// are waiting for. It does not wait for Serve to return. Closed Conns cannot be used
// again.
func (s *Conns) Close() {
	done := s.closed()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isClosed {
		s.isClosed = true
		close(done)
	}
}

// closed returns the channel that Close closes.
func (s *Conns) closed() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
	}
	return s.done
}

// enter makes c one of the connections if there are fewer than limit. Otherwise it
// returns a channel that is closed when one of them goes.
func (s *Conns) enter(c *Conn, limit int) (ok bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= limit {
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		return false, s.changed
	}
	if s.conns == nil {
		s.conns = make(map[*Conn]struct{})
	}
	s.serial++
	c.serial = s.serial
	s.conns[c] = struct{}{}
	return true, nil
}

// leave takes c out of the connections. It may be called twice.
func (s *Conns) leave(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	s.requests.Add(c.Requests.Swap(0))
	s.repeated.Add(c.Repeated.Swap(0))
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

// longestIdle returns the connection that has been idle longest, and for how long;
// nil when none is idle.
func (s *Conns) longestIdle() (longest *Conn, idle time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if d, ok := c.idle(); ok && (longest == nil || d > idle) {
			longest, idle = c, d
		}
	}
	return longest, idle
}
