package socketmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// conn is one connection. Its goroutine alone reads, answers and writes; others
// may only change its state and close it.
type conn struct {
	port     *port
	nc       net.Conn
	serial   uint64 // in the order of arrival; guarded by Server.mu
	opened   time.Time
	requests atomic.Uint64 // answered, not yet added to the Server's count

	// state is the time since opened, in ns, at which the connection became idle,
	// or one of the states below. A connection may be closed from outside only by
	// whoever has changed its state, so that no question is cut off while it is
	// being answered.
	state atomic.Int64

	reading   bool          // a deadline for the rest of a request is set
	writeable time.Duration // since opened: when writes will fail; zero: never
}

// States of a connection that is not idle.
const (
	busy      = -1 - iota // from the first byte of a request to the last of its reply
	leaving               // busy for the last time
	dismissed             // closed from outside
)

// serve answers requests until the peer goes, misbehaves or is dismissed.
//
// A deadline costs more than a map look-up, so none is set as long as whole
// requests come in.
func (c *conn) serve(ctx context.Context) {
	buf := make([]byte, readSize)
	filled := 0 // buf[:filled] was received and not answered
	for {
		if filled == len(buf) {
			// The announced length buys no memory, only bytes that came do.
			buf = append(make([]byte, 0, filled+readGrowth), buf...)
			buf = buf[:cap(buf)]
		}
		n, err := c.nc.Read(buf[filled:])
		if n > 0 {
			if filled == 0 && !c.wake() {
				return
			}
			filled += n
			used, ok := c.answerAll(ctx, buf[:filled])
			if !ok {
				return
			}
			filled = copy(buf, buf[used:filled])
			if !c.between(filled, used) {
				return
			}
			if filled == 0 && len(buf) > readSize {
				buf = make([]byte, readSize)
			}
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.timedOut("the rest of a request did not come in time")
			}
			return
		}
	}
}

// answerAll answers the requests that b holds in full and returns how many bytes
// they took. False: the connection is to be closed.
func (c *conn) answerAll(ctx context.Context, b []byte) (used int, ok bool) {
	for {
		request, size, err := cutNetstring(b[used:], MaxRequest)
		if err != nil {
			c.malformed(err)
			return 0, false
		}
		if size == 0 {
			return used, true
		}
		// PFX-02: only the first space; a key may hold more.
		mapName, key, found := bytes.Cut(request, []byte{' '})
		if !found {
			c.malformed(errNoSpace)
			return 0, false
		}
		if !c.answer(ctx, mapName, key) {
			return 0, false
		}
		used += size
	}
}

// between is called when all that came in full is answered; used bytes of it
// were, and partial bytes of a further request have come. False: the connection
// is to be closed.
func (c *conn) between(partial, used int) bool {
	if partial == 0 {
		if c.reading {
			c.reading = false
			c.nc.SetReadDeadline(time.Time{})
		}
		return c.rest()
	}
	if !c.reading || used > 0 {
		// Once per request: bytes that trickle in do not move it.
		c.reading = true
		c.nc.SetReadDeadline(time.Now().Add(positive(c.port.server.RequestTimeout, DefaultRequestTimeout)))
	}
	return true
}

// answer answers one request. False: the connection is to be closed.
func (c *conn) answer(ctx context.Context, mapName, key []byte) bool {
	s := c.port.server
	f, ok := s.frames.Get().(*frame)
	if !ok {
		f = &frame{}
	}
	payload := c.ask(ctx, f.payload(), mapName, key)
	if err := checkReply(payload); err != nil {
		s.counters.badReplies.Add(1)
		if n, ok := s.counters.badReplyLog.pass(); ok {
			s.log().Error("reply withheld, TEMP sent instead", "map", string(mapName), "key", string(key),
				"error", err, "length", len(payload), "suppressed", n)
		}
		// Never weaker: NOTFOUND could mean plaintext, TEMP keeps the mail.
		payload = AppendTemp(f.payload(), "postseal: reply withheld: "+err.Error())
	}
	c.requests.Add(1) // before the reply is out: whoever has it finds it counted
	err := c.write(f.netstring(payload))
	if cap(f.buf) <= maxKept {
		s.frames.Put(f)
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.timedOut("the reply was not taken in time")
		}
		return false
	}
	return true
}

// ask calls the Handler. A panic is answered too: the peer would otherwise ask
// again and defer the mail without a reason in its log.
func (c *conn) ask(ctx context.Context, dst, mapName, key []byte) (reply []byte) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		s := c.port.server
		s.counters.panics.Add(1)
		if n, ok := s.counters.panicLog.pass(); ok {
			s.log().Error("panic while answering, TEMP sent", "map", string(mapName), "key", string(key),
				"panic", fmt.Sprint(r), "stack", string(debug.Stack()), "suppressed", n)
		}
		reply = AppendTemp(dst[:0], "postseal: internal error, see its log")
	}()
	return c.port.server.Handler.ServeSocketmap(ctx, dst, mapName, key)
}

// write writes a reply. The deadline is moved only when less than WriteTimeout
// is left of it: once in that time, not for every reply.
func (c *conn) write(b []byte) error {
	timeout := positive(c.port.server.WriteTimeout, DefaultWriteTimeout)
	if now := time.Since(c.opened); c.writeable-now < timeout {
		c.writeable = now + 2*timeout
		c.nc.SetWriteDeadline(c.opened.Add(c.writeable))
	}
	_, err := c.nc.Write(b)
	return err
}

// wake makes an idle connection busy. False: it was closed from outside.
func (c *conn) wake() bool {
	since := c.state.Load()
	return since >= 0 && c.state.CompareAndSwap(since, busy)
}

// rest makes a busy connection idle. False: it was told to leave.
func (c *conn) rest() bool {
	return c.state.CompareAndSwap(busy, int64(time.Since(c.opened)))
}

// idle says for how long the connection has been idle, if it is.
func (c *conn) idle() (time.Duration, bool) {
	since := c.state.Load()
	return time.Since(c.opened) - time.Duration(since), since >= 0
}

// evict closes the connection if it has been idle for more than MinIdle.
func (c *conn) evict() bool {
	since := c.state.Load()
	if since < 0 || time.Since(c.opened)-time.Duration(since) <= MinIdle || !c.state.CompareAndSwap(since, dismissed) {
		return false
	}
	c.nc.Close()
	return true
}

// dismiss closes the connection at once if it is idle, else after the answer.
func (c *conn) dismiss() {
	for {
		since := c.state.Load()
		switch {
		case since >= 0 && c.state.CompareAndSwap(since, dismissed):
			c.nc.Close()
			return
		case since == busy && c.state.CompareAndSwap(busy, leaving):
			return
		case since == leaving || since == dismissed:
			return
		}
	}
}

func (c *conn) malformed(err error) {
	s := c.port.server
	s.counters.malformed.Add(1)
	if n, ok := s.counters.malformedLog.pass(); ok {
		s.log().Warn("malformed request, connection closed", "peer", c.nc.RemoteAddr(), "error", err, "suppressed", n)
	}
}

func (c *conn) timedOut(what string) {
	s := c.port.server
	s.counters.timedOut.Add(1)
	if n, ok := s.counters.timedOutLog.pass(); ok {
		s.log().Warn("slow peer, connection closed", "peer", c.nc.RemoteAddr(), "error", what, "suppressed", n)
	}
}
