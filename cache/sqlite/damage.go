package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/cache"
)

// Endings of the files that belong to a database, besides the file itself.
var companions = []string{"-wal", "-shm", "-journal"}

// repair replaces a database that was withdrawn. On failure the store stays
// without one, says why, and tries again with later writes.
func (s *Store) repair(d *database, cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), salvageTime+queryTimeout)
	defer cancel()
	if err := d.close(); err != nil {
		s.log.Debug("a damaged "+s.name+" file was not closed cleanly", "error", err)
	}
	next, err := s.replace(ctx, cause)
	if err != nil {
		broken := s.obstruct(err)
		s.set(nil, broken)
		s.note(broken)
		return
	}
	s.set(next, nil)
	s.note(nil)
}

// replace builds a new file from what can be read of the damaged one, moves the
// damaged one aside and opens the new one. A crash on the way leaves the damaged
// file where it was, or the new one complete.
func (s *Store) replace(ctx context.Context, cause error) (*database, error) {
	fresh, started := s.path+".salvage", time.Now()
	err := removeAll(fresh)
	var result salvaged
	if err == nil {
		result, err = salvageInto(ctx, fresh, s.path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w: and no new file can be made: %w", cache.ErrDamaged, s.path, cause, errors.Join(err, removeAll(fresh)))
	}
	aside, err := moveAside(s.path, fresh, started)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w: and it cannot be moved aside: %w", cache.ErrDamaged, s.path, cause, errors.Join(err, removeAll(fresh)))
	}
	s.log.Error("the "+s.name+" file was damaged and has been moved aside; "+s.loss,
		"aside", aside, "cause", cause, "salvaged", result.records, "complete", result.complete, "took", time.Since(started))
	s.forgetDamaged()
	d, err := openDatabase(ctx, s.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: and the new file cannot be opened: %w", cache.ErrDamaged, s.path, err)
	}
	return d, nil
}

// moveAside gives the damaged file and its companions a new name, and its old
// name to the fresh one. The write-ahead log goes first: SQLite would apply it to
// whatever file has the name.
func moveAside(path, fresh string, now time.Time) (aside string, err error) {
	for n := 0; ; n++ {
		aside = path + ".damaged-" + now.UTC().Format("20060102T150405Z")
		if n > 0 {
			aside = fmt.Sprintf("%s-%d", aside, n)
		}
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
	}
	for _, ending := range companions {
		if err := os.Rename(path+ending, aside+ending); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	// With a second name for the damaged file, the old one changes hands at once.
	if os.Link(path, aside) != nil {
		if err := os.Rename(path, aside); err != nil {
			return "", err
		}
	}
	if err := os.Rename(fresh, path); err != nil {
		return "", err
	}
	return aside, syncDir(path)
}

// forgetDamaged removes damaged files but the newest, so that a disk that goes on
// damaging them does not fill up as well.
func (s *Store) forgetDamaged() {
	dir, prefix := filepath.Dir(s.path), filepath.Base(s.path)+".damaged-"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && !slices.ContainsFunc(companions, func(c string) bool { return strings.HasSuffix(e.Name(), c) }) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(names) // by time
	for ; len(names) > keepDamaged; names = names[1:] {
		if err := removeAll(names[0]); err != nil {
			s.log.Warn("an old damaged "+s.name+" file could not be removed", "file", names[0], "error", err)
		}
	}
}

// removeAll removes a database file and its companions, if they are there.
func removeAll(path string) error {
	var errs []error
	for _, ending := range append([]string{""}, companions...) {
		if err := os.Remove(path + ending); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
