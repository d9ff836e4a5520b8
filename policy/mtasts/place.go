package mtasts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Limits of what one address takes of a Fetcher (RFC 8461 §3.3, §10.2: a host
// that thousands of domains point to is neither flooded nor able to hold up the
// fetches of all others).
const (
	// maxPerAddress connections to one address may be open at once.
	maxPerAddress = 4
	// patience is how long a fetch waits for one of them to end. An address
	// whose connections have all been open for that long is stuck, and no
	// further fetch waits for it. At 0.4 s per fetch, 28 that wait are served
	// within it; a caller that waits 5 s for a policy still gets one after them.
	patience = 3 * time.Second
)

// ErrBusy: other fetches from the same address have taken all connections that
// one address gets, and none ended in time. The policy host was not asked, so
// the pause after a failed GET (RFC 8461 §3.3) does not apply: try again soon.
var ErrBusy = errors.New("too many fetches from one address")

// places gives out the connections to each address. The zero value is ready. It
// remembers only addresses that have an open connection, and who waits.
type places struct {
	mu    sync.Mutex
	lines map[netip.Addr]*line
}

// line is one address. Somebody waits only while all places are taken, as who
// leaves hands the place to the first.
type line struct {
	taken   int
	moved   time.Time       // when a place was given out last
	waiting []chan struct{} // closed when it is one's turn
}

// take gets a place if there is a free one.
func (p *places) take(addr netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.line(addr).enter()
}

// line finds the line of an address, or begins one. The lock is held, and the
// caller enters a line that has just begun.
func (p *places) line(addr netip.Addr) *line {
	addr = addr.WithZone("").Unmap()
	l := p.lines[addr]
	if l == nil {
		if p.lines == nil {
			p.lines = make(map[netip.Addr]*line)
		}
		l = &line{}
		p.lines[addr] = l
	}
	return l
}

func (l *line) enter() bool {
	if l.taken == maxPerAddress {
		return false
	}
	l.taken++
	l.moved = time.Now()
	return true
}

// wait gets a place as soon as there is one. It returns the context's error when
// that ends before, and ErrBusy when patience does.
func (p *places) wait(ctx context.Context, addr netip.Addr) error {
	turn, err := p.queue(addr)
	if err != nil {
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-turn:
		return nil
	case <-timer.C:
		err = busy(addr)
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.quit(addr, turn)
	return err
}

// queue joins the line of an address, unless that is stuck. The channel is
// closed when it is one's turn.
func (p *places) queue(addr netip.Addr) (chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	turn := make(chan struct{})
	l := p.line(addr)
	switch {
	case l.enter():
		close(turn)
	case time.Since(l.moved) >= patience:
		return nil, busy(addr)
	default:
		l.waiting = append(l.waiting, turn)
	}
	return turn, nil
}

func busy(addr netip.Addr) error {
	return fmt.Errorf("%w: all %d connections to %s are taken by other policies' fetches", ErrBusy, maxPerAddress, addr)
}

// quit leaves the line, or the place whose turn has come at the same moment.
func (p *places) quit(addr netip.Addr, turn chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.line(addr)
	if i := slices.Index(l.waiting, turn); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		return
	}
	p.pass(addr, l)
}

// leave gives a place back.
func (p *places) leave(addr netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass(addr, p.line(addr))
}

// pass hands a place to the first who waits. The lock is held.
func (p *places) pass(addr netip.Addr, l *line) {
	if len(l.waiting) > 0 {
		close(l.waiting[0])
		l.waiting = slices.Delete(l.waiting, 0, 1)
		l.moved = time.Now()
		return
	}
	if l.taken--; l.taken == 0 {
		delete(p.lines, addr.WithZone("").Unmap())
	}
}

// placed is a connection that gives its place back when it is closed.
type placed struct {
	net.Conn
	leave func() // any number of times
}

// Close closes the connection first: until then it counts.
func (c *placed) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
