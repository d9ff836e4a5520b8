package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// ErrActivation: the service manager passed something that is no listener. The
// caller says so and does not start: the units and the program disagree.
var ErrActivation = errors.New("systemd: socket activation")

// Listeners returns the listeners that the service manager passed, by the
// FileDescriptorName= of their socket units. One name may have several. The map is
// empty without socket activation.
//
// It takes LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES out of the environment, so
// that children do not take the descriptors for theirs; a second call finds none.
// Closing such a listener does not end the socket, which the service manager holds
// as well: whoever connects waits for the next start. A unix socket's file is not
// removed.
func Listeners() (map[string][]net.Listener, error) {
	listeners := map[string][]net.Listener{}
	var failures []error
	for _, f := range activation.Files(true) {
		l, err := listenerOf(f)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		listeners[f.Name()] = append(listeners[f.Name()], l)
	}
	if len(failures) == 0 {
		return listeners, nil
	}
	for _, ls := range listeners {
		for _, l := range ls {
			l.Close()
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrActivation, errors.Join(failures...))
}

// listenerOf makes a listener of f, which it closes.
func listenerOf(f *os.File) (net.Listener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err == nil {
		// Package net also takes a datagram socket, and one that does not listen
		// (Accept=yes passes connections); accept(2) would fail for ever.
		if err = listens(f); err != nil {
			l.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("FileDescriptorName=%s: %w", f.Name(), err)
	}
	return l, nil
}

// listens says why f is no stream socket on which accept(2) works.
func listens(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var kind, accepts int
	var kindErr, acceptErr error
	err = raw.Control(func(fd uintptr) {
		kind, kindErr = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TYPE)
		accepts, acceptErr = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	})
	if err := errors.Join(err, kindErr, acceptErr); err != nil {
		return err
	}
	if kind != syscall.SOCK_STREAM || accepts == 0 {
		return errors.New("no stream socket that listens: its unit must have ListenStream= and not Accept=yes")
	}
	return nil
}
