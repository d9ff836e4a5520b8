package server

import (
	"net"
	"sync/atomic"
	"time"
)

// Conn is one connection. One goroutine at a time owns it and alone reads, writes and
// calls Wake, Rest, Send and End; others may only close it.
type Conn struct {
	net.Conn
	// Requests and Repeated count what was answered, and what of it from memory.
	// They are kept per connection, so that the processors do not fight over one.
	Requests, Repeated atomic.Uint64

	port   *port
	serial uint64 // in the order of arrival; guarded by Conns.mu
	opened time.Time

	// state is the time since opened, in ns, at which the connection became idle,
	// or one of the states below. A connection may be closed from outside only by
	// whoever has changed its state, so that nothing is cut off while it is being
	// answered.
	state atomic.Int64

	writeable time.Duration // since opened: when writes will fail; zero: never
	sent      time.Duration // since opened: when the last Send began, if it was after the last Wake
}

// States of a connection that is not idle.
const (
	busy      = -1 - iota
	leaving   // busy for the last time
	dismissed // closed from outside
)

// NewConn returns an idle connection that is none of any Conns: a protocol can be
// tested on it, but it must not be ended or held.
func NewConn(nc net.Conn) *Conn { return &Conn{Conn: nc, opened: time.Now()} }

// Wake makes an idle connection busy. False: it was not idle, or was closed from
// outside.
func (c *Conn) Wake() bool {
	c.sent = 0
	since := c.state.Load()
	return since >= 0 && c.state.CompareAndSwap(since, busy)
}

// Rest makes a busy connection idle. False: it is to be closed, or was. It counts as
// idle from its last Send on: to look at the clock again costs as much as a look-up.
func (c *Conn) Rest() bool {
	since := c.sent
	if since == 0 {
		since = time.Since(c.opened)
	}
	return c.state.CompareAndSwap(busy, int64(since)) || c.state.Load() >= 0
}

// Send writes b. The peer gets timeout at least to take it, and twice as much at most:
// the deadline is moved only when less than timeout is left of it, once in that time
// and not for every reply, since that costs more than a map look-up.
func (c *Conn) Send(b []byte, timeout time.Duration) error {
	c.sent = time.Since(c.opened)
	if c.writeable-c.sent < timeout {
		c.writeable = c.sent + 2*timeout
		c.SetWriteDeadline(c.opened.Add(c.writeable))
	}
	_, err := c.Write(b)
	return err
}

// End closes the connection and makes room for another one.
func (c *Conn) End() {
	c.Close()
	c.port.all.leave(c)
}

// Hold makes Serve wait for one more goroutine, until that calls Release. It is called
// by, or for, a goroutine that Serve waits for already.
func (c *Conn) Hold() { c.port.running.Add(1) }

// Release ends what Hold began.
func (c *Conn) Release() { c.port.running.Done() }

// idle says for how long the connection has been idle, if it is.
func (c *Conn) idle() (time.Duration, bool) {
	since := c.state.Load()
	return time.Since(c.opened) - time.Duration(since), since >= 0
}

// evict closes the connection if it has been idle for more than minIdle.
func (c *Conn) evict(minIdle time.Duration) bool {
	since := c.state.Load()
	if since < 0 || time.Since(c.opened)-time.Duration(since) <= minIdle || !c.state.CompareAndSwap(since, dismissed) {
		return false
	}
	c.Close()
	return true
}

// dismiss closes the connection at once if it is idle, else when it comes to rest.
func (c *Conn) dismiss() {
	for {
		since := c.state.Load()
		switch {
		case since >= 0 && c.state.CompareAndSwap(since, dismissed):
			c.Close()
			return
		case since == busy && c.state.CompareAndSwap(busy, leaving):
			return
		case since == leaving || since == dismissed:
			return
		}
	}
}
