package server

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Mishap is a kind of trouble: each is counted, and one in ten seconds logged, since
// peers can cause as many as they like. The zero value is ready for use.
type Mishap struct {
	count atomic.Uint64

	mu         sync.Mutex
	last       time.Time
	suppressed int
}

// Count returns how many there were.
func (m *Mishap) Count() uint64 { return m.count.Load() }

// Log counts one and logs it, with how many were not since the last line, if its time
// has come. A nil Logger logs nothing.
func (m *Mishap) Log(l *slog.Logger, level slog.Level, text string, attributes ...any) {
	m.count.Add(1)
	if l == nil {
		return
	}
	if n, ok := m.pass(); ok {
		l.Log(context.Background(), level, text, append(attributes, "suppressed", n)...)
	}
}

// pass says whether a line may be logged, and how many were not since the last.
func (m *Mishap) pass() (suppressed int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if !m.last.IsZero() && now.Sub(m.last) < logInterval {
		m.suppressed++
		return 0, false
	}
	suppressed, m.suppressed, m.last = m.suppressed, 0, now
	return suppressed, true
}
