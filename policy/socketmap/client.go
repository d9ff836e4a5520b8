package socketmap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Client asks a server, as Postfix would, one question at a time. It must not be
// used from several goroutines at once.
type Client struct {
	conn   net.Conn
	in     *bufio.Reader
	broken error
}

// Dial connects to a server; network is "tcp" or "unix".
func Dial(ctx context.Context, network, address string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("socketmap: %w", err)
	}
	return NewClient(conn), nil
}

// NewClient returns a Client on an open connection, which it will close.
func NewClient(conn net.Conn) *Client {
	return &Client{conn: conn, in: bufio.NewReader(conn)}
}

// Query asks for key in the map called mapName, which must not contain a space.
// A reply of whatever status is no error. After an error, be it the end of ctx,
// the connection cannot be used any more, and every later call returns that
// error. What is no reply wraps ErrProtocol.
func (c *Client) Query(ctx context.Context, mapName, key string) (Reply, error) {
	if c.broken != nil {
		return Reply{}, c.broken
	}
	if n := len(mapName) + 1 + len(key); n > MaxRequest {
		// Nothing was sent: the connection stays good.
		return Reply{}, fmt.Errorf("socketmap: question of %d bytes: %w of %d bytes", n, errTooLong, MaxRequest)
	}
	// A deadline in the past wakes the read or write that is waiting.
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	reply, err := c.query(mapName, key)
	if ended := !stop(); ended && err == nil {
		// The answer came first, but the deadline in the past may stay behind.
		c.broken = fmt.Errorf("socketmap: asking %s: %w", c.conn.RemoteAddr(), context.Cause(ctx))
	}
	if err != nil {
		if ctxErr := context.Cause(ctx); ctxErr != nil {
			err = ctxErr
		}
		c.broken = fmt.Errorf("socketmap: asking %s: %w", c.conn.RemoteAddr(), err)
		c.conn.Close()
		return Reply{}, c.broken
	}
	return reply, nil
}

func (c *Client) query(mapName, key string) (Reply, error) {
	request := AppendNetstring(make([]byte, 0, readSize), mapName+" "+key)
	if _, err := c.conn.Write(request); err != nil {
		return Reply{}, err
	}
	payload, err := readNetstring(c.in, MaxReply)
	if err != nil {
		return Reply{}, err
	}
	return ParseReply(payload)
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// readNetstring reads one netstring with a payload of at most limit bytes.
func readNetstring(in *bufio.Reader, limit int) ([]byte, error) {
	var b []byte
	for {
		chunk, err := in.ReadSlice(',')
		b = append(b, chunk...)
		payload, size, syntax := cutNetstring(b, limit)
		switch {
		case syntax != nil:
			return nil, fmt.Errorf("%w: %w", ErrProtocol, syntax)
		case size > 0:
			return payload, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			if err == io.EOF && len(b) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}
