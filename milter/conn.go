package milter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	wire "github.com/emersion/go-milter"
)

// conn stands between go-milter and the socket, and gives it what it lacks: time
// limits, a limit for packets before they are allocated, and an end that somebody
// can wait for. It follows the framing (four bytes of length, then the packet) to
// tell a peer that is idle from one that has stopped in the middle of a packet.
type conn struct {
	net.Conn
	server *Server
	reader *bufio.Reader

	length [4]byte
	have   int    // bytes of length that were read
	left   uint32 // bytes of the packet that are still to come
	ending bool   // the next write ends the message in flight
	utf8   bool   // the last MAIL command had SMTPUTF8 (RFC 6531)

	closing  sync.Once
	finished chan struct{} // closed with the connection

	mu    sync.Mutex
	busy  bool // a message is in flight
	leave bool // close as soon as none is
}

func (s *Server) newConn(nc net.Conn) *conn {
	return &conn{Conn: nc, server: s, reader: bufio.NewReaderSize(nc, 4<<10), finished: make(chan struct{})}
}

// Read gives go-milter the bytes of one packet at most, within the limits.
func (c *conn) Read(p []byte) (int, error) {
	if c.reader.Buffered() == 0 {
		timeout := packetTimeout
		if c.left == 0 && c.have == 0 {
			timeout = idleTimeout
		}
		if err := c.Conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return 0, c.failed(err)
		}
	}
	inLength := c.left == 0
	if inLength {
		p = p[:min(len(p), len(c.length)-c.have)]
	} else {
		p = p[:min(len(p), int(c.left))]
	}
	n, err := c.reader.Read(p)
	if err != nil {
		return n, c.failed(err)
	}
	if !inLength {
		c.left -= uint32(n)
		return n, nil
	}
	c.have += copy(c.length[c.have:], p[:n])
	if c.have == len(c.length) {
		c.left, c.have = binary.BigEndian.Uint32(c.length[:]), 0
		if c.left == 0 || c.left > maxPacket {
			return 0, fmt.Errorf("a packet of %d bytes is announced, the limit is %d", c.left, maxPacket)
		}
		c.peekMail()
	}
	return n, nil
}

// peekMail looks for SMTPUTF8 in a MAIL command: go-milter drops the parameters.
func (c *conn) peekMail() {
	if c.left > uint32(c.reader.Size()) {
		return
	}
	if code, err := c.reader.Peek(1); err != nil || wire.Code(code[0]) != wire.CodeMail {
		return // an error comes again with the next read
	}
	packet, err := c.reader.Peek(int(c.left))
	if err != nil {
		return
	}
	c.utf8 = false
	for i, parameter := range bytes.Split(packet[1:], []byte{0}) {
		if i > 0 && bytes.EqualFold(parameter, []byte("SMTPUTF8")) {
			c.utf8 = true
		}
	}
}

// failed names an error of the peer. An end between two packets is none.
func (c *conn) failed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if c.left == 0 && c.have == 0 {
			return fmt.Errorf("idle for %v: %w", idleTimeout, err)
		}
		return fmt.Errorf("the rest of a packet did not come within %v: %w", packetTimeout, err)
	}
	if errors.Is(err, net.ErrClosed) {
		return io.EOF // by us: there is nothing to tell
	}
	return err
}

// Write sends a reply.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if c.ending {
		c.ending = false
		c.replied()
	}
	return n, err
}

// Close is called by go-milter when it is done with the connection.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.closing.Do(func() { close(c.finished) })
	return err
}

// setBusy notes whether a message is in flight.
func (c *conn) setBusy(busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = busy
}

// dismiss ends the connection when no message is in flight, else after its reply.
func (c *conn) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave = true
	if !c.busy {
		c.Conn.Close()
	}
}

// lastReply says that what go-milter writes next is the reply that ends the
// message in flight.
func (c *conn) lastReply() { c.ending = true }

// replied is called when that reply was written.
func (c *conn) replied() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy = false; c.leave {
		c.Conn.Close()
	}
}
