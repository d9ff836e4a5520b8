package delegation

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/postseal/postseal/internal/server"
)

// conn is one connection. One goroutine at a time owns it and alone reads, answers and
// writes. It is busy from the first byte of a request to the last of its answer.
type conn struct {
	*server.Conn
	server  *Server
	life    context.Context // of the connection: ends when no answer can leave any more
	unwatch func() bool     // life, whose end is the end of the running call too

	call  atomic.Pointer[call] // the one that is running
	timer *time.Timer          // calls expire
	armed atomic.Bool          // whether it will

	buf     []byte
	filled  int // buf[:filled] was received and not answered
	scanned int // buf[:scanned] holds no end of a request
	skipped int // bytes of a request beyond MaxRequest that were let go

	reading bool // a deadline for the rest of a request is set
}

// run serves the connection and ends it, unless a late call takes it over. With a
// late call it takes the connection over itself.
func (c *conn) run(late *call) {
	ours := true
	defer func() { // also when the Handler ends the goroutine
		if ours {
			c.unwatch()
			c.timer.Stop()
			c.End()
		}
	}()
	if late == nil {
		c.prepare()
		ours = c.serve()
	} else {
		ours = c.resume(late)
	}
}

func (c *conn) prepare() {
	c.buf = make([]byte, readSize)
	c.timer = time.AfterFunc(time.Hour, c.expire)
	c.timer.Stop()
	c.unwatch = context.AfterFunc(c.life, c.abort)
}

// resume answers a late call and goes on with what came after its request, in a buffer
// of its own: the Handler still reads in the other one.
func (c *conn) resume(k *call) (ours bool) {
	c.buf = make([]byte, max(readSize, len(k.rest)+readGrowth))
	c.filled, c.scanned = copy(c.buf, k.rest), 0
	if !c.send([]byte(dunnoReply)) {
		return true
	}
	more, ours := c.answerAll()
	if !more || !c.between(true) {
		return ours
	}
	return c.serve()
}

// serve answers requests until the peer goes, misbehaves or is dismissed. False: the
// connection belongs to another goroutine.
//
// A deadline costs more than a map look-up, so none is set as long as whole
// requests come in.
func (c *conn) serve() (ours bool) {
	for {
		if c.filled == len(c.buf) {
			c.buf = append(make([]byte, 0, c.filled+readGrowth), c.buf...)
			c.buf = c.buf[:cap(c.buf)]
		}
		n, err := c.Read(c.buf[c.filled:])
		if n > 0 {
			if c.filled == 0 && !c.Wake() {
				return true
			}
			c.filled += n
			before := c.filled
			if more, ours := c.answerAll(); !more {
				return ours
			}
			if !c.between(c.filled < before) {
				return true
			}
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.timedOut("the rest of a request did not come in time")
			}
			return true
		}
	}
}

// answerAll answers the requests that came in full and moves what is left to the front
// of the buffer. Without more, the connection is to be closed if it is ours.
func (c *conn) answerAll() (more, ours bool) {
	used := 0
	for {
		size := c.cut(c.buf[used:c.filled])
		if size == 0 {
			break
		}
		if more, ours := c.answer(c.buf[used:used+size], c.buf[used+size:c.filled]); !more {
			return false, ours
		}
		used += size
		c.scanned, c.skipped = 0, 0
	}
	if used > 0 {
		c.filled = copy(c.buf, c.buf[used:c.filled])
	}
	// The end of a request may be half there.
	c.scanned = max(0, c.filled-1)
	if c.filled > MaxRequest {
		// Its end is looked for, so that it can be answered, but it is not kept.
		c.skipped += c.filled - 1
		c.buf[0] = c.buf[c.filled-1]
		c.filled, c.scanned = 1, 0
	}
	if c.skipped > maxSkipped {
		c.malformed(errTooLong, "connection closed")
		return false, true
	}
	return true, true
}

// cut returns how many bytes the request that b begins with takes; zero when it has not
// come in full. The first c.scanned bytes are known not to hold its end.
func (c *conn) cut(b []byte) int {
	if c.skipped == 0 && len(b) > 0 && b[0] == '\n' {
		return 1 // no line at all
	}
	if i := bytes.Index(b[c.scanned:], []byte("\n\n")); i >= 0 {
		return c.scanned + i + 2
	}
	return 0
}

// between is called when all that came in full is answered, which were whole requests
// or not. False: the connection is to be closed.
func (c *conn) between(answered bool) bool {
	if c.filled == 0 {
		if c.reading {
			c.reading = false
			c.SetReadDeadline(time.Time{})
		}
		if len(c.buf) > readSize {
			c.buf = make([]byte, readSize)
		}
		return c.Rest()
	}
	if !c.reading || answered && c.skipped == 0 {
		// Once per request: bytes that trickle in do not move it.
		c.reading = true
		c.SetReadDeadline(time.Now().Add(cmp.Or(c.server.RequestTimeout, DefaultRequestTimeout)))
	}
	return true
}

// answer answers one request. Without more, the connection is to be closed if it is
// ours.
func (c *conn) answer(request, rest []byte) (more, ours bool) {
	s := c.server
	buf, ok := s.replies.Get().(*[]byte)
	if !ok {
		b := make([]byte, 0, maxReply)
		buf = &b
	}
	reply, ours := c.reply((*buf)[:0], request, rest)
	if ours {
		more = c.send(reply)
	}
	s.replies.Put(buf)
	return more, ours
}

// reply appends the answer to a request. False: another goroutine gave it.
func (c *conn) reply(dst, request, rest []byte) (reply []byte, ours bool) {
	s := c.server
	if c.skipped > 0 {
		return c.refuse(dst, errTooLong), true
	}
	hash := s.memory.hash(request)
	if reply, ok := s.memory.appendReply(dst, hash, request); ok {
		c.Repeated.Add(1)
		return reply, true
	}
	if s.lateCalls.Load() >= MaxLate {
		s.overloaded.Log(s.Logger, slog.LevelError, "too many calls are past their deadline, DUNNO sent", "calls", MaxLate)
		return append(dst, dunnoReply...), true
	}
	k := &call{Context: c.life, hash: hash, rest: rest}
	if err := k.request.parse(request); err != nil {
		return c.refuse(dst, err), true
	}
	action, ours := c.ask(k)
	reply, err := action.appendReply(dst, k.request.State())
	if err != nil {
		s.badActions.Log(s.Logger, slog.LevelError, "action withheld, DUNNO sent instead", "request", k, "error", err)
	}
	s.memory.keep(&k.request, hash, reply)
	return reply, ours
}

// refuse appends the answer to what is no request.
func (c *conn) refuse(dst []byte, err error) []byte {
	c.malformed(err, "DUNNO sent")
	return append(dst, dunnoReply...)
}

// send writes an answer. False: the peer cannot be answered.
func (c *conn) send(b []byte) bool {
	c.Requests.Add(1) // before the answer is out: whoever has it finds it counted
	err := c.Send(b, cmp.Or(c.server.WriteTimeout, DefaultWriteTimeout))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.timedOut("the answer was not taken in time")
	}
	return err == nil
}

func (c *conn) malformed(err error, consequence string) {
	c.server.malformed.Log(c.server.Logger, slog.LevelWarn, "malformed request, "+consequence,
		"peer", c.RemoteAddr(), "error", err)
}

func (c *conn) timedOut(what string) {
	c.server.timedOut.Log(c.server.Logger, slog.LevelWarn, "slow peer, connection closed",
		"peer", c.RemoteAddr(), "error", what)
}
