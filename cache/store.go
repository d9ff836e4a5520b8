// Package cache keeps what the daemon learned: bounded and sharded in memory
// (Memory), and behind it, durably, in a Store.
//
// The package knows nothing of mail. Values are opaque bytes; whoever puts them
// there versions and checks their meaning.
package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Kind sorts records. A Store keeps kinds that it does not know.
type Kind string

// Limits of a record. A Store refuses more (ErrTooLarge).
const (
	MaxKey   = 512
	MaxValue = 1 << 20
)

// Errors of a Store. They are wrapped: the kind first, the cause second.
var (
	// ErrNotFound: there is no such record. The caller goes on without it.
	ErrNotFound = errors.New("cache: no such record")
	// ErrTooLarge: the record exceeds MaxKey or MaxValue. The caller keeps it in memory.
	ErrTooLarge = errors.New("cache: record too large")
	// ErrReadOnly: the records can be read but not written, because of another
	// process that holds the lock or of the file system. The caller goes on from
	// memory and raises an alarm.
	ErrReadOnly = errors.New("cache: store is read-only")
	// ErrDamaged: this record, or the store as a whole, could not be read. For a
	// single record the caller fetches it again.
	ErrDamaged = errors.New("cache: damaged")
	// ErrClosed: the Store was closed.
	ErrClosed = errors.New("cache: store is closed")
)

// Record is one thing worth keeping over a restart.
type Record struct {
	Kind    Kind
	Key     string
	Value   []byte
	Expires time.Time // zero: never. Seconds count; a Store may drop the rest
}

// Store keeps records over kill -9 and power loss. The contract, which
// cachetest holds every implementation to:
//
//   - All methods may be called at once from many goroutines, and return early
//     with the context's error when it ends.
//   - Put and Delete are atomic, all records or none, and durable when they
//     return nil: neither kill -9 nor a power loss takes them back. Concurrent
//     calls may share one commit.
//   - A record put under an existing kind and key replaces it.
//   - Get returns ErrNotFound for what is not there, also for what is expired
//     at the time of the call, and ErrDamaged for a record whose checksum does
//     not match; other records are not affected by it.
//   - All yields every readable, unexpired record of a kind once, in no order,
//     as it was at some moment during the iteration, and skips damaged ones, after
//     telling the store's logger. The error ends the iteration. Value belongs to the caller.
//   - After Close every method returns ErrClosed. Close waits for commits.
type Store interface {
	Get(ctx context.Context, kind Kind, key string) (Record, error)
	Put(ctx context.Context, records ...Record) error
	Delete(ctx context.Context, kind Kind, keys ...string) error
	All(ctx context.Context, kind Kind) iter.Seq2[Record, error]
	// Err says why the store cannot be relied on now (full disk, read-only, damage that
	// could not be repaired), nil when all is well. For /readyz and alarms.
	Err() error
	Close() error
}

// Expired tells whether r has expired at now.
func (r Record) Expired(now time.Time) bool {
	return !r.Expires.IsZero() && !now.Before(r.Expires)
}

// Check returns ErrTooLarge, naming the record, when r exceeds MaxKey or MaxValue.
func (r Record) Check() error {
	if len(r.Key) > MaxKey {
		return fmt.Errorf("%w: %s %.64q…: key of %d bytes, at most %d", ErrTooLarge, r.Kind, r.Key, len(r.Key), MaxKey)
	}
	if len(r.Value) > MaxValue {
		return fmt.Errorf("%w: %s %.64q: value of %d bytes, at most %d", ErrTooLarge, r.Kind, r.Key, len(r.Value), MaxValue)
	}
	return nil
}
