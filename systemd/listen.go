package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// ErrInUse: somebody else listens there. The caller tries again later, or tells
// the operator.
var ErrInUse = errors.New("systemd: address is in use")

// ErrListen: for another reason the socket cannot be made. The error says what to
// do.
var ErrListen = errors.New("systemd: cannot listen")

// Spec says where and how to listen.
type Spec struct {
	Address Address
	// Mode is a unix socket's permissions; zero: DefaultMode.
	Mode os.FileMode
	// Group, a name or a number, is given a unix socket; empty: the process's own.
	Group string
}

// DefaultMode lets the user and the group connect. Who connects decides about the
// protection of mail, so others cannot.
const DefaultMode os.FileMode = 0o660

// Listen opens a listener. Closing one on a unix socket removes its file; one that
// was left behind, on which nobody listens, is replaced.
//
// From the first moment on a unix socket has no more permissions than asked for.
// Errors wrap ErrInUse or ErrListen.
func Listen(ctx context.Context, spec Spec) (net.Listener, error) {
	if spec.Address.Network == "unix" {
		return listenUnix(ctx, spec)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, spec.Address.Network, spec.Address.Address)
	if err != nil {
		return nil, listenError(spec.Address, err)
	}
	return l, nil
}

func listenError(a Address, err error) error {
	kind, hint := ErrListen, ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		kind, hint = ErrInUse, "; is another postseal or postseal-*.socket running?"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "; no interface of this machine has that address"
	case errors.Is(err, fs.ErrPermission):
		hint = "; the user may not, or the port is below 1024"
	}
	return fmt.Errorf("%w: %s: %w%s", kind, a, err, hint)
}

func listenUnix(ctx context.Context, spec Spec) (net.Listener, error) {
	path := spec.Address.Address
	gid, err := GroupID(spec.Group)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrListen, spec.Address, err)
	}
	if err := checkDirectory(path); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrListen, spec.Address, err)
	}
	if err := removeStale(ctx, spec.Address); err != nil {
		return nil, err
	}
	// Until it has its group and mode only we can connect: bind(2) gives the file
	// the mode of the descriptor (net/unix/af_unix.c:unix_bind_bsd), less the umask,
	// which belongs to the whole process and is not touched.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmodErr error
		err := c.Control(func(fd uintptr) { chmodErr = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, chmodErr)
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, listenError(spec.Address, err)
	}
	if err := dress(path, spec.Mode, gid); err != nil {
		l.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrListen, spec.Address, err)
	}
	return l, nil
}

// Dress gives the unix socket at spec.Address, on which the caller listens, another
// mode and group; without Group that of the process. For any other address it does
// nothing. Errors wrap ErrListen.
func Dress(spec Spec) error {
	if spec.Address.Network != "unix" {
		return nil
	}
	gid, err := GroupID(spec.Group)
	if err == nil {
		if gid < 0 {
			gid = os.Getegid()
		}
		err = dress(spec.Address.Address, spec.Mode, gid)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrListen, spec.Address, err)
	}
	return nil
}

// Again opens a second listener on the socket of l, which Listen has returned. Both
// accept connections until they are closed; l no longer removes a unix socket's
// file, the second one does.
func Again(l net.Listener) (net.Listener, error) {
	holder, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("%w: %s: not a socket", ErrListen, l.Addr())
	}
	f, err := holder.File()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrListen, err)
	}
	defer f.Close()
	second, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrListen, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
		second.(*net.UnixListener).SetUnlinkOnClose(true)
	}
	return second, nil
}

// dress gives a socket its group and mode.
func dress(path string, mode os.FileMode, gid int) error {
	if mode == 0 {
		mode = DefaultMode
	}
	if gid >= 0 {
		if err := os.Chown(path, -1, gid); err != nil {
			return fmt.Errorf("unix_group: %w; a process can only give away groups that it is in: add its user to that group, or let a socket unit's SocketGroup= do it", err)
		}
	}
	// After chown(2), which may clear bits.
	return os.Chmod(path, mode.Perm())
}

// GroupID returns the number of a group of this machine, given by name or number,
// and -1 for the empty one.
func GroupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("unix_group %q: %w", group, err)
	}
	return strconv.Atoi(g.Gid)
}

func checkDirectory(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; make it first, e.g. install -d -m 0750 -o %d %s", err, os.Geteuid(), dir)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no directory", dir)
	}
	return nil
}

// removeStale removes the socket that a dead process has left behind. Anything
// that is no socket, or alive, stays and is an error.
func removeStale(ctx context.Context, a Address) error {
	info, err := os.Lstat(a.Address)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrListen, a, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w: %s: there is something that is no socket; remove it or choose another path", ErrListen, a)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", a.Address)
	if err == nil {
		c.Close()
		return fmt.Errorf("%w: %s: somebody answers there; is another postseal or postseal-*.socket running?", ErrInUse, a)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		// E.g. a full backlog, or no permission: it may well be alive.
		return fmt.Errorf("%w: %s: %w", ErrInUse, a, err)
	}
	if err := os.Remove(a.Address); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s: removing the socket of a process that is gone: %w", ErrListen, a, err)
	}
	return nil
}
