package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postseal/postseal/cache"
)

// lock is held by the one process that writes. The kernel drops it with the
// process, however that ends, so a lock file that is left over locks nobody out.
type lock struct{ file *os.File }

// ErrHeld: another process writes to the file. The operator ends one of the two,
// or gives each a file of its own. It comes together with cache.ErrReadOnly.
var ErrHeld = errors.New("cache/sqlite: held by another process")

// heldError names the holder of a lock.
type heldError struct {
	path, name string
	pid        int // 0: it has not said
}

func (e *heldError) Error() string {
	holder := "another postseal"
	if e.pid > 0 {
		holder += fmt.Sprintf(" (process %d)", e.pid)
	}
	return holder + " has " + e.path + ": stop it, or give this one a [" + e.name + "] path of its own"
}

func (e *heldError) Unwrap() []error { return []error{ErrHeld, cache.ErrReadOnly} }

// acquire takes the lock of the store at path and leaves the process id in the
// lock file, for whoever comes second.
func acquire(path, name string) (*lock, error) {
	file, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		pid := holderOf(file)
		file.Close()
		return nil, &heldError{path, name, pid}
	case err != nil:
		file.Close()
		return nil, fmt.Errorf("%w: %s: its file system has no locks: put it on a local disk: %w", cache.ErrReadOnly, path, err)
	}
	// On a full disk the id is missing, and that is all.
	if file.Truncate(0) == nil {
		_, _ = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &lock{file}, nil
}

// holderOf reads the process id in a lock file; 0 if there is none.
func holderOf(file *os.File) int {
	text, err := io.ReadAll(io.LimitReader(file, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// release gives the lock back. The file stays: removing it would let two
// processes lock two files of one name.
func (l *lock) release() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.file.Truncate(0), l.file.Close())
}
