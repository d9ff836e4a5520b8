//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Network is a network namespace of this process. Sockets that are opened and processes that are started through it
// belong to that namespace, whichever thread uses them afterwards.
type Network struct {
	tasks chan func()
	done  chan struct{}
}

// NewNetwork makes a namespace whose loopback interface is up, so that all of 127.0.0.0/8 can be bound.
func NewNetwork() (*Network, error) {
	n := &Network{tasks: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go n.inhabit(ready)
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("making a network namespace: %w", err)
	}
	return n, nil
}

// inhabit lives on one thread, which is never given back: the Go runtime ends a locked thread with its goroutine, and
// so no other goroutine wakes up in this namespace.
func (n *Network) inhabit(ready chan<- error) {
	runtime.LockOSThread()
	defer close(n.done)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		ready <- err
		return
	}
	if err := raiseLoopback(); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for task := range n.tasks {
		task()
	}
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// Close gives the namespace up. It vanishes when the last socket and process in it are gone.
func (n *Network) Close() {
	close(n.tasks)
	<-n.done
}

// do runs a short task on the namespace's thread.
func (n *Network) do(task func() error) error {
	result := make(chan error, 1)
	n.tasks <- func() { result <- task() }
	return <-result
}

// Listen opens a listening TCP or unix socket; address is a literal, never a name.
func (n *Network) Listen(network, address string) (listener net.Listener, err error) {
	err = n.do(func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	})
	return listener, err
}

// ListenPacket opens a UDP socket.
func (n *Network) ListenPacket(network, address string) (conn net.PacketConn, err error) {
	err = n.do(func() (err error) {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}

// Dial connects to a literal address, within a second: everything is on loopback.
func (n *Network) Dial(network, address string) (conn net.Conn, err error) {
	err = n.do(func() (err error) {
		conn, err = net.DialTimeout(network, address, time.Second)
		return err
	})
	return conn, err
}

// Start starts a process inside the namespace.
func (n *Network) Start(cmd *exec.Cmd) error { return n.do(cmd.Start) }

// awaitPort returns when something accepts connections on the address, or with the context's error.
func (n *Network) awaitPort(ctx context.Context, address string) error {
	for {
		conn, err := n.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		if !pause(ctx) {
			return fmt.Errorf("nothing listens on %s: %w", address, ctx.Err())
		}
	}
}

// pause waits one poll interval; false means that the context ended.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pollInterval):
		return true
	}
}
