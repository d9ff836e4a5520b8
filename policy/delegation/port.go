package delegation

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// port is one listener of a Server and the connections that came in through it.
type port struct {
	server   *Server
	listener net.Listener
	ctx      context.Context // for the Handler
	stop     chan struct{}   // closed when nothing more is to be accepted
	running  sync.WaitGroup  // the connections' goroutines, and those of late calls
}

// accept takes connections until the listener is closed or broken; only the
// latter returns an error.
func (p *port) accept() error {
	s := p.server
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
			s.counters.acceptErrors.Add(1)
			if failures++; failures == 1 {
				s.log().Error("cannot accept connections, trying again", "listener", p.listener.Addr(), "error", err)
			}
			backoff = min(max(2*backoff, minBackoff), maxBackoff)
			if !p.sleep(backoff) {
				return nil
			}
			continue
		}
		if failures > 0 {
			s.log().Info("accepting connections again", "listener", p.listener.Addr(), "failures", failures)
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
	s := p.server
	c := &conn{port: p, nc: nc, opened: time.Now()}
	told := false
	for {
		ok, changed := s.enter(c)
		if ok {
			break
		}
		// A connection that is busy now cannot be idle for MinIdle before that.
		wait := MinIdle
		if longest, idle := s.longestIdle(); longest != nil {
			if idle > MinIdle {
				if longest.evict() {
					s.counters.evicted.Add(1)
					s.leave(longest)
				}
				continue
			}
			wait = MinIdle - idle + time.Millisecond
		}
		if !told {
			told = true
			s.log().Warn("all connections are in use, the next ones wait", "listener", p.listener.Addr(), "connections", s.Conns())
		}
		select {
		case <-changed:
		case <-time.After(wait):
		case <-p.stop:
			nc.Close()
			return false
		}
	}
	s.counters.accepted.Add(1)
	p.running.Add(1)
	go c.run(nil)
	return true
}

// sleep waits for d. False: the port was stopped meanwhile.
func (p *port) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-p.stop:
		return false
	}
}

// finish closes the port's connections: idle ones at once, others when they have
// got their answer, all after finishTimeout or when the Server is closed. It
// returns when their goroutines have ended.
func (p *port) finish(cancel context.CancelFunc) {
	for _, c := range p.conns() {
		c.dismiss()
	}
	gone := make(chan struct{})
	go func() {
		p.running.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return
	case <-time.After(finishTimeout):
	case <-p.server.closed():
	}
	cancel()
	for _, c := range p.conns() {
		c.nc.Close()
		c.abort()
	}
	<-gone
}

// conns returns the port's connections.
func (p *port) conns() []*conn {
	s := p.server
	s.mu.Lock()
	defer s.mu.Unlock()
	var mine []*conn
	for c := range s.conns {
		if c.port == p {
			mine = append(mine, c)
		}
	}
	return mine
}
