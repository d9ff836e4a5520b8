package socketmaptest

import (
	"bytes"
	"errors"
	"net"
	"sync"
)

// bufferSize holds every request and reply of a measurement.
const bufferSize = 16 << 10

var (
	errNetstring = errors.New("socketmaptest: not a netstring")
	errTooLong   = errors.New("socketmaptest: an answer that does not fit the buffer")
)

// Echo sends back each netstring that comes in on l, until l is closed: the least
// that a server in Go can do.
func Echo(l net.Listener) error { return serveEach(l, echo) }

// Answerer answers whatever ends with end, until its listener is closed: the least that
// a server in Go can do for a protocol whose requests end so and are not sent ahead.
func Answerer(end, answer string) Serve {
	return func(l net.Listener) error {
		return serveEach(l, func(c net.Conn) {
			buf := make([]byte, bufferSize)
			for filled := 0; filled < len(buf); {
				n, err := c.Read(buf[filled:])
				if err != nil {
					return
				}
				if filled += n; bytes.HasSuffix(buf[:filled], []byte(end)) {
					filled = 0
					if _, err := c.Write([]byte(answer)); err != nil {
						return
					}
				}
			}
		})
	}
}

// Ending is the Framing of messages that end so.
func Ending(end string) Framing {
	return func(b []byte) (int, error) {
		i := bytes.Index(b, []byte(end))
		if i < 0 {
			return 0, nil
		}
		return i + len(end), nil
	}
}

func serveEach(l net.Listener, serve func(net.Conn)) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		running.Go(func() {
			defer c.Close()
			serve(c)
		})
	}
}

func echo(c net.Conn) {
	buf := make([]byte, bufferSize)
	filled := 0
	for {
		n, err := c.Read(buf[filled:])
		if err != nil {
			return
		}
		filled += n
		for {
			size, err := netstringSize(buf[:filled])
			if err != nil || size > len(buf) {
				return
			}
			if size == 0 || size > filled {
				break
			}
			if _, err := c.Write(buf[:size]); err != nil {
				return
			}
			filled = copy(buf, buf[size:filled])
		}
	}
}

// netstringSize returns how many bytes the netstring that b begins with takes, as
// far as its length says; zero when that has not come in full.
func netstringSize(b []byte) (int, error) {
	length := 0
	for i, c := range b {
		switch {
		case c == ':':
			return i + 1 + length + 1, nil
		case c < '0' || c > '9' || i > 6:
			return 0, errNetstring
		}
		length = 10*length + int(c-'0')
	}
	return 0, nil
}
