package conf

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	pollInterval = 5 * time.Second
	// While reading fails, it is tried again after pollInterval, then twice as
	// long each time, up to:
	maxRetryInterval = 5 * time.Minute
)

// Watch reads at once, and again when main.cf, master.cf, the smtp binary, postconf,
// a CA file or a table that routes mail is another one than before (looked at every 5
// seconds). Each time onChange is told the result of Read, from this goroutine. Watch
// returns the context's error when it ends; who wants to read sooner, or with other
// Endpoints, ends it and watches with a new Reader.
func (r *Reader) Watch(ctx context.Context, onChange func(*Snapshot, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var s *Snapshot
	retry := pollInterval
	for {
		// The files are looked at before they are read: what changes meanwhile
		// is then seen as a change by the next look.
		p, _ := r.locate(ctx)
		before := identities(r.watched(p, s))
		now, p, err := r.read(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var again <-chan time.Time
		switch {
		case err == nil:
			s, retry = now, pollInterval
		case !errors.Is(err, ErrNoPostfix):
			again, retry = time.After(retry), min(2*retry, maxRetryInterval)
		}
		seen := identities(r.watched(p, s))
		maps.Copy(seen, before)
		onChange(now, err)
		if err := untilChanged(ctx, tick.C, again, seen); err != nil {
			return err
		}
	}
}

// untilChanged returns nil when it is time to read again.
func untilChanged(ctx context.Context, tick, again <-chan time.Time, seen map[string]string) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
			return nil
		case <-tick:
			if !maps.Equal(seen, identities(slices.Collect(maps.Keys(seen)))) {
				return nil
			}
		}
	}
}

// watched are the files that decide what Read finds.
func (r *Reader) watched(p place, s *Snapshot) []string {
	files := r.candidates()
	if p.dir != "" {
		files = append(files, filepath.Join(p.dir, "main.cf"), filepath.Join(p.dir, "master.cf"))
	}
	if s != nil {
		files = append(files, filepath.Join(s.DaemonDirectory, "smtp"))
		files = append(files, s.routingFiles()...)
		for _, sv := range s.Ours() {
			if file := sv.Param("smtp_tls_CAfile"); file != "" {
				files = append(files, absolute(file, s.QueueDirectory))
			}
		}
	}
	return files
}

// identities tell files apart from what they were, by inode, size and time.
func identities(files []string) map[string]string {
	ids := make(map[string]string, len(files))
	for _, file := range files {
		ids[file] = identity(file)
	}
	return ids
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
