package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	driver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/postseal/postseal/cache"
)

// Reading beside a daemon that is at work on its index can fail for a moment.
const (
	indexTries = 20
	indexAgain = 50 * time.Millisecond
)

// patiently reads again while the index is just not to be had, though it is there and
// the files are ours to read (sqlite3.c, walTryBeginRead and walBeginShmUnreliable).
func patiently(ctx context.Context, read func() error) error {
	for tries := 1; ; tries++ {
		err := read()
		e, ok := errors.AsType[*driver.Error](err)
		if !ok || tries == indexTries || ctx.Err() != nil {
			return err
		}
		switch e.Code() {
		case sqlite3.SQLITE_READONLY_CANTINIT, sqlite3.SQLITE_READONLY_RECOVERY, sqlite3.SQLITE_BUSY_RECOVERY:
			time.Sleep(indexAgain)
		default:
			return err
		}
	}
}

// openForReading opens a file that is there, and creates nothing beside it,
// whatever is there of the three files of a database:
//
//   - write-ahead log and its index: a daemon runs, or was killed. The index is
//     used as it is, or rebuilt in memory.
//   - neither: nobody runs, the file is complete.
//   - a log without index: somebody copied these two. They are read from a private
//     copy, because the index would have to be created.
func openForReading(ctx context.Context, path string) (*database, error) {
	d := newDatabase()
	name, query := path, url.Values{"mode": {"ro"}}
	switch log, index := size(path+"-wal"), size(path+"-shm"); {
	case log >= 0 && index >= 0:
		query.Set("readonly_shm", "1")
	case log > 0:
		copied, err := copyPair(path)
		if err != nil {
			return nil, err
		}
		d.private, name = filepath.Dir(copied), copied
	default:
		query.Set("immutable", "1")
	}
	if err := d.openReaders(ctx, name, query); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if err := d.checkVersion(ctx, path); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *database) checkVersion(ctx context.Context, path string) error {
	conn, err := d.reader.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	version, err := checkHeader(ctx, conn, path, len(migrations))
	if err == nil && version < len(migrations) {
		err = fmt.Errorf("%s: schema of version %d, needed %d: start the daemon once to bring it up to date", path, version, len(migrations))
	}
	return err
}

// size returns the size of a file, -1 when there is none.
func size(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return -1
	}
	return info.Size()
}

func copyPair(path string) (string, error) {
	dir, err := os.MkdirTemp("", "postseal-cache-")
	if err != nil {
		return "", err
	}
	to := filepath.Join(dir, "copy.db")
	if err := errors.Join(copyFile(to, path), copyFile(to+"-wal", path+"-wal")); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return to, nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// checkPlace refuses what cannot be a database, in words that name the cure.
func checkPlace(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("cache/sqlite: %s is a directory: the path must name a file in it, such as %s", path, filepath.Join(path, "postseal.db"))
	case !info.Mode().IsRegular():
		return fmt.Errorf("cache/sqlite: %s is not a regular file but %v", path, info.Mode().Type())
	}
	return nil
}

// OpenReadOnly opens the file at path for the command line: while the daemon runs
// or when it is down. It takes no lock and creates no files. Put and Delete return
// cache.ErrReadOnly; Err returns nil; a damaged file stays where it is.
//
// The error wraps fs.ErrNotExist when there is no file, cache.ErrDamaged,
// ErrVersion or ErrForeign when it cannot be used.
func OpenReadOnly(ctx context.Context, cfg Config) (*Store, error) {
	path, err := resolve(cfg.Path)
	if err != nil {
		return nil, err
	}
	if err := checkPlace(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cache/sqlite: %s: there is no %s yet, or the path is another: %w", path, cmp.Or(cfg.Name, "cache"), err)
	} else if err != nil {
		return nil, explain(path, err)
	}
	var d *database
	err = patiently(ctx, func() (err error) {
		d, err = openForReading(ctx, path)
		return err
	})
	if err != nil {
		return nil, explain(path, err)
	}
	s := newStore(path, cfg)
	s.db = d
	s.refusal = fmt.Errorf("%w: %s was opened for reading", cache.ErrReadOnly, path)
	return s, nil
}
