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

	"github.com/postseal/postseal/internal/server"
)

// conn stands between go-milter and the socket, and gives it what it lacks: time
// limits, a limit for packets before they are allocated, and an end that somebody
// can wait for. It follows the framing (four bytes of length, then the packet) to
// tell a peer that is idle from one that has stopped in the middle of a packet.
//
// It is busy from the MAIL command to the reply that ends the message, or RSET.
type conn struct {
	*server.Conn
	reader *bufio.Reader

	length  [4]byte
	pending []byte // of length, not yet given to go-milter
	left    uint32 // bytes of the packet that are still to come
	begun   bool   // a packet has begun
	ending  bool   // the next write ends the message in flight
	utf8    bool   // the last MAIL command had SMTPUTF8 (RFC 6531)

	oversize []string // names of header fields that were read over: too large

	closing  sync.Once
	finished chan struct{} // closed with the connection
}

func newConn(nc *server.Conn) *conn {
	return &conn{Conn: nc, reader: bufio.NewReaderSize(nc, 4<<10), finished: make(chan struct{})}
}

// Read gives go-milter the bytes of one packet at most, within the limits.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.pending) == 0 && c.left == 0 {
		if err := c.next(); err != nil {
			return 0, c.failed(err)
		}
	}
	if len(c.pending) > 0 {
		n := copy(p, c.pending)
		c.pending = c.pending[n:]
		return n, nil
	}
	n, err := c.reader.Read(p[:min(len(p), int(c.left))])
	if c.left -= uint32(n); err != nil {
		err = c.failed(err)
	}
	return n, err
}

// next waits for a packet that go-milter knows, and reads its length.
func (c *conn) next() error {
	for {
		c.begun = false
		if err := c.wait(idleTimeout); err != nil {
			return err
		}
		c.begun = true
		if err := c.Conn.SetReadDeadline(time.Now().Add(packetTimeout)); err != nil {
			return err
		}
		if _, err := io.ReadFull(c.reader, c.length[:]); err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(c.length[:])
		if size == 0 || size > maxField {
			return fmt.Errorf("a packet of %d bytes is announced, the limit is %d", size, maxPacket)
		}
		code, err := c.reader.Peek(1)
		switch {
		case err != nil:
			return err
		case size <= maxPacket:
		case wire.Code(code[0]) != wire.CodeHeader:
			return fmt.Errorf("a packet of %d bytes is announced, the limit is %d", size, maxPacket)
		default:
			// Postfix sends a field in one packet, however large header_size_limit is.
			if err := c.readOver(int(size)); err != nil {
				return err
			}
			continue
		}
		if bytes.IndexByte(knownCodes, code[0]) >= 0 {
			c.pending, c.left = c.length[:], size
			c.peekMail()
			return nil
		}
		if err := c.pass(code[0], int(size)); err != nil {
			return err
		}
	}
}

// readOver skips a header field, and keeps its name.
func (c *conn) readOver(size int) error {
	begin, err := c.reader.Peek(maxName)
	if err != nil {
		return err
	}
	name, _, _ := bytes.Cut(begin[1:], []byte{0})
	if len(c.oversize) < maxOversize {
		c.oversize = append(c.oversize, string(name))
	}
	_, err = c.reader.Discard(size)
	return err
}

// wait for the first byte of a packet.
func (c *conn) wait(timeout time.Duration) error {
	if c.reader.Buffered() > 0 {
		return nil
	}
	if err := c.Conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := c.reader.Peek(1)
	return err
}

// knownCodes are those that go-milter handles. It closes the connection on others.
var knownCodes = []byte{
	byte(wire.CodeOptNeg), byte(wire.CodeMacro), byte(wire.CodeConn), byte(wire.CodeQuit), byte(wire.CodeHelo), byte(wire.CodeMail),
	byte(wire.CodeRcpt), byte(wire.CodeHeader), byte(wire.CodeEOH), byte(wire.CodeBody), byte(wire.CodeEOB), byte(wire.CodeAbort), byte(wire.CodeData),
}

// pass reads over a command that go-milter does not know, such as SMFIC_UNKNOWN:
// the message goes on (MLT-10). SMFIC_QUIT_NC alone gets no reply.
func (c *conn) pass(code byte, size int) error {
	if _, err := c.reader.Discard(size); err != nil || wire.Code(code) == wire.CodeQuitNewConn {
		return err
	}
	_, err := c.Conn.Write([]byte{0, 0, 0, 1, byte(wire.ActContinue)})
	return err
}

// peekMail looks for SMTPUTF8 in a MAIL command: go-milter drops the parameters.
func (c *conn) peekMail() {
	if c.left > uint32(c.reader.Size()) {
		return
	}
	packet, err := c.reader.Peek(int(c.left))
	if err != nil || wire.Code(packet[0]) != wire.CodeMail {
		return // an error comes again with the next read
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
		if !c.begun {
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
		if c.ending = false; !c.Rest() {
			c.Conn.Close()
		}
	}
	return n, err
}

// Close is called by go-milter when it is done with the connection.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.closing.Do(func() { close(c.finished) })
	return err
}

// lastReply says that what go-milter writes next is the reply that ends the
// message in flight.
func (c *conn) lastReply() { c.ending = true }
