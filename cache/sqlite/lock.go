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

// errHeld: another process writes to the file.
var errHeld = errors.New("held by another process")

// acquire takes the lock of the store at path and leaves the process id in the
// lock file, for whoever comes second.
func acquire(path string) (*lock, error) {
	name := path + ".lock"
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := ""
		if errors.Is(err, unix.EWOULDBLOCK) {
			holder, err = holderOf(file), errHeld
		}
		file.Close()
		return nil, fmt.Errorf("%w: %s: %s%w: stop it, or give this one a path of its own", cache.ErrReadOnly, path, holder, err)
	}
	// On a full disk the id is missing, and that is all.
	if file.Truncate(0) == nil {
		_, _ = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &lock{file}, nil
}

func holderOf(file *os.File) string {
	text, err := io.ReadAll(io.LimitReader(file, 32))
	if err != nil {
		return ""
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("process %d: ", pid)
}

// release gives the lock back. The file stays: removing it would let two
// processes lock two files of one name.
func (l *lock) release() error {
	if l == nil {
		return nil
	}
	return errors.Join(l.file.Truncate(0), l.file.Close())
}
