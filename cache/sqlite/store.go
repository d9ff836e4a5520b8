package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/postseal/postseal/cache"
)

// Config says where a Store lives.
type Config struct {
	// Path of the file. Its directory is created (0700) when it is absent; files
	// beside it, of the same name with an ending, belong to the store as well.
	Path string
	// Logger hears of damage and of a disk that cannot be written. nil: nobody does.
	Logger *slog.Logger
	// Name is the section of the configuration that has the path, and what the
	// store is called. Empty: "cache".
	Name string
	// Loss says, beside a message of damage, what that comes to. Empty: that policies
	// are fetched again.
	Loss string
}

// Store is a cache.Store in a file. Open makes one.
type Store struct {
	path    string
	name    string // as in Config, never empty
	loss    string
	log     *slog.Logger
	refusal error // why nothing is ever written: OpenReadOnly

	mu      sync.Mutex
	db      *database     // nil while it is being replaced, or when that failed
	changed chan struct{} // closed when db changes, or the store is closed
	broken  error         // why there is no db
	fault   error         // what Err says
	closed  bool

	calls  sync.WaitGroup // calls that write
	ops    chan *op
	damage chan found // by a reader, for the writer to replace

	// Of the writer's goroutine alone.
	lock     *lock
	attempt  time.Time // when opening for writing failed last
	obstacle error     // and why

	life context.Context // of the purge and of the checks
	end  context.CancelFunc
	own  sync.WaitGroup
}

// found is a database that was withdrawn because of damage.
type found struct {
	database *database
	cause    error
}

var _ cache.Store = (*Store)(nil)

func newStore(path string, cfg Config) *Store {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		path: path, log: log.With("path", path),
		name: cmp.Or(cfg.Name, "cache"), loss: cmp.Or(cfg.Loss, "policies that were lost are fetched again"),
		changed: make(chan struct{}), ops: make(chan *op, queueLength), damage: make(chan found, 1),
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Open opens the file at cfg.Path for reading and writing and creates it when it
// is absent. A damaged file is moved aside, with what can be read carried over.
// When the file can be read but not written, Open succeeds: Err says why, and
// writing is tried again with later calls.
//
// The error wraps ErrHeld when another process writes to the file, ErrVersion or
// ErrForeign when it is not to be touched: the operator has to decide, and the
// daemon does not start. After any other it goes on with a cache.Volatile. ctx
// bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	path, err := resolve(cfg.Path)
	if err != nil {
		return nil, err
	}
	s := newStore(path, cfg)
	if s.db, err = s.openForWriting(ctx); err != nil {
		err = explain(path, err)
		if s.db = s.fallBack(ctx, err); s.db == nil {
			return nil, errors.Join(err, s.lock.release())
		}
		s.note(s.obstruct(err))
	}
	s.own.Go(s.write)
	s.own.Go(func() { s.purgeHourly(s.life) })
	s.own.Go(func() { s.checkDaily(s.life) })
	return s, nil
}

// openForWriting does what has to be done once, or again after a failure.
func (s *Store) openForWriting(ctx context.Context) (*database, error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return nil, err
	}
	if err := checkPlace(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if s.lock == nil {
		l, err := acquire(s.path, s.name)
		if err != nil {
			return nil, err
		}
		s.lock = l
	}
	if size(s.path) == 0 && size(s.path+"-wal") <= 0 {
		s.log.Warn("the " + s.name + " file is empty, starting from nothing")
	}
	d, err := openDatabase(ctx, s.path)
	if err != nil && damaged(err) {
		return s.replace(ctx, err)
	}
	return d, err
}

// fallBack opens for reading what cannot be opened for writing, if that may help.
func (s *Store) fallBack(ctx context.Context, cause error) *database {
	if errors.Is(cause, ErrHeld) || errors.Is(cause, ErrVersion) || errors.Is(cause, ErrForeign) || damaged(cause) || ctx.Err() != nil {
		return nil
	}
	if checkPlace(s.path) != nil || size(s.path) == 0 {
		return nil
	}
	d, err := openForReading(ctx, s.path)
	if err != nil {
		return nil
	}
	return d
}

// resolve makes a path absolute and follows links, so that there is one lock for
// one file.
func resolve(path string) (string, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("cache/sqlite: %q is not a path", path)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("cache/sqlite: %s: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path)), nil
	}
	return path, nil
}

// Err implements cache.Store. It reports what hindered the last write, until one
// succeeds, and damage that could not be repaired.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return cache.ErrClosed
	}
	return s.fault
}

// Close implements cache.Store. It waits for the calls under way.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return cache.ErrClosed
	}
	s.closed = true
	close(s.changed)
	s.mu.Unlock()

	s.end()
	s.calls.Wait()
	close(s.ops)
	s.own.Wait()
	var err error
	if s.db != nil { // nobody else is left
		err = s.db.close()
	}
	if err = errors.Join(err, s.lock.release()); err != nil {
		return explain(s.path, err)
	}
	return nil
}

// use returns the database, waiting while it is being replaced. The caller tells
// its users when it is done.
func (s *Store) use(ctx context.Context) (*database, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		d, changed, broken := s.db, s.changed, s.broken
		if s.closed {
			d, broken = nil, cache.ErrClosed
		}
		if d != nil {
			d.users.Add(1)
		}
		s.mu.Unlock()
		if d != nil {
			return d, nil
		}
		if broken != nil {
			return nil, broken
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// set puts a database in place, or says why there is none.
func (s *Store) set(d *database, broken error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db, s.broken = d, broken
	if !s.closed {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// withdraw takes d out of use and tells whether the caller was the first to.
func (s *Store) withdraw(d *database) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != d || s.closed {
		return false
	}
	s.db, s.broken = nil, nil
	return true
}

// note keeps what Err says, and logs when that begins and ends.
func (s *Store) note(fault error) {
	s.mu.Lock()
	before := s.fault
	s.fault = fault
	s.mu.Unlock()
	if fault != nil && before == nil {
		s.log.Error("the "+s.name+" cannot be relied on", "error", fault)
	} else if fault == nil && before != nil {
		s.log.Info("the " + s.name + " can be written again")
	}
}
