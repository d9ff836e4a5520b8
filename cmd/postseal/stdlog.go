package main

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// How many lines of libraries are logged in a time; the rest is counted. A broken
// peer of the milter makes go-milter print one for each connection.
const (
	stdLogLines = 10
	stdLogEvery = time.Minute
)

// stdLog takes what libraries print through package log into ours.
type stdLog struct {
	log *slog.Logger

	mu         sync.Mutex
	since      time.Time
	lines      int
	suppressed int
}

// takeStdLog makes package log write into l.
func takeStdLog(l *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(&stdLog{log: l})
}

func (s *stdLog) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.since) >= stdLogEvery {
		if s.suppressed > 0 {
			s.log.Warn("lines of libraries left out", "lines", s.suppressed)
		}
		s.since, s.lines, s.suppressed = now, 0, 0
	}
	if s.lines++; s.lines > stdLogLines {
		s.suppressed++
		return len(p), nil
	}
	s.log.Log(context.Background(), slog.LevelWarn, strings.TrimSpace(string(p)))
	return len(p), nil
}
