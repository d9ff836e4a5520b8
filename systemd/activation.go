package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"

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
	if err != nil {
		return nil, fmt.Errorf("descriptor %d, FileDescriptorName=%s, is no stream socket that listens: %w", f.Fd(), f.Name(), err)
	}
	return l, nil
}
