package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	driver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/postseal/postseal/cache"
)

// ErrVersion: the file was written by a newer postseal. It is left as it is; the
// operator runs that version again, or moves the file away.
var ErrVersion = errors.New("cache/sqlite: file of a newer version")

// ErrForeign: the file is a database of something else, and is left as it is. The
// operator corrects the path.
var ErrForeign = errors.New("cache/sqlite: not a postseal cache")

// code returns SQLite's primary result code in err, 0 when there is none.
func code(err error) int {
	if e, ok := errors.AsType[*driver.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// damaged tells whether err says that the file is not what SQLite wrote.
func damaged(err error) bool {
	if errors.Is(err, cache.ErrDamaged) {
		return true
	}
	switch code(err) {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT:
		return true
	}
	return false
}

// explain gives an error of SQLite or of the file system its kind, the path, and
// the cure where one is known.
func explain(path string, err error) error {
	if err == nil {
		return nil
	}
	for _, kind := range []error{cache.ErrReadOnly, cache.ErrDamaged, cache.ErrClosed, ErrVersion, ErrForeign} {
		if errors.Is(err, kind) {
			return err
		}
	}
	switch c := code(err); {
	case damaged(err):
		return fmt.Errorf("%w: %s: %w", cache.ErrDamaged, path, err)
	case c == sqlite3.SQLITE_FULL, c == sqlite3.SQLITE_IOERR && onFullDisk(path), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("cache/sqlite: %s: the disk is full: make room, nothing else is needed: %w", path, err)
	case c == sqlite3.SQLITE_READONLY, errors.Is(err, syscall.EROFS), c != 0 && onReadOnlyDisk(path):
		return fmt.Errorf("%w: %s: mount the file system writable, or make the file and its directory belong to the daemon's user: %w",
			cache.ErrReadOnly, path, err)
	case c == sqlite3.SQLITE_CANTOPEN, c == sqlite3.SQLITE_PERM, errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cache/sqlite: %s: the file and its directory must belong to the daemon's user: %w", path, err)
	case c == sqlite3.SQLITE_BUSY:
		return fmt.Errorf("cache/sqlite: %s: another program, such as sqlite3, has held it for %v: %w", path, busyTimeout, err)
	}
	return fmt.Errorf("cache/sqlite: %s: %w", path, err)
}

// onReadOnlyDisk asks the file system, because SQLite calls a write that it
// refused just an input/output error. POSIX access(2): EROFS, for root as well.
func onReadOnlyDisk(path string) bool {
	return errors.Is(unix.Access(filepath.Dir(path), unix.W_OK), unix.EROFS)
}

// onFullDisk asks as well: without room for its index in memory that is shared,
// SQLite speaks of an input/output error.
func onFullDisk(path string) bool {
	const index = 32 << 10 // bytes that SQLite asks for
	var disk unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &disk); err != nil {
		return false
	}
	return int64(disk.Bavail)*int64(disk.Bsize) < index
}

// writable tells whether the file system lets this process write the file and
// beside it.
func writable(path string) bool {
	return unix.Access(path, unix.W_OK) == nil && unix.Access(filepath.Dir(path), unix.W_OK) == nil
}
