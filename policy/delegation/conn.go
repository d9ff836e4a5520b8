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

	call  atomic.Pointer[call] // the last one
	spare *call                // one to be used again; nil: none
	timer *time.Timer          // calls expire
	armed atomic.Bool          // whether it will

	buf     []byte
	filled  int // buf[:filled] was received and not answered
	scanned int // buf[:scanned] holds no end of a request
	skipped int // bytes of a request beyond MaxRequest that were let go

	reading bool // a deadline for the rest of a request is set

	known      []byte    // the last request, if the Handler knew at once that it is DUNNO
	knownUntil time.Time // remembered until then
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
		k := c.next()
		size, err := c.read(&k.request, c.buf[used:c.filled])
		if size == 0 {
			c.spare = k
			break
		}
		k.rest = c.buf[used+size : c.filled]
		if more, ours := c.answer(k, err); !more {
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

// next returns the call for the next request.
func (c *conn) next() *call {
	k := c.spare
	if k == nil {
		return &call{Context: c.life}
	}
	c.spare = nil
	return k
}

// read reads the request that b begins with and returns how many bytes it takes; zero
// when it has not come in full. The first c.scanned bytes are known not to hold its end.
// An error says why it is no request.
func (c *conn) read(r *Request, b []byte) (size int, err error) {
	if c.skipped == 0 && c.scanned == 0 { // in one piece, as a rule
		if size, err = r.parse(b); err == nil {
			return size, nil
		}
		if b[0] == '\n' {
			return 1, errNoEnd // no line at all
		}
	}
	i := bytes.Index(b[c.scanned:], []byte("\n\n"))
	if i < 0 {
		return 0, nil
	}
	size = c.scanned + i + 2
	if c.skipped > 0 {
		return size, errTooLong
	}
	_, err = r.parse(b[:size])
	return size, err
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
			c.buf, c.spare = make([]byte, readSize), nil
			c.call.Store(nil) // these have the old one
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

// answer answers one request, or what is none because of err. Without more, the
// connection is to be closed if it is ours.
func (c *conn) answer(k *call, err error) (more, ours bool) {
	k.reply, ours = c.reply(k.reply[:0], k, err)
	return ours && c.send(k.reply), ours
}

// reply appends the answer to a request. False: another goroutine gave it.
func (c *conn) reply(dst []byte, k *call, err error) (reply []byte, ours bool) {
	s := c.server
	if err != nil {
		c.spare = k
		c.malformed(err, "DUNNO sent")
		return append(dst, dunnoReply...), true
	}
	now := time.Now()
	if bytes.Equal(c.known, k.request.raw) && now.Before(c.knownUntil) {
		c.spare = k
		c.Repeated.Add(1)
		return append(dst, dunnoReply...), true
	}
	if reply, ok := s.memory.appendReply(dst, &k.request, now); ok {
		c.spare = k
		c.Repeated.Add(1)
		return reply, true
	}
	if s.lateCalls.Load() >= MaxLate {
		c.spare = k
		s.overloaded.Log(s.Logger, slog.LevelError, "too many calls are past their deadline, DUNNO sent", "calls", MaxLate)
		return append(dst, dunnoReply...), true
	}
	k.request.received = now
	action, ours := c.ask(k)
	reply, err = action.appendReply(dst, k.request.State())
	if err != nil {
		s.badActions.Log(s.Logger, slog.LevelError, "action withheld, DUNNO sent instead", "request", k, "error", err)
	}
	switch {
	case !ours || action != Dunno() || k.waited:
		s.memory.keep(&k.request, reply, time.Now())
	case len(k.request.Instance()) > 0 && len(k.request.raw) <= maxRemembered:
		// The lists of one RCPT ask one after the other, over the same connection. To share
		// this with the others would cost as much as to ask the Handler.
		c.known, c.knownUntil = append(c.known[:0], k.request.raw...), now.Add(RepeatLifetime)
	}
	return reply, ours
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
