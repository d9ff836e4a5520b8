package delegation

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// call is one call of the Handler, with its request, and the context of it.
//
// The connection's own goroutine makes the call, since handing each request to another
// one would cost more than all the rest. At the deadline a timer takes the connection
// over: it answers DUNNO and serves on, while the goroutine that is stuck in the
// Handler owns nothing any more but the request, and ends when the Handler
// returns.
//
// A call that ended in time, and whose context nobody waited for, is used again for the
// next request of the connection.
type call struct {
	context.Context // for its values
	request         Request
	rest            []byte // what came after the request
	reply           []byte

	mu       sync.Mutex
	deadline time.Time
	running  bool          // until the Handler's return or the deadline, whichever comes first
	waited   bool          // the Handler did, before it returned in time
	done     chan struct{} // nil: nobody asked yet
	err      error
}

// begin begins the call anew.
func (k *call) begin(deadline time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.deadline, k.running, k.err = deadline, true, nil
}

// Deadline is when DUNNO is sent.
func (k *call) Deadline() (time.Time, bool) { return k.deadline, true }

// Done makes the channel when it is first asked for: a Handler that knows the answer
// does not wait.
func (k *call) Done() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done == nil {
		k.done = make(chan struct{})
		if k.err != nil {
			close(k.done)
		}
	}
	return k.done
}

// Err says why the context has ended.
func (k *call) Err() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// end ends the context. The caller holds mu.
func (k *call) end(err error) {
	if k.err != nil {
		return
	}
	k.err = err
	if k.done != nil {
		close(k.done)
	}
}

// abort ends the context of the call that is running, if one is.
func (c *conn) abort() {
	if k := c.call.Load(); k != nil {
		k.cancel()
	}
}

func (k *call) cancel() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end(context.Canceled)
}

// ask calls the Handler. False: the deadline came first, and the connection belongs to
// another goroutine.
func (c *conn) ask(k *call) (a Action, ours bool) {
	s := c.server
	timeout := cmp.Or(s.Deadline, DefaultDeadline)
	k.begin(k.request.received.Add(timeout))
	if c.call.Load() != k {
		c.call.Store(k)
	}
	c.arm(timeout) // from here on the connection may be taken over
	if c.life.Err() != nil {
		k.cancel() // the Server was closed before it could see this call
	}
	defer func() {
		if r := recover(); r != nil {
			s.panics.Log(s.Logger, slog.LevelError, "panic while answering, DUNNO sent", "request", k,
				"panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			a = Dunno()
		}
		ours = c.finish(k)
	}()
	return s.Handler.ServePolicy(k, &k.request), true
}

// finish ends a call whose Handler has returned. False: its deadline came first.
func (c *conn) finish(k *call) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.running {
		c.server.lateCalls.Add(-1)
		return false
	}
	k.running = false
	k.end(context.Canceled)
	if k.waited = k.done != nil; !k.waited {
		c.spare = k
	}
	return true
}

// arm sees to it that expire will be called, in d at the latest. To set a timer for each
// call and stop it again costs more than all else that is done for a request; so it runs
// on from call to call, and expire looks whether there is one that is late.
func (c *conn) arm(d time.Duration) {
	if c.armed.CompareAndSwap(false, true) {
		c.timer.Reset(d)
	}
}

// expire is called when the deadline of a call may have passed.
func (c *conn) expire() {
	// First this, then the look: a call that begins now is seen, or arms anew.
	c.armed.Store(false)
	k := c.call.Load()
	if k == nil {
		return
	}
	late, left := c.takeOver(k)
	if !late {
		if left > 0 {
			c.arm(left)
		}
		return
	}
	defer c.Release()
	c.server.late.Log(c.server.Logger, slog.LevelWarn, "no answer within the deadline, DUNNO sent", "request", k)
	c.run(k)
}

// takeOver ends a call whose deadline has passed. Late: it was running, and the
// connection belongs to the caller. Else left is how long it may still run; not
// positive: it does not run.
func (c *conn) takeOver(k *call) (late bool, left time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.running {
		return false, 0
	}
	if left = time.Until(k.deadline); left > 0 {
		return false, left
	}
	k.running = false
	k.end(context.DeadlineExceeded)
	// All this before the goroutine in the Handler can see that it is late, and end.
	c.Hold()
	s := c.server
	s.lateCalls.Add(1)
	s.memory.keep(&k.request, []byte(dunnoReply), time.Now())
	return true, 0
}

// LogValue describes the request.
func (k *call) LogValue() slog.Value {
	r := &k.request
	return slog.GroupValue(
		slog.String("state", string(r.State())),
		slog.String("instance", string(r.Instance())),
		slog.String("queue_id", string(r.QueueID())),
		slog.String("sender", string(r.Sender())),
		slog.String("recipient", string(r.Recipient())),
	)
}
