package server

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// port is one listener and the connections that came in through it.
type port struct {
	Config
	all      *Conns
	listener net.Listener
	life     context.Context // for Handle
	stop     chan struct{}   // closed when nothing more is to be accepted
	running  sync.WaitGroup  // the connections' goroutines
}

// accept takes connections until the listener is closed or broken; only the
// latter returns an error.
func (p *port) accept() error {
	var backoff time.Duration
	failures := 0
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
			p.all.acceptErrors.Add(1)
			if failures++; failures == 1 {
				p.Logger.Error("cannot accept connections, trying again", "listener", p.listener.Addr(), "error", err)
			}
			backoff = min(max(2*backoff, minBackoff), maxBackoff)
			select {
			case <-time.After(backoff):
			case <-p.stop:
				return nil
			}
			continue
		}
		if failures > 0 {
			p.Logger.Info("accepting connections again", "listener", p.listener.Addr(), "failures", failures)
			failures, backoff = 0, 0
		}
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

// admit starts to serve nc, as soon as there is room for it; until then the
// listener's backlog waits. False: the port was stopped meanwhile.
func (p *port) admit(nc net.Conn) bool {
	c := NewConn(nc)
	c.port = p
	told := false
	for {
		ok, changed := p.all.enter(c, p.MaxConns)
		if ok {
			break
		}
		evicted, again := p.makeRoom()
		if evicted {
			continue
		}
		if !told {
			told = true
			p.Logger.Warn("all connections are in use, the next ones wait", "listener", p.listener.Addr(), "connections", p.all.Len())
		}
		select {
		case <-changed:
		case <-again:
		case <-p.stop:
			nc.Close()
			return false
		}
	}
	p.all.accepted.Add(1)
	p.running.Go(func() { p.Handle(p.life, c) })
	return true
}

// makeRoom closes the connection that has been idle longest. False: none has been idle
// for more than MinIdle, and again tells when that may have changed.
func (p *port) makeRoom() (evicted bool, again <-chan time.Time) {
	if p.MinIdle <= 0 {
		return false, nil
	}
	longest, idle := p.all.longestIdle()
	switch {
	case longest == nil:
		// Who is busy now cannot have been idle for MinIdle before that.
		return false, time.After(p.MinIdle)
	case idle <= p.MinIdle:
		return false, time.After(p.MinIdle - idle + time.Millisecond)
	}
	if longest.evict(p.MinIdle) {
		p.all.evicted.Add(1)
		p.all.leave(longest)
	}
	return true, nil
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
func (p *port) drained() <-chan struct{} {
	s := p.all
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &drain{until: s.serial, left: len(s.conns), gone: make(chan struct{})}
	if d.left == 0 {
		close(d.gone)
	} else {
		s.drains = append(s.drains, d)
	}
	p.Logger.Debug("draining", "connections", d.left, "at_most", p.Drain)
	return d.gone
}

// finish closes the port's connections: idle ones after Grace, others when they come
// to rest, all after Finish or when the Conns are closed. It returns when their
// goroutines have ended.
func (p *port) finish(cancel context.CancelFunc) {
	gone := make(chan struct{})
	go func() {
		p.running.Wait()
		close(gone)
	}()
	for _, step := range []struct {
		after time.Duration
		end   func(*Conn)
		then  func()
	}{
		{p.Grace, (*Conn).dismiss, func() {}},
		// The context last: what a Handler says because it ended is no answer.
		{p.Finish, func(c *Conn) { c.Close() }, cancel},
	} {
		select {
		case <-gone:
			return
		case <-time.After(step.after):
		case <-p.all.closed():
		}
		for _, c := range p.conns() {
			step.end(c)
		}
		step.then()
	}
	<-gone
}

// conns returns the port's connections.
func (p *port) conns() []*Conn {
	s := p.all
	s.mu.Lock()
	defer s.mu.Unlock()
	var mine []*Conn
	for c := range s.conns {
		if c.port == p {
			mine = append(mine, c)
		}
	}
	return mine
}
