package socketmap

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/postseal/postseal/internal/server"
)

// conn is one connection. Its goroutine alone reads, answers and writes. It is busy
// from the first byte of a request to the last of its reply.
type conn struct {
	*server.Conn
	server  *Server
	reading bool // a deadline for the rest of a request is set
}

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
		n, err := c.Read(buf[filled:])
		if n > 0 {
			if filled == 0 && !c.Wake() {
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
			c.SetReadDeadline(time.Time{})
		}
		return c.Rest()
	}
	if !c.reading || used > 0 {
		// Once per request: bytes that trickle in do not move it.
		c.reading = true
		c.SetReadDeadline(time.Now().Add(cmp.Or(c.server.RequestTimeout, DefaultRequestTimeout)))
	}
	return true
}

// answer answers one request. False: the connection is to be closed.
func (c *conn) answer(ctx context.Context, mapName, key []byte) bool {
	s := c.server
	f, ok := s.frames.Get().(*frame)
	if !ok {
		f = &frame{}
	}
	payload := c.ask(ctx, f.payload(), mapName, key)
	if err := checkReply(payload); err != nil {
		s.badReplies.Log(s.Logger, slog.LevelError, "reply withheld, TEMP sent instead", "map", string(mapName), "key", string(key),
			"error", err, "length", len(payload))
		// Never weaker: NOTFOUND could mean plaintext, TEMP keeps the mail.
		payload = AppendTemp(f.payload(), "postseal: reply withheld: "+err.Error())
	}
	c.Requests.Add(1) // before the reply is out: whoever has it finds it counted
	err := c.Send(f.netstring(payload), cmp.Or(s.WriteTimeout, DefaultWriteTimeout))
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
		s := c.server
		s.panics.Log(s.Logger, slog.LevelError, "panic while answering, TEMP sent", "map", string(mapName), "key", string(key),
			"panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		reply = AppendTemp(dst[:0], "postseal: internal error, see its log")
	}()
	return c.server.Handler.ServeSocketmap(ctx, dst, mapName, key)
}

func (c *conn) malformed(err error) {
	c.server.malformed.Log(c.server.Logger, slog.LevelWarn, "malformed request, connection closed",
		"peer", c.RemoteAddr(), "error", err)
}

func (c *conn) timedOut(what string) {
	c.server.timedOut.Log(c.server.Logger, slog.LevelWarn, "slow peer, connection closed",
		"peer", c.RemoteAddr(), "error", what)
}
