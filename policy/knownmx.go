package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/postseal/postseal/cache"
	"github.com/postseal/postseal/policy/dane"
)

// Limits of the MX sets that are kept for mx: rules.
const (
	knownLasts = 7 * 24 * time.Hour // as long as the hint of row D4.A
	knownAgain = time.Hour          // a set that stays the same is noted so often at most
	// maxKnown of them are kept, about 300 bytes each; the set of a further domain
	// is forgotten at a restart.
	maxKnown   = 100_000
	purgeAgain = time.Minute // between two looks for room among them
	maxLeft    = 10_000      // mail hosts that a destination left, until watchRules looks
)

// KnownMX is the MX set of a domain as it was last seen: what mx: rules are held
// against while the set is unknown, over a restart too. It is immutable.
type KnownMX struct {
	At     time.Time `json:"at"`
	Secure bool      `json:"secure"` // the whole set was validated; a rule that lowers needs that
	Hosts  []string  `json:"hosts"`  // up to dane.MaxHosts
}

// current tells whether the set may still be used.
func (k *KnownMX) current(now time.Time) bool {
	// STS-097: a moment ahead of now would make it last longer.
	return k != nil && now.Sub(k.At).Abs() <= knownLasts
}

func (k *KnownMX) record(domain string) (cache.Record, error) {
	value, err := json.Marshal(k)
	return cache.Record{Kind: kindMX, Key: domain, Value: value, Expires: k.At.Add(knownLasts)}, err
}

// readKnownMX is the inverse of record. A file can be damaged, or from another version.
func readKnownMX(r cache.Record, now time.Time) (*KnownMX, error) {
	var k KnownMX
	if err := json.Unmarshal(r.Value, &k); err != nil {
		return nil, err
	}
	if len(k.Hosts) > dane.MaxHosts {
		return nil, fmt.Errorf("%d mail hosts, at most %d", len(k.Hosts), dane.MaxHosts)
	}
	for i, name := range k.Hosts {
		var err error
		if k.Hosts[i], err = canonicalName(name); err != nil {
			return nil, fmt.Errorf("mail host %.100q: %w", name, err)
		}
	}
	k.At = clampPast(k.At, now)
	return &k, nil
}

// knownSets holds the MX sets that are kept, by domain.
type knownSets struct {
	mu     sync.Mutex
	sets   map[string]*KnownMX
	purged time.Time // when there was last looked for room
	left   []string  // mail hosts that a destination no longer has
}

// get returns the set of a domain while it may be used, nil without one.
func (s *knownSets) get(domain string, now time.Time) *KnownMX {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.sets[domain]; k.current(now) {
		return k
	}
	return nil
}

// all returns the sets that may be used.
func (s *knownSets) all(now time.Time) map[string]KnownMX {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]KnownMX{}
	for domain, k := range s.sets {
		if k.current(now) {
			all[domain] = *k
		}
	}
	return all
}

// note keeps a set, and reports whether the store should have it anew.
func (s *knownSets) note(domain string, k *KnownMX) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.sets[domain]
	if old != nil && old.Secure == k.Secure && slices.Equal(old.Hosts, k.Hosts) && k.At.Sub(old.At).Abs() < knownAgain {
		return false
	}
	if old != nil && len(s.left) < maxLeft {
		for _, host := range old.Hosts {
			if _, still := slices.BinarySearch(k.Hosts, host); !still {
				s.left = append(s.left, host)
			}
		}
	}
	return s.put(domain, k)
}

// takeLeft returns the mail hosts that some destination no longer has, since the last
// call.
func (s *knownSets) takeLeft() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.left
	s.left = nil
	return left
}

// restore keeps a set from the store, unless one as new is there.
func (s *knownSets) restore(domain string, k *KnownMX) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.sets[domain]; old == nil || old.At.Before(k.At) {
		s.put(domain, k)
	}
}

// put keeps a set where there is room, in place of those whose time is up. The
// lock of s is held.
func (s *knownSets) put(domain string, k *KnownMX) bool {
	if s.sets == nil {
		s.sets = map[string]*KnownMX{}
	}
	if _, is := s.sets[domain]; !is && len(s.sets) >= maxKnown {
		if k.At.Sub(s.purged).Abs() < purgeAgain {
			return false
		}
		s.purged = k.At
		for other, o := range s.sets {
			if !o.current(k.At) {
				delete(s.sets, other)
			}
		}
		if len(s.sets) >= maxKnown {
			return false
		}
	}
	s.sets[domain] = k
	return true
}

func (s *knownSets) forget(domain string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sets, domain)
}

// noteMX keeps the MX set that was just seen, where a rule had to know it or an
// enforced policy is held. A rule that is removed asks no more: what it left behind
// is gone a week later.
func (q *query) noteMX() {
	m := q.mx
	if !q.rulesNeedMX && q.policy == nil || m == nil || m.Failure() != "" || q.key.Brackets {
		return
	}
	if len(m.Hosts) == 0 {
		// No such name, or a null MX: no mail goes there. Forged, it would let a rule
		// that raises fall away for as long as sets are kept.
		return
	}
	k := &KnownMX{At: q.now.Round(0).UTC(), Secure: m.Secure && !m.Truncated, Hosts: make([]string, 0, len(m.Hosts))}
	for _, x := range m.Hosts {
		k.Hosts = append(k.Hosts, x.Name)
	}
	slices.Sort(k.Hosts)
	if domain := q.d.domain.key; q.e.sets.note(domain, k) {
		if r, err := k.record(domain); err == nil {
			q.e.writer.add(r)
		}
	}
}

// restoreMX takes a set from the store into memory.
func (e *Engine) restoreMX(r cache.Record) {
	k, err := readKnownMX(r, time.Now().Round(0))
	if err != nil {
		e.log.Warn("MX set in the store cannot be read", "domain", r.Key, "error", err)
		return
	}
	e.sets.restore(r.Key, k)
}

// forgetMX forgets the set of a domain in memory; the store is the caller's.
func (e *Engine) forgetMX(domain string) {
	e.sets.forget(domain)
	e.writer.drop(kindMX, domain)
}

// readMXThrough fetches one set from the store while the whole is still being loaded.
func (e *Engine) readMXThrough(ctx context.Context, domain string) {
	defer e.writer.order.share()()
	if !e.unread.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if r, err := e.store.Get(ctx, kindMX, domain); err == nil {
		e.restoreMX(r)
	} else if !errors.Is(err, cache.ErrNotFound) {
		e.log.Debug("MX set in the store cannot be read", "domain", domain, "error", err)
	}
}

// mxSet gives the set the form of evidence, nil without one.
func (k *KnownMX) mxSet() *dane.MXSet {
	if k == nil || len(k.Hosts) == 0 {
		return nil
	}
	m := &dane.MXSet{Secure: k.Secure}
	for _, name := range k.Hosts {
		m.Hosts = append(m.Hosts, dane.Exchanger{Name: name})
	}
	return m
}

// KnownMX lists the MX sets that are kept, by domain.
func (e *Engine) KnownMX() map[string]KnownMX { return e.sets.all(time.Now()) }

// ReadKnownMX lists the MX sets of a store, for when no daemon runs.
func ReadKnownMX(ctx context.Context, s cache.Store) (map[string]KnownMX, error) {
	now, all := time.Now(), map[string]KnownMX{}
	for r, err := range s.All(ctx, kindMX) {
		if err != nil {
			return nil, err
		}
		if k, err := readKnownMX(r, now); err == nil && k.current(now) {
			all[r.Key] = *k
		}
	}
	return all, nil
}
