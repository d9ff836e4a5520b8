package main

import (
	"net"
	"sync"

	"github.com/postseal/postseal/systemd"
)

// handover is a listener that can give its socket to another one. From then on it
// accepts nothing, and whoever serves on it goes on until it is closed.
type handover struct {
	net.Listener
	given  chan struct{} // closed when the socket was given away
	closed chan struct{}
	once   sync.Once
}

func newHandover(l net.Listener) *handover {
	return &handover{Listener: l, given: make(chan struct{}), closed: make(chan struct{})}
}

// give returns a listener on the same socket, with what waits in its backlog. It
// can be called once.
func (h *handover) give() (net.Listener, error) {
	l, err := systemd.Again(h.Listener)
	if err != nil {
		return nil, err
	}
	close(h.given)
	h.Listener.Close() // ends the Accept under way
	return l, nil
}

func (h *handover) Accept() (net.Conn, error) {
	c, err := h.Listener.Accept()
	if err == nil {
		return c, nil
	}
	select {
	case <-h.given:
		<-h.closed
		return nil, net.ErrClosed
	default:
		return nil, err
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return h.Listener.Close()
}
