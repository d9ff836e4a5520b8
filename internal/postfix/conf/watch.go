package conf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	pollInterval = 5 * time.Second
	// While reading fails, it is tried again after pollInterval, then twice as
	// long each time, up to:
	maxRetryInterval = 5 * time.Minute
)

// Watch reads at once, and again when main.cf, master.cf, the smtp binary,
// postconf or a CA file is another one than before (looked at every 5 seconds)
// and after Reread. Each time onChange is told the result of Read, from this
// goroutine. Watch returns the context's error when it ends.
func (r *Reader) Watch(ctx context.Context, onChange func(*Snapshot, error)) error {
	wake := r.waker()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var s *Snapshot
	retry := pollInterval
	for {
		now, p, err := r.read(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			s, retry = now, pollInterval
		}
		// The fingerprint is taken after reading: of what was changed meanwhile
		// the next look may find only the later half, so it is read once more.
		seen := r.fingerprint(p, s)
		onChange(now, err)
		var again <-chan time.Time
		if err != nil && !errors.Is(err, ErrNoPostfix) {
			timer := time.NewTimer(retry)
			defer timer.Stop()
			again, retry = timer.C, min(2*retry, maxRetryInterval)
		}
		if err := r.untilChanged(ctx, wake, tick.C, again, p, s, seen); err != nil {
			return err
		}
	}
}

// untilChanged returns nil when it is time to read again.
func (r *Reader) untilChanged(ctx context.Context, wake <-chan struct{}, tick, again <-chan time.Time, p place, s *Snapshot, seen string) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
			return nil
		case <-again:
			return nil
		case <-tick:
			if r.fingerprint(p, s) != seen {
				return nil
			}
		}
	}
}

// Reread makes Watch read again now, as after a reload. It does not wait.
func (r *Reader) Reread() {
	select {
	case r.waker() <- struct{}{}:
	default: // one is already waiting
	}
}

func (r *Reader) waker() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wake == nil {
		r.wake = make(chan struct{}, 1)
	}
	return r.wake
}

// fingerprint tells the watched files apart from what they were: identity, size
// and times of change.
func (r *Reader) fingerprint(p place, s *Snapshot) string {
	files := r.candidates()
	if p.dir != "" {
		files = append(files, filepath.Join(p.dir, "main.cf"), filepath.Join(p.dir, "master.cf"))
	}
	if s != nil {
		files = append(files, filepath.Join(s.DaemonDirectory, "smtp"))
		for _, sv := range s.Ours() {
			if file := sv.Param("smtp_tls_CAfile"); file != "" {
				files = append(files, absolute(file, s.QueueDirectory))
			}
		}
	}
	slices.Sort(files)
	var b strings.Builder
	for _, file := range slices.Compact(files) {
		fmt.Fprintf(&b, "%s %s\n", file, identity(file))
	}
	return b.String()
}

func identity(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "-"
	}
	id := fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		// A file put in place with an old time still has another inode.
		id += fmt.Sprintf(" %d:%d", st.Dev, st.Ino)
	}
	return id
}
