package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postseal/postseal/cache"
)

// kindSigned are From domains of which a passing aligned signature was seen.
const kindSigned cache.Kind = "signed"

const (
	maxSigned    = 100_000                // domains; more are not kept
	signedDelay  = 100 * time.Millisecond // how long domains are gathered for one write
	signedRetry  = 5 * time.Second        // after a write that failed
	signedWithin = 5 * time.Second        // how long a write may take
)

// signedDomains remembers whose mail is signed, in memory and in the store. It is
// the milter's Seen.
type signedDomains struct {
	store cache.Store
	log   *slog.Logger

	mu      sync.RWMutex
	known   map[string]struct{}
	waiting []string      // to be written
	wake    chan struct{} // holds one: something waits
}

func newSignedDomains(store cache.Store, log *slog.Logger) *signedDomains {
	return &signedDomains{store: store, log: log, known: map[string]struct{}{}, wake: make(chan struct{}, 1)}
}

// Signed says whether a signature of the domain was seen.
func (s *signedDomains) Signed(domain string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, known := s.known[domain]
	return known
}

// NoteSigned remembers a domain; it is on disk within a second.
func (s *signedDomains) NoteSigned(domain string) {
	if s.Signed(domain) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.known[domain]; known || len(s.known) >= maxSigned {
		return
	}
	s.known[domain] = struct{}{}
	s.waiting = append(s.waiting, domain)
	s.log.Info("mail of this From domain is signed: unsigned mail of it is acted on from now on, where the configuration says so", "from", domain)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run loads what the store has and writes what is new, until ctx ends.
func (s *signedDomains) run(ctx context.Context) {
	for r, err := range s.store.All(ctx, kindSigned) {
		if err != nil {
			s.log.Warn("which domains sign their mail cannot be read; it is learned anew", "error", err)
			break
		}
		s.mu.Lock()
		s.known[r.Key] = struct{}{}
		s.mu.Unlock()
	}
	for {
		select {
		case <-ctx.Done():
			s.write()
			return
		case <-s.wake:
		}
		delay := signedDelay
		for s.sleep(ctx, delay) && !s.write() {
			delay = signedRetry
		}
	}
}

func (s *signedDomains) sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// write reports whether nothing is left to be written.
func (s *signedDomains) write() bool {
	s.mu.Lock()
	batch := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	if len(batch) == 0 {
		return true
	}
	records := make([]cache.Record, len(batch))
	for i, domain := range batch {
		records[i] = cache.Record{Kind: kindSigned, Key: domain, Value: []byte(`{"v":1}`)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), signedWithin)
	defer cancel()
	if err := s.store.Put(ctx, records...); err != nil {
		s.log.Warn("which domains sign their mail cannot be written; trying on", "error", err)
		s.mu.Lock()
		s.waiting = append(batch, s.waiting...)
		s.mu.Unlock()
		return false
	}
	return true
}
