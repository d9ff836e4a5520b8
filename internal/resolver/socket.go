package resolver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// longAgo as a deadline ends whatever a socket waits for.
var longAgo = time.Unix(1, 0)

// socket is connected to one server, so that the kernel drops what others send
// (RFC 5452 §9.1), and serves one question at a time.
type socket struct {
	*net.UDPConn
	cut  func()
	last uint16    // id of the last question
	idle time.Time // since when
}

// sockets keeps the idle sockets to one server. One that saw a time-out or an
// error is closed, not kept: a late reply finds nobody.
type sockets struct {
	addr  netip.AddrPort
	reuse bool

	mu      sync.Mutex
	idle    []*socket // the one used last is taken first
	retired bool
}

func (p *sockets) get() (*socket, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		s := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.addr))
	if err != nil {
		return nil, err
	}
	return &socket{UDPConn: conn, cut: func() { conn.SetDeadline(longAgo) }}, nil
}

// put takes a socket back whose question was answered.
func (p *sockets) put(s *socket) {
	p.mu.Lock()
	keep := p.reuse && !p.retired && len(p.idle) < maxInFlight
	if keep {
		s.idle = time.Now()
		p.idle = append(p.idle, s)
	}
	p.mu.Unlock()
	if !keep {
		s.Close()
	}
}

// trim closes the sockets that nobody needed since a time.
func (p *sockets) trim(since time.Time) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && p.idle[n].idle.Before(since) {
		n++
	}
	old := append([]*socket(nil), p.idle[:n]...)
	kept := copy(p.idle, p.idle[n:])
	clear(p.idle[kept:])
	p.idle = p.idle[:kept]
	p.mu.Unlock()
	for _, s := range old {
		s.Close()
	}
}

// retire closes all sockets, those in use as soon as they come back.
func (p *sockets) retire() {
	p.mu.Lock()
	old := p.idle
	p.idle, p.retired = nil, true
	p.mu.Unlock()
	for _, s := range old {
		s.Close()
	}
}

// overUDP asks the server once and waits for a reply to q until the deadline.
// The message lies in q. The context's error comes back when it ends first.
func (s *server) overUDP(ctx context.Context, q *question, deadline time.Time) (msg []byte, err error) {
	sock, err := s.sockets.get()
	if err != nil {
		return nil, networkError(err)
	}
	sock.SetDeadline(deadline)
	stop := interrupt(ctx, sock.cut)
	msg, err = sock.ask(q)
	if !stop() {
		sock.Close()
		return nil, ctx.Err()
	}
	if err != nil {
		sock.Close()
		return nil, networkError(err)
	}
	s.sockets.put(sock)
	return msg, nil
}

func (s *socket) ask(q *question) ([]byte, error) {
	id := q.query[2:4]
	rand.Read(id) // cannot fail
	if binary.BigEndian.Uint16(id) == s.last {
		id[1]++ // what is left of the last question must not fit this one
	}
	s.last = binary.BigEndian.Uint16(id)
	if _, err := s.Write(q.message()); err != nil {
		return nil, err
	}
	for {
		n, err := s.Read(q.reply[:])
		if err != nil {
			return nil, err
		}
		// RFC 5452 §9.1: what does not fit is as if it had not come.
		if msg := q.reply[:n]; q.answeredBy(msg) {
			return msg, nil
		}
	}
}

// interrupt calls cut when the context ends; stop says that it has not, and will not.
func interrupt(ctx context.Context, cut func()) (stop func() bool) {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(ctx, cut)
}

// truncated: the TC bit is set, or the buffer may have been too small.
func truncated(msg []byte) bool {
	return binary.BigEndian.Uint16(msg[2:])&bitTC != 0 || len(msg) == udpBuffer
}

// overTCP asks again for an answer that UDP could not carry, up to 64 kB.
// RFC 7766 §5.
func (s *server) overTCP(ctx context.Context, q *question, deadline time.Time) ([]byte, error) {
	dialer := net.Dialer{Deadline: deadline}
	conn, err := dialer.DialContext(ctx, "tcp", s.text)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", ErrTruncated, networkError(err))
	}
	defer conn.Close()
	conn.SetDeadline(deadline)
	stop := interrupt(ctx, func() { conn.SetDeadline(longAgo) })
	msg, err := exchangeStream(conn, q)
	if !stop() {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTruncated, networkError(err))
	}
	if !q.answeredBy(msg) {
		return nil, fmt.Errorf("%w: over TCP, to another question", ErrMalformed)
	}
	if binary.BigEndian.Uint16(msg[2:])&bitTC != 0 {
		return nil, fmt.Errorf("%w: it was truncated there too", ErrTruncated)
	}
	return msg, nil
}

func exchangeStream(conn net.Conn, q *question) ([]byte, error) {
	if _, err := conn.Write(q.stream()); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(conn, msg)
	return msg, err
}
